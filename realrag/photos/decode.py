"""One photo's bytes -> an upright sRGB picture without metadata, in bounded memory, or a reason why not."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..errors import PhotoError
from . import jpeg
from .color import exif_of, source_profile, to_srgb
from .contents import Contents, contents_of, opened
from .keep import shrink, shrink_to_area

# Of pictures that have to be decoded whole. A JPEG is decoded smaller, so its bound lies on what comes out.
MAX_PIXELS = 100_000_000
MAX_JPEG_PIXELS = 600_000_000
# A progressive JPEG keeps all its coefficients, about 3 bytes a pixel, however small it is decoded.
MAX_PROGRESSIVE_PIXELS = 256_000_000
MAX_DECODED = 50_000_000  # of a JPEG where nobody asks for less
MAX_BYTES = 256 << 20
# Larger pictures are decoded one at a time, whatever the number of threads.
LARGE = 25_000_000
_one_large = threading.Semaphore(1)
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF orientation -> PIL.Image.Transpose


@dataclass(frozen=True)
class PhotoFile:
    """A file that holds a photo: its bytes hash to `sha256`; width and height are those of the upright picture.
    several: the file holds an animation or several pages, of which the first picture is used."""

    path: Path
    sha256: str
    width: int
    height: int
    kind: str = "JPEG"
    several: bool = False


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """The file's bytes, at most `most`; PhotoError `unreadable`, `empty` or `too_large`."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise PhotoError("unreadable", f"{path.name}: not a regular file. Remove it.")
            data = file.read(most + 1)
    except OSError as error:
        raise PhotoError(
            "unreadable", f"{path.name}: cannot be read ({error.strerror}). Check its permissions."
        ) from None
    if len(data) > most:
        raise PhotoError("too_large", f"{path.name}: more than {most / (1 << 20):.3g} MiB. Save a smaller copy.")
    if not data:
        raise PhotoError("empty", f"{path.name}: the file is empty. Copy it again from its source.")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe or a device without waiting for its other end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def inspect(path: Path) -> PhotoFile:
    """Hash a photo and read its header only. PhotoError for what can be refused without decoding."""
    data = read_bytes(path)
    return header(data, path.name, path)[0]


def header(data: bytes, name: str, path: Path | None = None) -> tuple[PhotoFile, Contents]:
    """The facts of a photo that its header gives, and its parted contents. PhotoError."""
    contents = contents_of(data, name, header_only=True)
    image, contents = opened(contents, name)
    _bounded(image, contents, name, None)
    width, height = image.size
    if orientation(contents) in (5, 6, 7, 8):
        width, height = height, width
    animated = contents.png is not None and contents.png.animated
    several = contents.kind != "JPEG" and (animated or bool(getattr(image, "is_animated", False)))
    digest = hashlib.sha256(data).hexdigest()
    return PhotoFile(path or Path(name), digest, width, height, contents.kind, several), contents


def orientation(contents: Contents) -> int:
    """EXIF orientation, 1 to 8; 1 where none is stated, and for TIFF and HEIF, whose decoders turn the picture."""
    if not contents.exif or contents.kind in ("TIFF", "HEIF"):
        return 1
    turn = exif_of(contents.exif).get(0x0112, 1)
    return turn if turn in range(1, 9) else 1


def _bounded(image, contents: Contents, name: str, most: int | None) -> None:
    pixels = image.width * image.height
    if contents.kind == "JPEG":
        bound = MAX_PROGRESSIVE_PIXELS if contents.progressive else MAX_JPEG_PIXELS
    else:
        bound = MAX_PIXELS
    bound = min(bound, most) if most else bound
    if pixels > bound:
        raise PhotoError(
            "too_many_pixels",
            f"{name}: {image.width} x {image.height} pixels, more than {bound / 1e6:.0f} million. Save a smaller copy.",
        )
    if not pixels:
        raise PhotoError("damaged", f"{name}: a picture without pixels.")


