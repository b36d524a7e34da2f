"""A stand-in for a generator: it "draws" by altering real photos, so that what it knows is controlled and stated.

For a known class it returns an altered photo of that class; for an unknown one, of the nearest known class.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import numpy as np

from realrag.photos.decode import decode

from .errors import GeneratorError


class StandIn:
    """pictures: class -> JPEG bytes of its photos. classes: {prompt: class}. drawn_as: {unknown class: class drawn
    instead}."""

    def __init__(
        self,
        pictures: Callable[[str], list[bytes]],
        classes: dict[str, str],
        drawn_as: dict[str, str],
    ):
        self._pictures, self._classes, self._drawn_as = pictures, classes, drawn_as
        self.metadata = {
            "name": "stand-in (altered photos, not a generator)",
            "drawn_as": dict(sorted(drawn_as.items())),
        }

    def draw(self, prompt: str, seed: int):
        wanted = self._classes[prompt]
        shown = self._drawn_as.get(wanted, wanted)
        if not (photos := self._pictures(shown)):
            raise GeneratorError(f"The stand-in has no photo of {shown!r} to alter. Add some to the library.")
        rng = random.Random(hashlib.sha256(f"{prompt}\n{seed}".encode()).hexdigest())
        return altered(decode(rng.choice(photos), shown), rng)


def altered(image, rng: random.Random):
    """The picture cropped to 70-95 % of each side, perhaps mirrored, with changed light and color, and slightly blurred."""
    from PIL import Image, ImageEnhance, ImageFilter

    width, height = (max(1, round(side * rng.uniform(0.7, 0.95))) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(0.8, 1.2))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))


def nearest_known(
    vectors: np.ndarray, labels: np.ndarray, groups: list[str] | None, unknown: list[int]
) -> dict[int, int]:
    """{unknown class: the known class whose mean photo is nearest}, within the same group where it has known classes.

    vectors (N, D) unit, labels (N,) class numbers 0..C-1, groups: one name a class, or None.
    """
    count = int(labels.max()) + 1
    means = np.stack(
        [vectors[labels == c].mean(0) if (labels == c).any() else np.zeros(vectors.shape[1]) for c in range(count)]
    )
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    known = [c for c in range(count) if c not in set(unknown) and (labels == c).any()]
    if not known:
        raise GeneratorError("The stand-in must know at least one class. Lower `unknown`.")
    result = {}
    for c in unknown:
        near = [k for k in known if groups and groups[k] == groups[c]] or known
        result[c] = max(near, key=lambda k: (float(means[c] @ means[k]), -k))
    return result


def choose_unknown(count: int, classes: int, groups: list[str] | None, seed: int) -> list[int]:
    """`count` class numbers, drawn by seed; with groups, only classes that leave a known sibling in their group."""
    order = list(range(classes))
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    for c in order:
        siblings = [k for k in order if groups and k != c and groups[k] == groups[c] and k not in chosen]
        if len(chosen) < count and (groups is None or siblings):
            chosen.append(c)
    if len(chosen) < count:
        raise GeneratorError(
            f"Only {len(chosen)} of {count} classes can be unknown and keep a known sibling. Lower `unknown`."
        )
    return sorted(chosen)
