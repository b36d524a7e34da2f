"""The questions of an evaluation: prompts about the photos of one part of a library, and what was drawn for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from realrag.bundle.bundle import Bundle
from realrag.encoders.base import Encoder

from ..dataset import Prompt, class_key, load_material
from .choose_generator import drawn_instead
from .evaluate import Questions, drawn_photos


@dataclass(frozen=True)
class Drawn:
    """The drawings of the prompts that were trained with: (P, S, D) raw vectors, 0 where nothing was drawn. generator: its
    metadata."""

    prompts: Sequence[Prompt]
    vectors: np.ndarray
    generator: dict

    def of(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """(Q, S, D) for other prompts: the drawings of the same prompt, else of a prompt of the same class, else 0."""
        same = {(p.prompt, p.class_name): at for at, p in reversed(list(enumerate(self.prompts)))}
        of_class = {class_key(p.class_name): at for at, p in reversed(list(enumerate(self.prompts))) if p.class_name}
        found = np.zeros((len(prompts), *self.vectors.shape[1:]), self.vectors.dtype)
        for at, prompt in enumerate(prompts):
            row = same.get((prompt.prompt, prompt.class_name), of_class.get(class_key(prompt.class_name)))
            if row is not None:
                found[at] = self.vectors[row]
        return found


def questions(bundle: Bundle, encoder: Encoder, prompts: Sequence[Prompt], drawn: Drawn | None = None) -> Questions:
    """Without drawings, nothing is known about what the generator draws."""
    material = load_material(bundle, encoder, list(prompts))
    unknown = np.full(len(prompts), -1)
    asked = Questions(material.queries, material.photos, material.query_classes, material.photo_classes, unknown)
    if drawn is None:
        return asked
    vectors = drawn.of(prompts)
    asked = replace(asked, siblings=drawn_instead(prompts, material, vectors, drawn.generator))
    return replace(asked, drawn=drawn_photos(asked, vectors))
