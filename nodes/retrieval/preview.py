"""References as the node shows them: each photo over a strip with its rank, score and name."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path

import folder_paths
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...realrag.files import write_atomic
from ...realrag.references import Reference, References
from ..images import pixels, png

STRIP, INK = (32, 32, 32), (235, 235, 235)
NOTE_SIZE = (512, 256)  # pixels of the card that is shown where nothing was found
NOTHING_FITS = (
    "\n\nThe picture is made without references. To see the closest photos, set min_score to 0 and doubt to keep."
)


def labeled(references: References) -> list[Tensor]:
    """One card (H, W, 3) in 0..1 for each reference, best first; or one that says why there are none.

    All are of one size, the largest width by the largest height, as galleries shrink a mixture to its odd one out.
    """
    width, height = (max(sides) for sides in zip(*(item.image.size for item in references.items), (1, 1), strict=True))
    cards = [_over_strip(rank, item, width, height) for rank, item in enumerate(references.items, 1)]
    cards = cards or [_card(f"{references.note}{NOTHING_FITS * references.doubtful}")]
    return [torch.from_numpy(np.asarray(card, np.float32) / 255) for card in cards]


def shown_in_node(cards: list[Tensor]) -> dict:
    """What a node's `ui` shows: the cards as files in ComfyUI's temp folder, named by what they show.

    So the same card is written once, however often it is shown until ComfyUI ends.
    """
    folder, shown = Path(folder_paths.get_temp_directory()), []
    folder.mkdir(parents=True, exist_ok=True)
    for card in cards:
        values = pixels(card)
        digest = hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()
        path = folder / f"realrag_{digest[:24]}.png"
        if not path.is_file():
            write_atomic(path, png(values))
        shown.append({"filename": path.name, "subfolder": "", "type": "temp"})
    return {"images": shown}


def _over_strip(rank: int, item: Reference, width: int, height: int) -> Image.Image:
    size = max(12, width // 12)  # of the letters: four photos side by side in a node leave each about 100 pixels
    lines = [f"{rank} · {item.score:.3f} · {item.found}", name_of(item)] + [f"for: {item.object}"] * bool(item.object)
    picture = Image.new("RGB", (width, height + (2 * len(lines) - 1) * size), STRIP)
    picture.paste(item.image, ((width - item.image.width) // 2, (height - item.image.height) // 2))
    font = ImageFont.load_default(size)
    text = "\n".join(_shortened(line, font, width - size) for line in lines)
    place = (size // 2, height + size // 3)
    ImageDraw.Draw(picture).multiline_text(place, text, INK, font, spacing=size // 5)
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
