"""Small pictures of colored patches in any mode, profile and format, and their conversion by libvips and lcms2."""

import io

import numpy as np
from PIL import Image

from realrag.photos.color import CMYK_PROFILE
from realrag.photos.profiles import ADOBE_GAMMA, ADOBE_RGB, DISPLAY_P3, SRGB, gray_profile, rgb_profile

PROFILES = {
    "none": b"",
    "sRGB": rgb_profile(SRGB, ("srgb",)),
    "Display P3": rgb_profile(DISPLAY_P3, ("srgb",)),
    "Adobe RGB": rgb_profile(ADOBE_RGB, ADOBE_GAMMA),
    "linear": rgb_profile(SRGB, ("gamma", 1.0)),
    "gray 1.8": gray_profile(("gamma", 1.8)),
    "gray sRGB": gray_profile(("srgb",)),
    "CMYK": CMYK_PROFILE.read_bytes(),
}


def patches(mode: str):
    """64 patches of 16 x 16 pixels: every fifth level of each channel, dark to light, and every alpha."""
    bands = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "P": 3, "P+tRNS": 4}[mode]
    levels = np.random.default_rng(bands).integers(0, 256, (8, 8, bands), np.uint8)
    levels[0, :, :] = np.linspace(0, 255, 8)[:, None]
    pixels = levels.repeat(16, 0).repeat(16, 1)
    if mode.startswith("P"):
        image = Image.fromarray(pixels[..., :3]).quantize(64)
        if mode == "P+tRNS":
            image.info["transparency"] = bytes(range(0, 256, 4))
        return image
    if bands == 2:
        return Image.merge("LA", [Image.fromarray(pixels[..., at]) for at in range(2)])
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode)


def saved(image, format: str, profile: bytes = b"", **options) -> bytes:
    options |= {
        "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True},
        "TIFF": {"compression": "tiff_lzw"},
    }.get(format, {})  # fmt: skip
    if "transparency" in image.info:
        options["transparency"] = image.info["transparency"]
    if profile:
        options["icc_profile"] = profile
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def by_vips(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8: relative colorimetric with black point compensation, then laid on white."""
    import pyvips

    image = pyvips.Image.new_from_buffer(data, "").autorot()
    alpha = None
    if image.hasalpha():
        image, alpha = image[: image.bands - 1], image[image.bands - 1]
    if image.get_typeof("icc-profile-data") or image.interpretation == "cmyk":
        cmyk = image.interpretation == "cmyk"
        given = {"input_profile": str(CMYK_PROFILE)} if cmyk and not image.get_typeof("icc-profile-data") else {}
        image = image.icc_transform(
            "srgb", embedded=not given, intent="relative", black_point_compensation=True, **given
        )
    image = image.colourspace("srgb").cast("uchar")
    pixels = image.numpy().reshape(image.height, image.width, -1).astype(np.float64)
    if alpha is not None:
        opacity = alpha.cast("uchar").numpy().reshape(image.height, image.width, 1) / 255
        pixels = pixels * opacity + 255 * (1 - opacity)
    return np.broadcast_to(np.round(pixels), (image.height, image.width, 3)).astype(np.uint8)