def decode(
    data: bytes,
    name: str = "photo",
    *,
    longest: int | None = None,
    area: int | None = None,
    exact: bool = False,
    max_pixels: int | None = None,
):
    """Bytes -> PIL RGB image: upright, colors in sRGB, transparency on white, metadata gone.

    With `longest` or `area`, a large photo may come out smaller, never below that many pixels on the longest side or in
    all; the caller does the final resize. exact: a photo whose colors are sRGB already comes out at that size, which
    saves copies of the larger one. max_pixels: refuse more. Raises PhotoError.
    """
    image, contents = opened(contents_of(data, name), name)
    _bounded(image, contents, name, max_pixels)
    large = image.width * image.height > LARGE
    with _one_large if large else nullcontext():
        try:
            wanted = _wanted(image.size, longest, area)
            width = image.width
            smaller = _draft(image, contents, wanted)
            image.load()
            _check_end(image, contents, smaller, name)
            transparency = image.info.get("transparency")
            plain = transparency is None and image.mode in ("L", "RGB") and not source_profile(contents, image.mode)
            if exact and plain:
                image = shrink(image, longest) if longest else image
                image = shrink_to_area(image, area) if area else image
            else:
                image = _reduced(image, wanted * width / image.width, transparency)
            if contents.kind == "JPEG" and image.mode == "CMYK" and not contents.adobe:
                from PIL import ImageChops

                image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted
            image = to_srgb(image, contents, transparency)
            if (turn := _TURNS.get(orientation(contents))) is not None:
                image = image.transpose(turn)
            return image
        except PhotoError:
            raise
        except MemoryError:
            raise PhotoError("too_many_pixels", f"{name}: not enough memory to decode it.") from None
        except Exception as error:
            what = " ".join(str(error).split())[:80] or type(error).__name__
            raise PhotoError("damaged", f"{name}: cannot be decoded ({what}). Copy it again from its source.") from None


def _wanted(size: tuple[int, int], longest: int | None, area: int | None) -> float:
    """The factor, at most 1, by which the picture may shrink."""
    width, height = size
    factor = 1.0
    if longest:
        factor = min(factor, longest / max(width, height))
    if area:
        factor = min(factor, (area / (width * height)) ** 0.5)
    return factor


def _draft(image, contents: Contents, wanted: float) -> tuple[int, int]:
    """Let libjpeg decode at 1/2, 1/4 or 1/8, never below what is wanted; returns the size asked for."""
    if contents.kind != "JPEG":
        return image.size
    width, height = image.size
    scale = next(scale for scale in (1, 2, 4, 8) if width * height <= MAX_DECODED * scale * scale or scale == 8)
    smaller = max(1, int(width * min(wanted, 1 / scale))), max(1, int(height * min(wanted, 1 / scale)))
    if smaller != image.size:
        image.draft(image.mode, smaller)
    return smaller


def _check_end(image, contents: Contents, smaller: tuple[int, int], name: str) -> None:
    """PhotoError `damaged` where rows of a JPEG are missing, which libjpeg fills with gray and Pillow does not report.

    Further bits before the end change the picture only where the decoder still asks for some."""
    if contents.kind != "JPEG" or (contents.whole and not _ends_gray(image)):
        return
    from PIL import JpegImagePlugin

    other = JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg.with_noise(contents.pixels)))
    other.draft(other.mode, smaller)
    other.load()
    if image.tobytes() != other.tobytes():
        raise PhotoError("damaged", f"{name}: the file ends before its last row. Copy it again from its source.")


def _ends_gray(image) -> bool:
    last = image.getpixel((image.width - 1, image.height - 1))
    values = last if isinstance(last, tuple) else (last,)
    return image.mode == "CMYK" or all(126 <= value <= 130 for value in values)


def _reduced(image, wanted: float, transparency):
    """A picture many times too large, made smaller in its own mode, so that its colors cost little time and memory."""
    factor = int(1 / (3 * wanted))
    if factor < 2 or transparency is not None or image.mode not in ("L", "RGB", "CMYK", "RGBA", "LA"):
        return image
    before = {"RGBA": "RGBa", "LA": "La"}.get(image.mode)
    return image.convert(before).reduce(factor).convert(image.mode) if before else image.reduce(factor)
