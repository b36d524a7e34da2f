"""Formats by content, files that are cut, side data that denies no picture, and bounds on memory."""

import io
import struct
import subprocess
import sys
import textwrap
import zlib
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_photos import photo_bytes
from PIL import Image

from realrag.errors import PhotoError
from realrag.photos import jpeg
from realrag.photos.contents import contents_of
from realrag.photos.decode import decode, header, inspect
from realrag.photos.metadata import words_inside
from realrag.photos.png import SIGNATURE, chunk

RED = (230, 20, 20)


def photo(size=(200, 152), seed=0):
    return Image.open(io.BytesIO(photo_bytes(RED, seed, size, "PNG")))


def saved(image, format, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


FORMATS = {
    "JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"quality": 95}, "AVIF": {"quality": 95}, "TIFF": {}, "GIF": {}, "BMP": {},
    "HEIF": {"quality": 95},
}  # fmt: skip


def in_format(format: str, image=None, **options) -> bytes:
    if format == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
        pillow_heif.register_heif_opener()
    return saved(image or photo(), format, **{**FORMATS[format], **options})


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["photo.jpg", "photo.HEIC", "photo", "photo.data"])
def test_a_photo_is_read_by_its_content_whatever_its_name(tmp_path, format, name):
    (tmp_path / name).write_bytes(in_format(format))
    found = inspect(tmp_path / name)
    assert (found.kind, found.width, found.height, found.several) == (format, 200, 152, False)
    image = decode((tmp_path / name).read_bytes())
    assert (image.mode, image.size, image.info) == ("RGB", (200, 152), {})
    tolerance = 40 if format == "GIF" else 15  # a GIF has 256 colors
    assert np.abs(np.asarray(image).astype(int) - np.asarray(photo())).mean() < tolerance


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_file_that_lacks_rows_is_refused(format, part):
    data = in_format(format)
    with pytest.raises(PhotoError) as error:
        decode(data[: int(part * len(data))])
    assert error.value.reason == "damaged"


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"quality": 30}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_whose_rows_are_all_there_needs_no_end(options, mode):
    data = saved(photo().convert(mode), "JPEG", **options)
    whole = decode(data)
    for cut in (data[:-2], data[:-2] + bytes(100), data + bytes(100), data + b"\0\0trailer", data[:-1]):
        assert decode(cut).tobytes() == whole.tobytes()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
@pytest.mark.parametrize(
    "end", [b"", bytes(100), bytes(9000), b"\xff\xd9"], ids=["cut", "100 zeros", "9,000 zeros", "EOI"]
)
def test_a_cut_jpeg_is_refused_whatever_was_put_behind_the_cut(options, end):
    data = saved(photo((640, 480)), "JPEG", **options)
    for part in (0.4, 0.7, 0.97):
        if options.get("progressive") and end == b"\xff\xd9":
            part = 0.03  # later scans only refine rows that are there
        with pytest.raises(PhotoError, match=r"ends before its last row|cannot be decoded"):
            decode(data[: int(part * len(data))] + end)


def test_a_photo_whose_last_corner_is_gray_is_not_taken_for_a_cut_one():
    image = photo((640, 480))
    image.paste((128, 128, 128), (600, 440, 640, 480))
    assert decode(saved(image, "JPEG")).size == (640, 480)


