"""Colors against libvips and lcms2, and against the formulas of the standards."""

import struct

import numpy as np
import pytest
from color_pictures import PROFILES, by_vips, patches, saved
from PIL import Image
from PIL.ExifTags import IFD

from realrag.photos.decode import decode
from realrag.photos.keep import shrink_to_area
from realrag.photos.png import SIGNATURE, chunk
from realrag.photos.profiles import ADOBE_GAMMA, ADOBE_RGB, BT2020, DISPLAY_P3, SRGB, colorants, linear  # fmt: skip

RGB_PROFILES = ("none", "sRGB", "Display P3", "Adobe RGB", "linear")
TABLE = [
    *[("RGB", format, profile) for format in ("JPEG", "PNG", "WEBP", "TIFF") for profile in RGB_PROFILES],
    *[("RGBA", format, profile) for format in ("PNG", "WEBP", "TIFF") for profile in RGB_PROFILES],
    *[(mode, "PNG", profile) for mode in ("P", "P+tRNS") for profile in RGB_PROFILES],
    *[("L", format, profile) for format in ("JPEG", "PNG", "TIFF") for profile in ("none", "gray 1.8", "gray sRGB")],
    *[("LA", "PNG", profile) for profile in ("none", "gray 1.8")],
    *[("CMYK", format, profile) for format in ("JPEG", "TIFF") for profile in ("none", "CMYK")],
]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data)).astype(int)


@pytest.mark.parametrize(("mode", "format", "profile"), TABLE)
def test_colors_are_those_of_libvips_within_two_levels(mode, format, profile):
    pytest.importorskip("pyvips", reason="pyvips is not installed")
    data = saved(patches(mode), format, PROFILES[profile])
    assert np.abs(pixels(data) - by_vips(data)).max() <= 2


@pytest.mark.parametrize(
    ("mode", "color", "profile", "expected"),
    [
        ("RGBA", (60, 160, 60, 255), "Display P3", (0, 163, 40)),
        ("RGB", (60, 160, 60), "Adobe RGB", (0, 161, 47)),
        ("L", 100, "gray 1.8", (119, 119, 119)),
        ("L", 100, "Display P3", (100, 100, 100)),  # a gray picture may carry a profile of colors
        ("RGB", (60, 160, 60), "gray 1.8", (60, 160, 60)),  # which means nothing here
        ("RGBA", (60, 160, 60, 0), "Display P3", (255, 255, 255)),
    ],
)
def test_a_profile_counts_in_every_mode_before_transparency_is_laid_on_white(mode, color, profile, expected):
    data = saved(Image.new(mode, (4, 4), color), "PNG", PROFILES[profile])
    assert np.abs(pixels(data) - expected).max() <= 1


@pytest.mark.parametrize("tags", [{"interop": "R03"}, {"color_space": 2}])
@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG"])
def test_cameras_say_adobe_rgb_by_exif_alone(tags, format):
    exif = Image.Exif()
    inner = exif.get_ifd(IFD.Exif)
    inner[0xA001] = tags.get("color_space", 0xFFFF)
    if "interop" in tags:
        inner[IFD.Interop] = {1: tags["interop"]}
    data = saved(Image.new("RGB", (16, 16), (60, 160, 60)), format, exif=exif.tobytes())
    assert np.abs(pixels(data) - (0, 161, 47)).max() <= 2


def test_exif_of_an_srgb_camera_changes_nothing():
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[IFD.Interop] = {1: "R98"}
    data = saved(Image.new("RGB", (16, 16), (60, 160, 60)), "PNG", exif=exif.tobytes())
    assert (pixels(data) == (60, 160, 60)).all()


def formula(values, primaries, curve) -> np.ndarray:
    """Encoded (..., 3) in 0..255 -> sRGB in 0..255, in floating point and without a color engine."""
    light = linear(curve, np.asarray(values) / 255) @ colorants(primaries).T @ np.linalg.inv(colorants(SRGB)).T
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def png_with(chunks: dict[bytes, bytes], image) -> bytes:
    data = saved(image, "PNG")
    extra = b"".join(chunk(kind, body) for kind, body in chunks.items())
    return SIGNATURE + data[8:33] + extra + data[33:]


def chrm(primaries) -> bytes:
    return struct.pack(">8I", *[round(100_000 * value) for value in (*primaries[6:], *primaries[:6])])


