"""How like a picture is to its references: in what the encoder sees, and in its layout, which tells a copy.

The layout is compared as 32 x 32 gray values, plain and mirrored, whole and cut to 90 and 80 %. On the shipped library two
different photos stay below 0.7, and one made small, blurred, mirrored or cut to 90 % above 0.8 of itself
(tests/realrag/test_likeness.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from .encoders import Encoder
from .references import Reference

COPY = 0.75  # correlation of two layouts from which a picture counts as nearly a copy
SIDE = 32
CUTS = (1.0, 0.9, 0.8)


@dataclass(frozen=True)
class Likeness:
    """Of a picture to one reference. look: cosine of their image vectors. layout: correlation, 1 for the same picture."""

    reference: Reference
    look: float
    layout: float

    @property
    def nearly_copied(self) -> bool:
        return self.layout >= COPY


def likeness(encoder: Encoder, picture: Image.Image, references: Sequence[Reference]) -> list[Likeness]:
    """Of `picture` to each reference, in their order. encoder: of the library they come from, loaded."""
    if not references:
        return []
    import torch

    pictures = [picture.convert("RGB"), *(item.image.convert("RGB") for item in references)]
    vectors = torch.nn.functional.normalize(
        encoder.encode_images(torch.stack([encoder.prepare(each) for each in pictures])).float(), dim=1
    ).numpy()
    return [
        Likeness(item, float(vectors[0] @ vector), layout(pictures[0], image))
        for item, vector, image in zip(references, vectors[1:], pictures[1:], strict=True)
    ]


def layout(picture: Image.Image, photo: Image.Image) -> float:
    """The correlation of two layouts, -1..1: of the picture, whole and as a square, with the views of the photo."""
    own = np.stack([_unit(_gray(picture)), _unit(_gray(_cut(picture, 1)))])
    return float((own @ _views(photo).T).max())


def report(found: Sequence[Likeness]) -> str:
    """A line a reference, the most alike first within each object, and a warning where one is nearly copied."""
    if not found:
        return "There are no references to compare with."
    lines = []
    for name in dict.fromkeys(each.reference.object for each in found):
        of_object = [(rank, each) for rank, each in enumerate(found, 1) if each.reference.object == name]
        if name:
            mean = float(np.mean([each.look for _, each in of_object]))
            lines.append(f"{name}: looks {mean:.2f} like its references on average")
        for rank, each in sorted(of_object, key=lambda pair: -pair[1].look):
            words = each.reference.caption or each.reference.class_name or each.reference.id
            lines.append(f"{rank}. looks {each.look:.2f}, layout {each.layout:.2f}  {words}")
    for rank, each in enumerate(found, 1):
        if each.nearly_copied:
            lines.append(
                f"Warning: the picture is nearly a copy of reference {rank} ({each.reference.credit()}). Lower the strength, "
                "end earlier, or use more references."
            )
    return "\n".join(lines)


def _views(image: Image.Image) -> np.ndarray:
    """(V, SIDE * SIDE) unit vectors: whole and cut, plain and mirrored."""
    cuts = [image, *(_cut(image, part) for part in CUTS)]
    return np.stack([_unit(_gray(view)) for cut in cuts for view in (cut, ImageOps.mirror(cut))])


def _cut(image: Image.Image, part: float) -> Image.Image:
    """The middle square, `part` of the shorter side wide."""
    side = max(1, int(min(image.size) * part))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _gray(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float64).ravel()


def _unit(values: np.ndarray) -> np.ndarray:
    """Without their mean and of length 1; a picture of one color is like none."""
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length > 1e-6 else values * 0
