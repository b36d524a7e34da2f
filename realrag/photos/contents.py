"""A photo's bytes -> what its decoder needs, and beside it, undecoded, what it says of color, turn and words.

Side data is cut off before anything is decoded, so that no text, thumbnail or damaged profile denies a picture.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import PhotoError
from . import jpeg, png
from .kinds import READ, kind_of

MAX_EXIF = 1 << 20
MAX_XMP = 4 << 20


@dataclass(frozen=True)
class Contents:
    """kind: one of READ. pixels: bytes of a file of that kind with no side data. whole: False where a JPEG's end is
    missing. icc, exif, xmp: raw blocks or empty. iptc: a JPEG's Photoshop blocks. texts: a PNG's text chunks by key.
    png: its header and color chunks."""

    kind: str
    pixels: bytes
    whole: bool = True
    progressive: bool = False
    adobe: bool = False
    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    iptc: tuple[bytes, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    png: png.Chunks | None = None
    nclx: tuple[int, int] = (2, 2)  # primaries and transfer of AVIF and HEIF where they carry no profile; 2: not stated
    c2pa: bool = False  # is there a manifest of content credentials?


def contents_of(data: bytes, name: str, header_only: bool = False) -> Contents:
    """header_only: of a JPEG, only what its header says will be asked for. PhotoError `not_a_photo`, `unsupported_format` or `damaged` where the bytes are no picture that we read."""
    kind = kind_of(data)
    if kind not in READ:
        if kind:
            raise PhotoError("unsupported_format", f"{name}: {kind} is not read. Export it as JPEG, PNG or WebP.")
        raise PhotoError("not_a_photo", f"{name}: not a picture of a known format. Export it again or remove it.")
    try:
        if kind == "JPEG":
            return _jpeg(data, header_only)
        if kind == "PNG":
            return _png(data)
    except ValueError as error:
        raise PhotoError("damaged", f"{name}: {error}. Copy it again from its source.") from None
    return Contents(kind, data, c2pa=jpeg.MANIFEST in data)


def _jpeg(data: bytes, header_only: bool) -> Contents:
    parts = jpeg.split(data, header_only)
    return Contents(
        "JPEG", parts.pixels, parts.whole, parts.progressive, parts.adobe, icc=parts.icc, exif=parts.exif[:MAX_EXIF],
        xmp=parts.xmp, iptc=parts.photoshop, c2pa=parts.c2pa,
    )  # fmt: skip


def _png(data: bytes) -> Contents:
    chunks = png.split(data)
    texts = dict(chunks.texts)
    xmp = texts.pop("XML:com.adobe.xmp", "")
    return Contents(
        "PNG", chunks.pixels, exif=chunks.side.get(b"eXIf", b"")[:MAX_EXIF], xmp=xmp.encode()[:MAX_XMP], texts=texts,
        icc=chunks.icc, png=chunks, c2pa=jpeg.MANIFEST in data,
    )  # fmt: skip


def opened(contents: Contents, name: str):
    """(PIL image whose header is read and pixels are not, contents with the blocks that the plugin found).

    The plugins are called by name: `PIL.Image.open` would ask all that are installed in this process, and refuse by a
    bound on pixels that another part of the process may have changed. PhotoError `damaged` or `needs_heic`."""
    from PIL import (  # fmt: skip
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    plugins: dict[str, Any] = {
        "JPEG": JpegImagePlugin.JpegImageFile, "PNG": PngImagePlugin.PngImageFile, "GIF": GifImagePlugin.GifImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile, "TIFF": TiffImagePlugin.TiffImageFile, "BMP": BmpImagePlugin.BmpImageFile,
        "AVIF": AvifImagePlugin.AvifImageFile,
    }  # fmt: skip
    if contents.kind == "HEIF":
        plugins["HEIF"] = _heif_plugin(name)
    try:
        image = plugins[contents.kind](io.BytesIO(contents.pixels))
        if contents.kind in ("JPEG", "PNG"):
            return image, contents
        return image, _with_blocks(contents, image.info)
    except Exception as error:
        raise PhotoError(
            "damaged", f"{name}: the header of this {contents.kind} file cannot be read ({_short(error)}). "
            "Copy it again from its source.",
        ) from None  # fmt: skip


def _heif_plugin(name: str):
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise PhotoError(
            "needs_heic",
            f"{name}: HEIC is read by the package pillow-heif. Run `pip install pillow-heif` with the same Python (ComfyUI's own) and "
            "start again, or export the photo as JPEG.",
        ) from None  # fmt: skip
    return HeifImageFile


def _with_blocks(contents: Contents, info: dict) -> Contents:
    def block(key: str, most: int) -> bytes:
        value = info.get(key)
        return value[:most] if isinstance(value, bytes) else b""

    nclx = _nclx(contents.pixels) if contents.kind in ("AVIF", "HEIF") else (2, 2)
    icc = block("icc_profile", jpeg.MAX_ICC)
    return replace(contents, icc=icc, exif=block("exif", MAX_EXIF), xmp=block("xmp", MAX_XMP), nclx=nclx)


def _nclx(data: bytes) -> tuple[int, int]:
    """The color box of AVIF and HEIF (ISO/IEC 23008-12): primaries and transfer by their numbers in H.273."""
    at = data[: 1 << 16].find(b"colrnclx")
    block = data[at + 8 : at + 12] if at >= 0 else b""
    return (int.from_bytes(block[:2], "big"), int.from_bytes(block[2:], "big")) if len(block) == 4 else (2, 2)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