def test_the_first_picture_of_a_file_of_several_is_used():
    frames = [photo(seed=seed) for seed in range(3)]
    for format in ("GIF", "WEBP", "TIFF", "PNG", "AVIF"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        assert header(data, "a")[0].several, format
        assert np.abs(np.asarray(decode(data)).astype(int) - np.asarray(frames[0])).mean() < 40
    assert not header(saved(frames[0], "PNG"), "a")[0].several


def test_the_base_picture_of_a_multi_picture_jpeg_is_used():
    data = saved(photo(), "MPO", save_all=True, append_images=[photo((100, 76), seed=1)])
    found, _ = header(data, "a.jpg")
    assert (found.kind, found.width, found.several) == ("JPEG", 200, False)
    assert contents_of(data, "a").pixels.count(b"\xff\xd8\xff") == 1
    assert decode(data).size == (200, 152)


@cache
def huge() -> bytes:
    """100 MB of zeros, in the 450 KB that they take in a file."""
    return zlib.compress(bytes(100 << 20), 1)


def png_with(*chunks: bytes) -> bytes:
    data = saved(photo(), "PNG")
    return SIGNATURE + data[8:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize(
    "side",
    [
        chunk(b"tEXt", b"Comment\0" + b"x" * (3 << 20)),
        chunk(b"zTXt", b"Comment\0\0" + huge()),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + huge()),
        chunk(b"iCCP", b"profile\0\x07" + zlib.compress(b"unknown method")),
        chunk(b"iCCP", b"profile\0\0" + huge()),
        chunk(b"iCCP", b"profile\0\0damaged"),
        chunk(b"gAMA", b"\0\0\xb1\x8f")[:-1] + b"\0",
        chunk(b"tEXt", b"Comment\0hello")[:-1] + b"\0",
        chunk(b"pHYs", b"odd length"),
        chunk(b"tIME", b""),
        chunk(b"eXIf", b"MM\0*" + b"\xff" * 100),
        chunk(b"cHRM", b"short"),
        chunk(b"acTL", b"\0\0"),
        chunk(b"ABCD", b"unknown and critical"),
    ],
    ids=lambda side: f"{side[4:8].decode()}-{len(side)}",
)
def test_no_side_chunk_denies_a_png_its_pixels(side):
    assert decode(png_with(side)).tobytes() == photo().tobytes()


def test_a_png_without_its_end_has_all_its_rows():
    data = saved(photo(), "PNG")
    assert decode(data[:-12]).tobytes() == photo().tobytes()
    assert decode(data[:-16]).tobytes() == photo().tobytes()  # in the checksum of the last pixels


@pytest.mark.parametrize(
    "segment", [b"\xff\xe1\x00\x08Exif\0\0", b"\xff\xe2\x00\x10ICC_PROFILE\0\x05\x01", b"\xff\xe2\x00\x08MPF\0II"]
)
def test_no_side_segment_denies_a_jpeg_its_pixels(segment):
    data = saved(photo(), "JPEG")
    assert decode(data[:2] + segment + data[2:]).tobytes() == decode(data).tobytes()


def test_what_the_decoder_gets_holds_no_private_byte():
    exif = Image.Exif()
    exif[0x010F] = "SecretMaker"
    text = b"SecretWords"
    data = saved(photo(), "JPEG", exif=exif, comment=text, xmp=text, icc_profile=b"SecretProfile" * 20)
    assert b"Secret" in data
    contents = contents_of(data + b"SecretTrailer", "a")
    assert b"Secret" not in contents.pixels
    data = png_with(chunk(b"tEXt", b"Comment\0Secret"), chunk(b"eXIf", exif.tobytes()), chunk(b"vpAg", b"Secret"))
    assert b"Secret" not in contents_of(data + b"SecretTrailer", "a").pixels


def test_heic_without_its_package_names_the_cure(monkeypatch):
    data = in_format("HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PhotoError, match="`pip install pillow-heif` with the same Python") as error:
        decode(data)
    assert error.value.reason == "needs_heic"


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"II*\0\x10\0\0\0CR\2\0", "a camera's raw file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a camera's raw file"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_a_format_that_is_not_read_is_named(start, named):
    with pytest.raises(PhotoError, match=named) as error:
        header(start + bytes(100), "a.jpg")
    assert error.value.reason == "unsupported_format"


@pytest.mark.slow
@pytest.mark.parametrize("size", [(20_000, 10_000), (20_000, 2_000)], ids=["200 megapixels", "panorama"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_huge_jpeg_is_decoded_small_in_bounded_memory(tmp_path, size, progressive):
    """In a process of its own, whose peak of memory is read afterward."""
    pytest.importorskip("resource")
    Image.new("L", size, 90).save(tmp_path / "huge.jpg", progressive=progressive)
    code = """
        import resource, sys
        from pathlib import Path
        from PIL import Image, ImageCms, JpegImagePlugin
        from realrag.photos.decode import decode, inspect, read_bytes
        import realrag.photos.contents, numpy
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        path = Path(sys.argv[1])
        found = inspect(path)
        image = decode(read_bytes(path), area=1024 * 1024)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(found.width, found.height, image.width * image.height, image.getpixel((5, 5))[0], peak)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "huge.jpg")],
        capture_output=True,
        text=True,
        check=True,
    )
    width, height, pixels, level, peak = map(int, run.stdout.split())
    assert (width, height, level) == (*size, 90)
    assert 1024 * 1024 <= pixels <= 4 * 1024 * 1024
    # A progressive JPEG keeps its coefficients, 2 bytes a pixel of gray, until the last scan is read.
    kept = size[0] * size[1] * 2 if progressive else 0
    assert peak * 1024 < kept + (100 << 20)


def test_a_jpeg_that_nobody_asks_to_be_smaller_is_bounded_all_the_same(tmp_path):
    data = saved(Image.new("L", (16_000, 8_000), 90), "JPEG")
    assert decode(data).size == (8000, 4000)


@pytest.mark.slow
def test_a_png_far_larger_than_asked_comes_out_no_smaller_than_asked():
    for mode in ("RGB", "RGBA", "L", "LA"):
        image = decode(saved(Image.new(mode, (4000, 3000)), "PNG"), area=100_000)
        assert 100_000 <= image.width * image.height < 4000 * 3000 / 4


def test_segments_that_lead_nowhere_are_refused_with_a_sentence():
    data = saved(photo(), "JPEG")
    for broken in (data[:2] + b"\xff" * 50, data[:2] + b"\xff\xc0\xff\xff", data[:20], b"\xff\xd8\xff\xd9" + bytes(9)):
        with pytest.raises(PhotoError, match=r"^photo: "):
            decode(broken)
    assert jpeg.split(data).whole


def test_a_png_of_chunks_alone_is_refused_with_a_sentence():
    header_ = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    with pytest.raises(PhotoError, match="without pixels"):
        decode(SIGNATURE + chunk(b"IHDR", header_) + chunk(b"IEND", b""))


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP"]))
def test_a_damaged_file_is_a_picture_or_one_sentence(data, format):
    content = bytearray(in_format(format, photo((40, 30))))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        words_inside(header(content, "name")[1])
        assert decode(content, "name", max_pixels=1_000_000).mode == "RGB"
    except PhotoError as error:
        assert str(error).startswith("name: ")
