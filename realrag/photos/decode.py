"""One photo file -> an upright RGB picture without private metadata, or a reason why not."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from ..errors import PhotoError

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
# Files an artist would call photos but which we do not read: named in the report instead of passed over in silence.
FOREIGN = {".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".svg", ".raw", ".cr2", ".nef", ".dng", ".jxl"}
MAX_PIXELS = 50_000_000
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class PhotoFile:
    """A file that looks like a photo: its bytes hash to `sha256`; width and height are those of the upright picture."""

    path: Path
    sha256: str
    width: int
    height: int


def _open(data: bytes, name: str, expected: str | None, max_pixels: int):
    from PIL import Image

    with warnings.catch_warnings():
        # Our own bound on pixels, below, is tighter than Pillow's warning.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
        except Image.DecompressionBombError:
            raise PhotoError("too_many_pixels", _bomb_text(name, None, max_pixels)) from None
        except Exception:
            raise PhotoError(
                "not_a_photo", f"{name}: not a JPEG, PNG or WebP picture. Export it again or remove it."
            ) from None
    if expected and image.format not in (expected, "MPO" if expected == "JPEG" else expected):
        raise PhotoError("wrong_suffix", f"{name}: the file is {image.format}, its name says {expected}. Rename it.")
    if image.width * image.height > max_pixels:
        raise PhotoError("too_many_pixels", _bomb_text(name, image.size, max_pixels))
    return image


def _bomb_text(name: str, size: tuple[int, int] | None, max_pixels: int) -> str:
    found = f"{size[0]} x {size[1]} pixels" if size else "far too many pixels"
    return f"{name}: {found}, more than {max_pixels / 1e6:.0f} million. Save a smaller copy."


def read_bytes(path: Path) -> bytes:
    """The file's bytes, bounded; PhotoError `unreadable`, `empty` or `too_large`."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise PhotoError(
                "too_large", f"{path.name}: {size >> 20} MiB, more than {MAX_BYTES >> 20}. Save a smaller copy."
            )
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError(
            "unreadable", f"{path.name}: cannot be read ({error.strerror}). Check its permissions."
        ) from None
    if not data:
        raise PhotoError("empty", f"{path.name}: the file is empty. Copy it again from its source.")
    return data


def inspect(path: Path) -> PhotoFile:
    """Hash a photo and read its header only. Raises PhotoError for what can be refused without decoding."""
    data = read_bytes(path)
    expected = FORMATS.get(path.suffix.lower())
    if expected is None:
        raise PhotoError(
            "unsupported_format",
            f"{path.name}: {path.suffix or 'no suffix'} is not read. Save it as JPEG, PNG or WebP.",
        )
    image = _open(data, path.name, expected, MAX_PIXELS)
    width, height = image.size
    try:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:
        turned = False  # a broken EXIF block says nothing about the picture
    return PhotoFile(path, hashlib.sha256(data).hexdigest(), *((height, width) if turned else (width, height)))


def decode(data: bytes, name: str = "photo", *, longest: int | None = None, max_pixels: int = MAX_PIXELS):
    """Bytes -> PIL RGB image: EXIF orientation applied, colours in sRGB, transparency on white, metadata gone.

    With `longest`, JPEGs are decoded at the smallest DCT scale whose longest side is still >= `longest` (three times
    faster for large photos); the caller does the final resize. Raises PhotoError.
    """
    from PIL import Image, ImageOps

    image = _open(data, name, None, max_pixels)
    try:
        if longest:
            scale = longest / max(image.size)
            image.draft("RGB", (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        profile = image.info.get("icc_profile")
        image.load()
        try:
            image = ImageOps.exif_transpose(image)
        except Exception:
            pass  # broken EXIF: take the picture as it lies
        return _to_rgb(image, profile, Image)
    except PhotoError:
        raise
    except Exception as error:
        raise PhotoError(
            "damaged", f"{name}: cannot be decoded ({type(error).__name__}). Copy it again from its source."
        ) from None


def _to_rgb(image, profile: bytes | None, Image):
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            from PIL import ImageCms

            srgb = ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB"
            )
        except Exception:
            pass  # an unreadable profile: plain conversion below
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        image = image.point(lambda value: value / 256).convert("L")  # 16-bit grey, which convert() would clip to white
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    clean = Image.new("RGB", image.size)  # a new image has no info dict for metadata to hide in
    clean.paste(image)
    return clean


def shrink(image, longest: int):
    """The picture with its longest side at most `longest` pixels, aspect kept; never enlarged."""
    if max(image.size) <= longest:
        return image
    scale = longest / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    from PIL import Image

    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def encode_jpeg(image, quality: int = 92) -> bytes:
    """JPEG bytes of the pixels alone."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
