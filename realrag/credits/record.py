"""What a picture says of the photos that steered it: made from references, written as JSON, read back strictly.

In a picture's metadata it stands under one key, beside ComfyUI's `prompt` and `workflow`:

    {"format": "realrag-credits", "version": 1, "credits": [
      {"bundle": ID, "references": [{"id", "title", "author", "license", "source"}, ...], "pictures": [SHA256, ...]}]}

`pictures` are the hashes of the pixels that a credit was given to, so a picture that was saved in the same run and made
without references can be told apart. File names, prompts and scores stay out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import numpy as np

from ..errors import PhotoError
from ..photos.credit import clean
from ..references import NONE_STATED, NOT_STATED, Reference, References
from ..validation import is_hex, strict_json

KEY, FORMAT, VERSION = "realrag", "realrag-credits", 1
MOST_CREDITS, MOST_REFERENCES, MOST_PICTURES = 256, 4096, 4096
# A file on somebody's disk: its path says nothing to others, and may say a name.
_PATH = re.compile(r"file:|[/~\\]|[A-Za-z]:[\\/]", re.IGNORECASE)


@dataclass(frozen=True)
class CreditedPhoto:
    """One photo; an empty string means "not stated"."""

    title: str
    author: str = ""
    license: str = ""
    source: str = ""
    id: str = ""

    def line(self, stated: bool = True) -> str:
        """stated: whether to say that no license is stated, where none is."""
        license = self.license or (NOT_STATED if self.id and stated else "")  # a pack's title holds it
        parts = (self.title or "untitled", f"by {self.author}" if self.author else "", license, self.source)
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class PictureCredit:
    """The photos of one library that steered a picture. bundle: the library's id, or "" where a pack hides it.
    pictures: hashes of the pixels that were credited, as `pixel_hash` takes them."""

    references: tuple[CreditedPhoto, ...]
    bundle: str = ""
    pictures: tuple[str, ...] = ()


def text_of(photos: Sequence[CreditedPhoto]) -> str:
    """A line for each photo. Where none states a license, as among an artist's own, that is said once, at the end."""
    stated = any(photo.license or not photo.id for photo in photos)
    lines = [f"{number}. {photo.line(stated)}" for number, photo in enumerate(photos, 1)]
    return "\n".join(lines + [NONE_STATED] * (bool(photos) and not stated))


def of_references(references: References) -> PictureCredit:
    """Of all references that count: one with the weight 0 had no part in the picture."""
    photos = tuple(_photo(item) for item in references.items if item.settings.weight)
    return PictureCredit(photos, references.bundle_id)


def of_titles(titles: Iterable[str]) -> PictureCredit:
    """Of a reference pack, which keeps one line for each photo."""
    return PictureCredit(tuple(CreditedPhoto(clean(title)) for title in titles))


def _photo(item: Reference) -> CreditedPhoto:
    title = clean(item.caption) or clean(item.class_name)
    return CreditedPhoto(title, clean(item.author), clean(item.licence), public_source(item.source), item.id)


def public_source(source: str) -> str:
    """The source, unless it is a path on somebody's disk or a link with a login in it."""
    text = clean(source)
    try:
        private = bool(_PATH.match(text)) or "@" in urlsplit(text).netloc
    except ValueError:  # brackets that are no address
        private = True
    return "" if private else text


def pixel_hash(pixels: np.ndarray) -> str:
    """Of one picture (H, W, 3), uint8."""
    height, width = pixels.shape[:2]
    return hashlib.sha256(f"{width}x{height}|".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


class _Record(dict):
    """What `add` wrote, as against what came with somebody's prompt."""


def add(metadata: dict, credit: PictureCredit) -> None:
    """Put this credit into a picture's metadata under KEY. Photos that are credited there already only gain pictures."""
    there = metadata.get(KEY)
    credits = list(there["credits"]) if isinstance(there, _Record) else []
    entry = asdict(credit)
    for other in credits:
        if all(other[key] == entry[key] for key in ("bundle", "references")):
            entry["pictures"] = tuple(dict.fromkeys((*other["pictures"], *entry["pictures"])))
            credits.remove(other)
            break
    entry["pictures"] = entry["pictures"][-MOST_PICTURES:]
    metadata[KEY] = _Record(format=FORMAT, version=VERSION, credits=[*credits, entry][-MOST_CREDITS:])


def parse(text: str, name: str) -> tuple[PictureCredit, ...]:
    """The value under KEY -> its credits. PhotoError `bad_credits` where anybody wrote something else there."""
    try:
        record = strict_json(text.encode())
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError("another format")
        if record.get("version") != VERSION:
            raise ValueError(f"version {str(record.get('version'))[:20]}; this RealRAG reads {VERSION}. Update RealRAG")
        return tuple(_credit(entry) for entry in _list(record.get("credits"), MOST_CREDITS))
    except (ValueError, UnicodeEncodeError) as error:
        raise PhotoError(
            "bad_credits", f"{name}: its credits cannot be read ({str(error)[:120]}). Ask its maker for the original."
        ) from None


def _credit(entry: object) -> PictureCredit:
    if not isinstance(entry, dict):
        raise ValueError("an entry that is no object")
    bundle, pictures = entry.get("bundle", ""), _list(entry.get("pictures"), MOST_PICTURES)
    if bundle != "" and not is_hex(bundle, 64):
        raise ValueError("the id of a bundle has 64 hex digits")
    if not all(is_hex(picture, 64) for picture in pictures):
        raise ValueError("the hash of a picture has 64 hex digits")
    photos = []
    for photo in _list(entry.get("references"), MOST_REFERENCES):
        if not isinstance(photo, dict) or not all(isinstance(value, str) for value in photo.values()):
            raise ValueError("a reference that is no object of texts")
        photos.append(CreditedPhoto(*(clean(photo.get(key, "")) for key in CreditedPhoto.__dataclass_fields__)))
    return PictureCredit(tuple(photos), bundle, tuple(pictures))


def _list(value: object, most: int) -> list:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"a list of at most {most} is missing")
    return value
