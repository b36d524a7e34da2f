"""References as the node shows them: what web/choose_photos.js makes cards of, and a picture of each card for those who
show pictures only, such as a phone or a script."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path

import folder_paths
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...realrag.files import write_atomic
from ...realrag.references import Reference, References, letterbox
from ..images import jpeg, png

STRIP, INK = (32, 32, 32), (235, 235, 235)
SIDE = 384  # pixels of the square that each photo is fitted into, however small it is
NOTE_SIZE = (512, 256)  # pixels of the card that is shown where nothing was found
NOTHING_FITS = (
    "\n\nThe picture is made without references. To see the closest photos, set min_score to 0 and doubt to keep."
)


def shown(references: References) -> dict:
    """The node's `ui`: `images`, its cards as pictures; `realrag_photos`, what there is to know of each photo, with the
    photo itself as a file; `realrag_note`, the note in a list of one."""
    photos = [_facts(rank, item, references) for rank, item in enumerate(references.items, 1)]
    note = f"{references.note}{NOTHING_FITS * (references.doubtful and not photos)}"
    return {
        "images": [_in_temp(png(np.asarray(card)), "png") for card in labeled(references)],
        "realrag_photos": photos,
        "realrag_note": [note],
    }


def _facts(rank: int, item: Reference, references: References) -> dict:
    return {
        "id": item.id,
        "rank": rank,
        "score": round(item.score, 4),
        "found": item.found,
        "object": item.object,
        "doubtful": references.doubts(item),
        "name": name_of(item),
        "caption": item.caption,
        "credit": item.credit(),
        "author": item.author,
        "license": item.licence or "license not stated",
        "photo": _in_temp(jpeg(item.image), "jpg"),
    }


def labeled(references: References) -> list[Image.Image]:
    """A card for each reference, best first, all of one size; or one card that says why there are none."""
    lines = 3 if any(item.object for item in references.items) else 2
    cards = [_over_strip(rank, item, lines) for rank, item in enumerate(references.items, 1)]
    return cards or [_card(f"{references.note}{NOTHING_FITS * references.doubtful}")]


def _in_temp(data: bytes, suffix: str) -> dict:
    """The bytes as a file in ComfyUI's temp folder, named by its content: the same picture is written once until ComfyUI
    ends, however often it is shown. Returns where `/view` finds it."""
    path = Path(folder_paths.get_temp_directory()) / f"realrag_{hashlib.sha256(data).hexdigest()[:24]}.{suffix}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    return {"filename": path.name, "subfolder": "", "type": "temp"}


def _over_strip(rank: int, item: Reference, lines: int) -> Image.Image:
    size = SIDE // 12  # of the letters: four photos side by side in a node leave each about 100 pixels
    texts = [f"{rank} · {item.score:.3f} · {item.found}", name_of(item)] + [f"for: {item.object}"] * bool(item.object)
    picture = Image.new("RGB", (SIDE, SIDE + (2 * lines - 1) * size), STRIP)
    picture.paste(letterbox(item.image, (SIDE, SIDE), STRIP))
    font = ImageFont.load_default(size)
    text = "\n".join(_shortened(line, font, SIDE - size) for line in texts)
    ImageDraw.Draw(picture).multiline_text((size // 2, SIDE + size // 3), text, INK, font, spacing=size // 5)
    return picture


def name_of(item: Reference) -> str:
    return item.class_name.replace("-", " ").replace("_", " ") or item.caption


def _shortened(name: str, font, width: int) -> str:
    """The name on one line of at most `width` pixels, cut with "..." where it is longer."""
    name = " ".join(name.split())
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(name + "...") > width:
        name = name[:-1].rstrip()
    return name + "..."


def _card(note: str) -> Image.Image:
    card = Image.new("RGB", NOTE_SIZE, STRIP)
    text = "\n".join("\n".join(textwrap.wrap(part, 44)) for part in note.split("\n"))
    ImageDraw.Draw(card).multiline_text((24, 24), text, INK, ImageFont.load_default(20), spacing=8)
    return card