@pytest.mark.parametrize(
    ("chunks", "primaries", "curve"),
    [
        ({b"cICP": bytes([12, 13, 0, 1])}, DISPLAY_P3, ("srgb",)),
        ({b"cICP": bytes([9, 1, 0, 1])}, BT2020, ("srgb",)),
        ({b"cICP": bytes([9, 16, 0, 1])}, BT2020, ("table", "pq")),
        ({b"cICP": bytes([9, 18, 0, 1])}, BT2020, ("table", "hlg")),
        ({b"cICP": bytes([1, 13, 0, 1]), b"gAMA": struct.pack(">I", 100_000)}, SRGB, ("srgb",)),
        ({b"gAMA": struct.pack(">I", 55_556)}, SRGB, ("gamma", 1.8)),
        ({b"gAMA": struct.pack(">I", 45_455)}, SRGB, ("srgb",)),
        ({b"gAMA": struct.pack(">I", 45_470), b"cHRM": chrm(ADOBE_RGB)}, ADOBE_RGB, ("srgb",)),
        ({b"gAMA": struct.pack(">I", 100_000), b"sRGB": b"\0"}, SRGB, ("srgb",)),
        ({b"gAMA": struct.pack(">I", 0)}, SRGB, ("srgb",)),
        ({b"cHRM": bytes(32)}, SRGB, ("srgb",)),
        ({b"cICP": bytes([12, 200, 0, 1])}, SRGB, ("srgb",)),
    ],
    ids=lambda value: "+".join(key.decode() for key in value) if isinstance(value, dict) else None,
)
def test_what_a_png_says_of_its_colors_in_numbers(chunks, primaries, curve):
    image = patches("RGB")
    found = pixels(png_with(chunks, image))
    assert np.abs(found - formula(np.asarray(image), primaries, curve)).max() <= 2


def test_gamma_of_a_gray_png():
    found = pixels(png_with({b"gAMA": struct.pack(">I", 55_556)}, Image.new("L", (4, 4), 100)))
    assert (found == 119).all()


def test_made_profiles_are_read_by_lcms2_as_the_formulas_say():
    from PIL import ImageCms

    for name, primaries, curve in (("Adobe RGB", ADOBE_RGB, ADOBE_GAMMA), ("Display P3", DISPLAY_P3, ("srgb",))):
        image = patches("RGB")
        found = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(__import__("io").BytesIO(PROFILES[name])), ImageCms.createProfile("sRGB"), 1
        )
        assert np.abs(np.asarray(found) - formula(np.asarray(image), primaries, curve)).max() <= 1


@pytest.mark.parametrize("interlace", [False, True])
def test_the_transparent_color_of_a_16_bit_png_is_compared_in_16_bits(interlace):
    import zlib

    from realrag.photos.png import _PASSES

    width, height = 9, 7
    samples = np.full((height, width, 3), 0x6420, ">u2")
    samples[2, 3] = 0x6421  # the key; its upper half is that of all the others
    samples[6, 8] = (0x6421, 0x6421, 0x6422)
    spans = _PASSES if interlace else ((0, 0, 1, 1),)
    rows = b"".join(
        b"\0" + row.tobytes() for x, y, dx, dy in spans for row in samples[y::dy, x::dx] if samples[y::dy, x::dx].size
    )
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, int(interlace))
    data = SIGNATURE + chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">3H", *[0x6421] * 3))
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    found = pixels(data)
    assert (found[2, 3] == 255).all()
    found[2, 3] = 100
    assert (found == 100).all()


def test_the_transparent_level_of_a_16_bit_gray_png_is_compared_in_16_bits():
    levels = np.full((4, 4), 200 * 257, np.uint16)
    levels[1, 1] += 1
    data = saved(Image.fromarray(levels), "PNG", transparency=int(levels[1, 1]))
    found = pixels(data)
    assert (found[1, 1] == 255).all()
    assert (found[0] == 200).all()


def test_a_profile_that_cannot_be_read_costs_its_colors_and_not_the_photo():
    data = saved(Image.new("RGB", (4, 4), (60, 160, 60)), "JPEG", b"not a profile" * 50)
    assert np.abs(pixels(data) - (60, 160, 60)).max() <= 2


@pytest.mark.parametrize(("mode", "format", "profile"), TABLE)
def test_a_photo_made_smaller_while_it_is_decoded_has_the_colors_of_one_made_smaller_after(mode, format, profile):
    data = saved(patches(mode), format, PROFILES[profile])
    area = 60 * 60
    small = shrink_to_area(decode(data, area=area, exact=True), area)
    usual = shrink_to_area(decode(data, area=area), area)
    assert small.size == usual.size == (60, 60) and small.mode == "RGB" and not small.info
    assert np.abs(np.asarray(small).astype(int) - np.asarray(usual)).max() <= 2
