"""A saved picture's file -> the credits in it, as ComfyUI's nodes write metadata: PNG texts, and EXIF of WebP and JPEG."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import PhotoError
from ..photos.color import exif_of
from ..photos.contents import Contents, contents_of, opened
from ..photos.decode import decode, read_bytes
from .record import KEY, CreditedPhoto, PictureCredit, parse, pixel_hash, text_of

# ComfyUI writes "key:JSON" into EXIF tags from Make (0x010F) downward.
_TAGS = range(0x010F, 0x00FF, -1)


@dataclass(frozen=True)
class FoundCredits:
    """What a file says. sure: the pixels are those that were credited; False where the picture was changed since, its
    format is lossy, or it is another picture of the run."""

    file: str
    credits: tuple[PictureCredit, ...]
    sure: bool = False

    def photos(self) -> list[CreditedPhoto]:
        """Each credited photo once, in order."""
        return list(dict.fromkeys(photo for credit in self.credits for photo in credit.references))

    def text(self) -> str:
        """One line for each photo, as `References.credits_text`."""
        return text_of(self.photos())

    def as_json(self) -> dict:
        entries = [{"bundle": credit.bundle, "references": [asdict(photo) for photo in credit.references]}
                   for credit in self.credits]  # fmt: skip
        return {"file": self.file, "sure": self.sure, "credits": entries}


def read_credits(path: Path) -> FoundCredits:
    """The credits of a PNG, WebP or JPEG; none where the file carries none. PhotoError where the file is no picture or the
    credits are not as we write them."""
    data = read_bytes(path)
    contents = contents_of(data, path.name)
    text = contents.texts.get(KEY, "") if contents.kind == "PNG" else _in_exif(opened(contents, path.name)[1])
    if not text:
        return FoundCredits(path.name, ())
    credits = parse(text, path.name)
    own = _credited_pixels(data, path.name, contents, credits)
    return FoundCredits(path.name, own or credits, bool(own))


def _in_exif(contents: Contents) -> str:
    if not contents.exif:
        return ""
    exif, start = exif_of(contents.exif), f"{KEY}:"
    texts = (exif.get(tag) for tag in _TAGS)
    return next((text[len(start) :] for text in texts if isinstance(text, str) and text.startswith(start)), "")


def _credited_pixels(data: bytes, name: str, contents: Contents, credits) -> tuple[PictureCredit, ...]:
    """The credits that were given to these very pixels."""
    chunks = contents.png
    if chunks is None or (chunks.depth, chunks.color_type) != (8, 2) or not any(one.pictures for one in credits):
        return ()
    try:
        own = pixel_hash(np.asarray(decode(data, name)))
    except PhotoError:
        return ()  # its pixels are damaged; its texts are not
    return tuple(credit for credit in credits if own in credit.pictures)
