"""A PNG file by its chunks: pixels without side data, the chunks that say color, and its texts."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 1 << 20
MAX_ICC = 8 << 20
MAX_TEXT = 4 << 20
_SIDE = (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"eXIf")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"comf")  # comf: the texts of an animation that ComfyUI saved
# The texts that are looked at; the rest may be anything of any size.
TEXT_KEYS = frozenset(
    (
        "parameters", "prompt", "workflow", "Software", "Comment", "Description", "Title", "XML:com.adobe.xmp",
        "invokeai_metadata", "sd-metadata", "Dream", "realrag",
    )
)  # fmt: skip
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True)
class Chunks:
    """pixels: a PNG file of IHDR, PLTE, tRNS and IDAT alone. side: the first chunk of each kind that says color, with a
    right checksum. icc: the profile of iCCP, inflated."""

    pixels: bytes
    width: int
    height: int
    depth: int
    color_type: int
    interlaced: bool
    side: dict[bytes, bytes] = field(default_factory=dict)
    icc: bytes = b""
    texts: dict[str, str] = field(default_factory=dict)
    transparent: bytes = b""
    animated: bool = False


def split(data: bytes) -> Chunks:
    """W3C PNG, third edition. ValueError where there is no header or no pixels."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("a PNG file without its header")
    width, height, depth, color_type, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    kept, transparent = [SIGNATURE, data[8:33]], b""
    side: dict[bytes, bytes] = {}
    texts: dict[str, str] = {}
    at, number, pixels, animated = 33, 0, False, False
    while at + 8 <= len(data):
        number += 1
        if number > MAX_CHUNKS:
            raise ValueError("a PNG file of more than a million chunks")
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if kind == b"IDAT":
            kept.append(data[at:end] if end <= len(data) else chunk(b"IDAT", data[at + 8 :]))
            pixels = True
        elif kind == b"IEND" or end > len(data):
            break
        elif kind in (b"PLTE", b"tRNS"):
            kept.append(data[at:end])
            transparent = data[at + 8 : end - 4] if kind == b"tRNS" else transparent
        elif kind == b"acTL":
            animated = True
        elif kind in _SIDE or kind in _TEXTS:
            body = data[at + 8 : end - 4]
            if zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big"):
                if kind in _SIDE:
                    side.setdefault(kind, body)
                elif text := _text(kind, body):
                    texts.setdefault(*text)
        at = end
    if not pixels:
        raise ValueError("a PNG file without pixels")
    kept.append(chunk(b"IEND", b""))
    profile = _profile(side.get(b"iCCP", b""))
    header = (width, height, depth, color_type, bool(interlace))
    return Chunks(b"".join(kept), *header, side, profile, texts, transparent, animated)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def inflated(data: bytes, most: int) -> bytes:
    """At most `most` bytes of a zlib stream; empty where it is damaged or longer."""
    unpack = zlib.decompressobj()
    try:
        result = unpack.decompress(data, most)
    except zlib.error:
        return b""
    return b"" if unpack.unconsumed_tail else result


def _profile(body: bytes) -> bytes:
    _, _, rest = body.partition(b"\0")
    return inflated(rest[1:], MAX_ICC) if rest[:1] == b"\0" else b""


def _text(kind: bytes, body: bytes) -> tuple[str, str] | None:
    key, _, rest = body.partition(b"\0")
    if (name := key.decode("latin-1")) not in TEXT_KEYS or len(rest) > MAX_TEXT:
        return None
    if kind in (b"tEXt", b"comf"):
        try:
            return name, rest.decode("utf-8")  # Latin-1 by the standard, UTF-8 by habit
        except UnicodeDecodeError:
            return name, rest.decode("latin-1")
    if kind == b"zTXt":
        return name, inflated(rest[1:], MAX_TEXT).decode("latin-1")
    packed, _, rest = rest[:1], rest[1:2], rest[2:]
    rest = rest.partition(b"\0")[2].partition(b"\0")[2]
    return name, (inflated(rest, MAX_TEXT) if packed == b"\1" else rest).decode("utf-8", "replace")


def low_bytes(chunks: Chunks) -> bytes:
    """A PNG of 8 bits a sample that holds the lower halves of 16-bit samples, which Pillow drops for RGB.

    Filters predict a byte from bytes of the same half, so the halves of the filtered rows part without being decoded.
    ValueError where the rows are not all there."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[chunks.color_type]
    stream, at = b"".join(_bodies(chunks.pixels, b"IDAT")), 33
    spans = [(chunks.width, chunks.height)]
    if chunks.interlaced:
        spans = [(-(-(chunks.width - x) // dx), -(-(chunks.height - y) // dy)) for x, y, dx, dy in _PASSES]
    spans = [(width, height) for width, height in spans if width > 0 and height > 0]
    size = sum(height * (1 + 2 * channels * width) for width, height in spans)
    rows = np.frombuffer(zlib.decompressobj().decompress(stream, size), np.uint8)
    if len(rows) != size:
        raise ValueError("a PNG file that lacks rows")
    halves, at = [], 0
    for width, height in spans:
        length = 1 + 2 * channels * width
        block = rows[at : at + height * length].reshape(height, length)
        halves.append(np.concatenate([block[:, :1], block[:, 2::2]], axis=1).tobytes())
        at += height * length
    header = struct.pack(">IIBBBBB", chunks.width, chunks.height, 8, chunks.color_type, 0, 0, int(chunks.interlaced))
    body = zlib.compress(b"".join(halves), 1)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _bodies(data: bytes, wanted: bytes):
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == wanted:
            yield data[at + 8 : at + 8 + length]
        at += 12 + length
