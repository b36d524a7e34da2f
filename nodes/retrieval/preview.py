"""References as the node shows them: what web/choose_photos.js makes cards of, and a picture of each card for those who
show pictures only, such as a phone or a script."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import folder_paths
from PIL import Image, ImageDraw, ImageFont

from ...realrag.files import write_atomic
from ...realrag.prompts.words import is_a_name
from ...realrag.references import NOT_STATED, Reference, References, letterbox
from ...realrag.search.hybrid import BY_LOOK
from ...realrag.search.names import asked_as
from ..images import jpeg

STRIP, INK = (32, 32, 32), (235, 235, 235)
SIDE = 384  # pixels of the square that each photo is fitted into, however small it is
CARD = (85, 2)  # JPEG quality and subsampling: the page shows the photos themselves, with a color for each pixel
NOTE_SIZE = (512, 256)  # pixels of the card that is shown where nothing was found
NOTHING_FITS = (
    "\n\nThe picture is made without references. To see the closest photos, set min_score to 0 and doubt to keep."
)


def shown(references: References) -> dict:
    """The node's `ui`: `images`, its cards as pictures; `realrag_photos`, what there is to know of each photo, with the
    photo itself as a file; `realrag_note`, the note in a list of one."""
    photos = [_metadata(rank, item, references) for rank, item in enumerate(references.items, 1)]
    note = f"{references.note}{NOTHING_FITS * (references.doubtful and not photos)}"
    return {
        "images": [_in_temp(key, lambda: jpeg(make(), *CARD)) for key, make in _cards(references)],
        "realrag_photos": photos,
        "realrag_note": [note],
    }


def _metadata(rank: int, item: Reference, references: References) -> dict:
    return {
        "id": item.id,
        "rank": rank,
        "score": round(item.score, 4),
        "found": item.found,
        "object": item.object,
        "doubtful": references.doubts(item),
        "name": name_of(item),
        "caption": item.caption,
        "credit": item.credit(references.licensed),
        "author": item.author,
        "license": item.licence or NOT_STATED,
        "licensed": references.licensed,
        "photo": _in_temp((references.bundle_id, item.id, item.image.size), lambda: jpeg(item.image)),
    }


def labeled(references: References) -> list[Image.Image]:
    """A card for each reference, best first, all of one size; or one card that says why there are none."""
    return [make() for _, make in _cards(references)]


def _cards(references: References) -> list[tuple[tuple, Callable[[], Image.Image]]]:
    """Of each card all that stands on it, and what makes it."""
    if not references.items:
        note = f"{references.note}{NOTHING_FITS * references.doubtful}"
        return [((note,), lambda: _card(note))]
    lines, cards = 3 if any(item.object for item in references.items) else 2, []
    for rank, item in enumerate(references.items, 1):
        score = f" · {item.score:.3f}" * (item.found == BY_LOOK)
        texts = [f"{rank} · {item.found}{score}", name_of(item)]
        texts += [f"for: {item.object}"] * bool(item.object)
        key = (references.bundle_id, item.id, item.image.size, lines, *texts)
        cards.append((key, partial(_over_strip, item, lines, texts)))
    return cards


def _in_temp(key: tuple, make: Callable[[], bytes]) -> dict:
    """A JPEG as a file in ComfyUI's temp folder, named by what it shows: it is made once until ComfyUI ends, however often it
    is shown. Returns where `/view` finds it."""
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
    path = Path(folder_paths.get_temp_directory()) / f"realrag_{name}.jpg"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, make(), durable=False)
    return {"filename": path.name, "subfolder": "", "type": "temp"}


def _over_strip(item: Reference, lines: int, texts: list[str]) -> Image.Image:
    size = SIDE // 12  # of the letters: four photos side by side in a node leave each about 100 pixels
    picture = Image.new("RGB", (SIDE, SIDE + (2 * lines - 1) * size), STRIP)
    picture.paste(letterbox(item.image, (SIDE, SIDE), STRIP, quick=True))
    font = _font(size)
    text = "\n".join(_shortened(line, font, SIDE - size) for line in texts)
    ImageDraw.Draw(picture).multiline_text((size // 2, SIDE + size // 3), text, INK, font, spacing=size // 5)
    return picture


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def name_of(item: Reference) -> str:
    return asked_as(item.class_name) if is_a_name(item.class_name) else item.caption


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
