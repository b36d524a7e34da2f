"""A decoded picture in its own colors -> RGB in sRGB: profile first, then transparency laid on white."""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np

from .contents import Contents
from .profiles import ADOBE_GAMMA, ADOBE_RGB, PRIMARIES, SRGB, TRANSFERS, gray_profile, rgb_profile

CMYK_PROFILE = Path(__file__).parent.parent / "assets" / "icc" / "CGATS001Compat-v2-micro.icc"
# EXIF tags: the color space, and "R03", by which cameras mark Adobe RGB (DCF 2.0).
_COLOR_SPACE, _ADOBE, _INTEROP = 0xA001, 2, 0xA005


def to_srgb(image, contents: Contents, transparency=None):
    """A loaded PIL image of any mode -> a new RGB image in sRGB, without info.

    transparency: a value of the PNG's tRNS chunk as Pillow gives it. ValueError for pixels that are no colors."""
    from PIL import Image

    image, alpha = split_alpha(image, contents, transparency)
    image = _converted(image, source_profile(contents, image.mode))
    if alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        return white
    image.info.clear()
    return image


def split_alpha(image, contents: Contents, transparency=None):
    """(image of mode L, RGB, CMYK or LAB, alpha of mode L or None)."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if transparency is not None or image.mode == "PA" else "RGB")
    elif image.mode in ("RGBa", "La"):
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    if image.mode in ("RGBA", "LA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    alpha = _keyed(image, contents, transparency)
    if image.mode.startswith("I;16") or image.mode == "I":
        return _eight_bits(image), alpha
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known white")
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image, alpha


def _eight_bits(image):
    from PIL import Image

    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels have no known white")
    return Image.fromarray((pixels.astype(np.uint32) * 255 + 32895 >> 16).astype(np.uint8))


def _keyed(image, contents: Contents, key):
    """Alpha of the one color that tRNS calls transparent, compared in all the bits that the file has."""
    from PIL import Image

    if key is None or isinstance(key, bytes):
        return None
    pixels = np.asarray(image)
    if image.mode != "RGB":
        key = 255 if image.mode == "1" and key else key
        return Image.fromarray(np.where(pixels == key, 0, 255).astype(np.uint8))
    key = np.array(key, np.int32)
    chunks = contents.png
    deep = chunks is not None and chunks.depth == 16
    same = (pixels == (key >> 8 if deep else key)).all(-1)
    if chunks is not None and deep and same.any():
        from PIL import PngImagePlugin

        from .png import low_bytes

        low = np.asarray(PngImagePlugin.PngImageFile(io.BytesIO(low_bytes(chunks))))
        same &= (low == (key & 255)).all(-1)
    return Image.fromarray(np.where(same, 0, 255).astype(np.uint8))


def source_profile(contents: Contents, mode: str) -> bytes:
    """The ICC profile that the file's colors are in; empty for sRGB. In a PNG: cICP, iCCP, sRGB, then gAMA and cHRM."""
    side = contents.png.side if contents.png else {}
    if (cicp := side.get(b"cICP", b"")) and len(cicp) == 4 and cicp[2] == 0:
        return _by_numbers(cicp[0], cicp[1], mode)
    if contents.icc:
        return contents.icc
    if b"sRGB" in side:
        return b""
    if b"gAMA" in side or b"cHRM" in side:
        return _png_gamma(side, mode)
    if contents.nclx != (2, 2):
        return _by_numbers(*contents.nclx, mode)
    return rgb_profile(ADOBE_RGB, ADOBE_GAMMA) if contents.exif and says_adobe_rgb(contents.exif) else b""


def _by_numbers(primaries: int, transfer: int, mode: str) -> bytes:
    colors, curve = PRIMARIES.get(primaries), TRANSFERS.get(transfer)
    if colors is None or curve is None or (colors == SRGB and curve == ("srgb",)):
        return b""
    return gray_profile(curve) if mode == "L" else rgb_profile(colors, curve)


def _png_gamma(side: dict[bytes, bytes], mode: str) -> bytes:
    gamma = struct.unpack(">I", side[b"gAMA"])[0] if len(side.get(b"gAMA", b"")) == 4 else 0
    chroma = SRGB
    if len(side.get(b"cHRM", b"")) == 32:
        numbers = [value / 100_000 for value in struct.unpack(">8I", side[b"cHRM"])]
        chroma = (*numbers[2:], *numbers[:2])  # in the file white comes first
    # 1/2.2 stands for sRGB's own curve: writers of the sRGB chunk put it beside (PNG, 11.3.2.5).
    curve = ("srgb",) if not 1_000 <= gamma <= 1_000_000 or abs(gamma - 45_455) < 500 else ("gamma", 100_000 / gamma)
    same = max(abs(a - b) for a, b in zip(chroma, SRGB, strict=True)) < 0.002
    if same and curve == ("srgb",):
        return b""
    return gray_profile(curve) if mode == "L" else rgb_profile(chroma, curve)


def exif_of(block: bytes):
    """The parsed EXIF block; an empty one where it is damaged."""
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(block)
        return exif
    except Exception:
        return Image.Exif()


def says_adobe_rgb(block: bytes) -> bool:
    try:
        inner = exif_of(block).get_ifd(0x8769)
        interop = inner.get(_INTEROP)
        index = interop.get(1) if isinstance(interop, dict) else exif_of(block).get_ifd(_INTEROP).get(1)
        return inner.get(_COLOR_SPACE) == _ADOBE or str(index).rstrip("\0 ") == "R03"
    except Exception:
        return False  # a broken EXIF block says nothing about the picture


def _converted(image, profile: bytes):
    """L, RGB, CMYK or LAB -> RGB in sRGB, relative colorimetric with black point compensation."""
    if image.mode == "LAB":
        return _transform(b"LAB", "LAB").apply(image)
    if profile and (mode := _mode_for(profile, image.mode)):
        try:
            return _transform(profile, mode).apply(image.convert(mode))
        except Exception:
            pass  # a damaged profile: plain conversion
    if image.mode == "CMYK":
        return _transform(CMYK_PROFILE.read_bytes(), "CMYK").apply(image)
    return image.convert("RGB")


def _mode_for(profile: bytes, mode: str) -> str:
    """The mode to hand to the profile: its own, where the picture's is the same or gray."""
    own = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(profile[16:20], "")
    return own if own == mode or (mode == "L" and own == "RGB") else ""


@lru_cache(16)
def _transform(profile: bytes, mode: str):
    from PIL import ImageCms

    source = ImageCms.createProfile("LAB") if profile == b"LAB" else ImageCms.ImageCmsProfile(io.BytesIO(profile))
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)
