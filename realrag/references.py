"""The answer to a prompt: real photos, ranked, with what is known of each; and the ways to look at them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .injection.reference_settings import ReferenceSettings
from .photos.keep import resized

GRAY = 128
NOT_STATED = "license not stated"
NONE_STATED = "No license is stated beside these photos. Your own need none; for those of others, ask the author before you publish."


@dataclass(frozen=True)
class Reference:
    """One real photo. score: cosine with the query, -1..1. width and height: of the original, in pixels.
    image: PIL RGB at the size the bundle keeps."""

    id: str
    score: float
    caption: str
    class_name: str
    licence: str
    author: str
    source: str
    file: str
    width: int
    height: int
    image: Image.Image
    settings: ReferenceSettings = ReferenceSettings()  # what an artist set for it; plain as retrieved
    found: str = "by look"  # or "by name", "by caption", "pinned"
    object: str = ""  # which of several objects of the prompt it was found for

    def how(self) -> str:
        """How it was found. Only what look found is ranked by its score; beside a name the score is said as what it is."""
        return self.found if self.found == "by look" or not self.score else f"{self.found}; look alone {self.score:.3f}"

    def shown_score(self) -> str:
        """The score of a photo that was found by look; "-" for one that a name, a caption or somebody chose."""
        return f"{self.score:.3f}" if self.found == "by look" else "-"

    def credit(self, stated: bool = True) -> str:
        """One line an artist can print under a picture. stated: whether to say that no license is stated, where none is."""
        parts = [
            self.caption or self.file,
            f"by {self.author}" if self.author else "",
            self.licence or NOT_STATED * stated,
        ]
        return ", ".join(part for part in parts if part) + (f", {self.source}" if self.source else "")


@dataclass(frozen=True)
class References:
    """Ranked references, best first. `note` says why there are fewer than asked for, or none; `ranked_by` through which
    of the library's heads they were ranked, where it has any."""

    query: str
    bundle_id: str
    items: tuple[Reference, ...] = ()
    note: str = ""
    ranked_by: str = ""
    doubtful: bool = False  # nothing was found by name or caption, and the best score by look lies below `level`
    best: float = -1.0  # the best score by look
    level: float | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def licensed(self) -> bool:
        """Whether any photo states a license. Where none does, as among an artist's own, that is said once."""
        return any(item.licence for item in self.items)

    def doubts(self, item: Reference) -> bool:
        """Whether this photo was found by look alone and scores below the library's level."""
        return self.level is not None and item.found == "by look" and item.score < self.level

    def images(self) -> list[Tensor]:
        """Each picture at its own size: (H, W, 3) float32 in 0..1."""
        return [torch.from_numpy(np.array(item.image, dtype=np.uint8)).float() / 255 for item in self.items]

    def batch(self, size: int | None = None) -> Tensor:
        """(N, S, S', 3) float32 in 0..1: every picture whole, centered on gray; one gray picture when there are none.

        The frame is the largest width by the largest height, or `size` x `size` with pictures scaled to fit.
        """
        if not self.items:
            return torch.full((1, size or 256, size or 256, 3), GRAY / 255)
        if size:
            frame = (size, size)
        else:
            frame = max(item.image.width for item in self.items), max(item.image.height for item in self.items)
        pictures = [np.asarray(letterbox(item.image, frame)) for item in self.items]
        return torch.from_numpy(np.stack(pictures)).float().div_(255)

    def scores_text(self) -> str:
        """One line a reference: rank, score by look or "-", id, caption, how found; then what there is to say of the answer."""
        lines = [
            f"{rank}. {item.shown_score()}  {item.id}  {item.caption}  ({item.how()})"
            + (f"  [{item.object}]" if item.object else "")
            for rank, item in enumerate(self.items, 1)
        ]
        return "\n".join([*lines, *filter(None, (self.note, self.ranked_by))])

    def credits_text(self) -> str:
        """One line a reference: who made it, under which license, from where. Where none states a license, that once."""
        if not self.items:
            return self.note
        lines = [f"{rank}. {item.credit(self.licensed)}" for rank, item in enumerate(self.items, 1)]
        return "\n".join(lines + [NONE_STATED] * (not self.licensed))

    def as_json(self) -> list[dict]:
        """`realrag search --json`: best first, without the pictures."""
        return [
            {
                "id": item.id,
                "score": round(item.score, 6),
                "caption": item.caption,
                "class": item.class_name,
                "licence": item.licence,
                "author": item.author,
                "source": item.source,
                "file": item.file,
                "found": item.found,
                "object": item.object,
                "doubtful": self.doubts(item),
            }
            for item in self.items
        ]


def letterbox(image, frame: tuple[int, int], color: tuple[int, int, int] = (GRAY, GRAY, GRAY), quick: bool = False):
    """PIL image scaled to fit `frame` (width, height) whole, centered on gray or another color. Never cropped. quick: for a
    small view, at a fifth of the time."""
    scale = min(frame[0] / image.width, frame[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size != image.size:
        image = resized(image, size, 1, "bilinear") if quick else image.resize(size, Image.Resampling.LANCZOS)
    if size == frame:
        return image
    canvas = Image.new("RGB", frame, color)
    canvas.paste(image, ((frame[0] - size[0]) // 2, (frame[1] - size[1]) // 2))
    return canvas
