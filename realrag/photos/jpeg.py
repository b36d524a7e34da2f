"""A JPEG file by its segments: the first picture without side data, the blocks beside it, and whether its end is there."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_ICC = 8 << 20
# The type of the outermost box of a C2PA manifest store (C2PA 2.2, 11.1.4.2): "c2pa" in a UUID of ISO/IEC 19566-5.
MANIFEST = b"c2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"
SOI, EOI, SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# In a scan a marker is FF and a byte that is neither stuffing, nor a restart, nor another FF.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Bits that no encoder would go on with: what a decoder makes of them differs from what it makes of nothing.
NOISE = bytes((17 + 97 * number) % 251 for number in range(512))


@dataclass(frozen=True)
class Segments:
    """pixels: a JPEG file of tables and scans alone, which ends in EOI. whole: False where the file ended before."""

    pixels: bytes
    whole: bool
    progressive: bool
    adobe: bool
    icc: bytes
    exif: bytes
    xmp: bytes
    photoshop: tuple[bytes, ...]
    c2pa: bool


def split(data: bytes, header_only: bool = False) -> Segments:
    """The first picture of a JPEG, MPO or gain-map file (ITU-T T.81). header_only: no more of its pixels than a decoder
    wants to see for the size. ValueError where there is no scan to decode."""
    kept: list[bytes | memoryview] = [SOI]
    at, several = 2, False
    exif = xmp = b""
    photoshop: list[bytes] = []
    profile: dict[int, bytes] = {}
    progressive = adobe = signed = False
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) - 1 and data[at + 1] == 0xFF:
            at += 1
        if at < 0 or at + 4 > len(data):
            raise ValueError("a JPEG file that ends before its picture")
        marker = data[at + 1]
        if marker in _ALONE or marker == 0:
            at += 2
            continue
        if marker == 0xD9:
            raise ValueError("a JPEG file without a picture")
        if marker == SOS:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        progressive |= marker in (0xC2, 0xC6, 0xCA, 0xCE)
        if marker == 0xE0 and body.startswith(b"JFIF\0"):
            # Without the thumbnail that may follow.
            kept.append(b"\xff\xe0\x00\x10" + body[:12].ljust(12, b"\0") + b"\0\0")
        elif marker == 0xEE and body.startswith(b"Adobe"):
            adobe = True
            kept.append(data[at:end])
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = exif or body
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = xmp or body[29:]
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile.setdefault(body[12], body[14:])
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            several = True
        elif marker == 0xED and body.startswith(b"Photoshop 3.0\0"):
            photoshop.append(data[at:end])
        elif marker == 0xEB:
            signed |= MANIFEST in body
        elif not 0xE0 <= marker <= 0xEF and marker != 0xFE:
            kept.append(data[at:end])
        at = end
    if header_only:
        end, whole = min(at + 1024, len(data)), True
    elif data.endswith(EOI) and not several:
        end, whole = len(data) - 2, True  # what may lie behind an earlier end, no decoder reads
    else:
        end, whole = _end(data, at)
    pixels = b"".join([*kept, memoryview(data)[at:end], EOI])
    icc = b"".join(profile[number] for number in sorted(profile))
    if sorted(profile) != list(range(1, len(profile) + 1)):
        icc = b""
    return Segments(pixels, whole, progressive, adobe, icc[:MAX_ICC], exif, xmp, tuple(photoshop), signed)


def _end(data: bytes, at: int) -> tuple[int, bool]:
    """(where the last scan of the picture that begins at `at` ends, whether EOI stands there)."""
    while at + 4 <= len(data):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")  # the segment's header
        found = _MARKER.search(data, min(at, len(data)))
        if found is None:
            break
        at = found.start()
        if data[at + 1] == 0xD9:
            return at, True
    # Zeros at the end are a hole in the file: the bits of a scan end in ones. FF 00 is a byte of ones, FF half a marker.
    end = len(data.rstrip(b"\0"))
    if data[end - 1] == 0xFF:
        end += 1 if end < len(data) else -1
    return end, False


def with_noise(pixels: bytes) -> bytes:
    """The same file with further bits before its end, which a decoder reads only where rows are missing."""
    return pixels[:-2] + NOISE + EOI
