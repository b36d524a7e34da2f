"""Pairs each photo with a prompt, orders them by epoch, and holds photos out for measuring."""

from __future__ import annotations

import numpy as np

from realrag.errors import RealRAGError

from ..dataset import Material

SPLIT_SEED = 0  # of the held-out photos: the same for every seed and every arm


class Pairing:
    """pairs: rows of photos that have a prompt. held_out: rows held out for measuring, a fraction of each class."""

    def __init__(self, material: Material, held_out: float = 0.0):
        self._classes, asked = material.photo_classes, material.query_classes
        self._by_class = np.argsort(asked, kind="stable")
        self._sorted_classes = asked[self._by_class]
        rows = np.flatnonzero(np.isin(self._classes, asked) & (self._classes >= 0))
        if not len(rows):
            raise RealRAGError(
                "No prompt is about a class of the bundle's photos. Give prompts with the bundle's class names."
            )
        held = np.zeros(len(self._classes), bool)
        mixed = np.random.default_rng(SPLIT_SEED).permutation(rows)
        for code in np.unique(self._classes[rows]) if held_out else ():
            own = mixed[self._classes[mixed] == code]
            held[own[: int(len(own) * held_out)]] = True
        self.pairs, self.held_out = rows[~held[rows]], np.flatnonzero(held)
        if held_out and not len(self.held_out):
            raise RealRAGError(f"held_out {held_out} holds out no photo: the classes are too small for it.")

    def order(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of all photos of an epoch in random order, and for each of a random prompt of its class. A step is a
        slice."""
        rng = np.random.default_rng((seed, epoch))
        photos = rng.permutation(self.pairs)
        codes = self._classes[photos]
        first, last = (np.searchsorted(self._sorted_classes, codes, side) for side in ("left", "right"))
        return photos, self._by_class[first + (rng.random(len(photos)) * (last - first)).astype(np.int64)]

    def first_prompts(self, photos: np.ndarray) -> np.ndarray:
        """For each photo the first prompt of its class."""
        return self._by_class[np.searchsorted(self._sorted_classes, self._classes[photos])]


def parts(rows: np.ndarray, count: int) -> list[np.ndarray]:
    """Slices of `count` rows; what is left behind the last whole one is dropped."""
    return [rows[start : start + count] for start in range(0, len(rows) - count + 1, count)]


def different(prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different prompts of (B,) rows, (U,) ascending, and (B,) the place of each row among them."""
    rows, place = np.unique(prompts, return_inverse=True)
    return rows, place
