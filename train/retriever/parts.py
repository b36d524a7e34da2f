"""Parts a library's photos into train, validation and test, so that no shot and no near-copy of one is in two of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from realrag.errors import RealRAGError
from realrag.likeness import COPY, layout

PARTS = ("library", "validation", "gallery")  # train, validation and test
# Near-copies are looked for among the photos that the encoder, or their coarse shape, finds most alike, and told by their
# layout. All bounds are our choices. A copy made small, blurred or mirrored has a layout above LAYOUT; a cropped one above
# COPY, which counts where the encoder sees no difference either.
ALIKE, SHAPE, NEIGHBORS, COARSE = 0.8, 0.5, 12, 12
LAYOUT, SAME = 0.9, 0.97
LOOKED = 64  # photos between two steps of the progress, a second of work; nothing of it is kept where it is stopped
EVERY = 256  # photos read between two calls of `progress`
ROWS = 2048  # photos compared at once
SMALL = 96  # pixels in which layouts are compared


@dataclass(frozen=True)
class Fractions:
    """Of train, validation and test. All are our choices."""

    library: float = 0.7
    validation: float = 0.15
    gallery: float = 0.15

    def __post_init__(self) -> None:
        if min(self.library, self.validation) <= 0 or self.gallery < 0 or abs(sum(self) - 1) > 1e-6:
            raise RealRAGError(
                f"parts is {list(self)}; it needs the fractions of {', '.join(PARTS)}, above 0 and together 1. An empty list "
                "parts nothing."
            )

    def __iter__(self):
        return iter((self.library, self.validation, self.gallery))


def near_copies(
    vectors: np.ndarray, picture: Callable[[int], Image.Image], progress: Callable[[int, int], None] = lambda d, t: None
) -> np.ndarray:
    """(N,) group numbers of N photos with unit vectors (N, D): near-copies, and near-copies of those, share one."""
    groups, count = _Groups(len(vectors)), len(vectors)
    small: list[Image.Image] = []
    for row in range(count):
        image = picture(row).convert("L")
        image.thumbnail((SMALL, SMALL))
        small.append(image)
        if len(small) % LOOKED == 0 or len(small) == count:
            progress(len(small), 2 * count)
    plain, mirrored = (
        np.stack([_coarse(draw(image)) for image in small]) for draw in (Image.Image.copy, ImageOps.mirror)
    )
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))
        looks = vectors[rows] @ vectors.T
        shapes = np.maximum(plain[rows] @ plain.T, plain[rows] @ mirrored.T)
        pairs = np.concatenate([_nearest(looks, rows, ALIKE), _nearest(shapes, rows, SHAPE)])
        for one, other in np.unique(np.sort(pairs, axis=1), axis=0).tolist():
            if not groups.same(one, other):
                same = float(vectors[one] @ vectors[other]) >= SAME
                if layout(small[one], small[other]) >= (COPY if same else LAYOUT):
                    groups.join(one, other)
        progress(count + len(rows) + start, 2 * count)
    return groups.numbers()


def _nearest(scores: np.ndarray, rows: np.ndarray, least: float) -> np.ndarray:
    """(M, 2) pairs of each of `rows` with its NEIGHBORS best others, of those with `least` or more."""
    scores = scores.copy()
    scores[np.arange(len(rows)), rows] = -np.inf
    count = min(NEIGHBORS, scores.shape[1] - 1)
    if count < 1:
        return np.empty((0, 2), np.int64)
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    keep = np.take_along_axis(scores, best, 1) >= least
    return np.stack([np.repeat(rows, count)[keep.ravel()], best.ravel()[keep.ravel()]], 1)


def _coarse(image: Image.Image) -> np.ndarray:
    """(COARSE * COARSE,) gray values as a unit vector about their mean."""
    values = np.asarray(image.resize((COARSE, COARSE), Image.Resampling.BOX), np.float32).ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


class _Groups:
    """Union-find."""

    def __init__(self, count: int):
        self._parent = list(range(count))

    def _root(self, row: int) -> int:
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def same(self, one: int, other: int) -> bool:
        return self._root(one) == self._root(other)

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self._root(one), self._root(other)))
        self._parent[high] = low

    def numbers(self) -> np.ndarray:
        return np.array([self._root(row) for row in range(len(self._parent))])


def assign(
    classes: Sequence[str], names: Sequence[str], groups: np.ndarray, fractions: Fractions, seed: int
) -> np.ndarray:
    """(N,) indices into PARTS. Each class is cut by itself, group by group, in an order by (seed, class).

    classes: of each photo, "" for none. names: of each photo, which the order depends on, such as its content hash. A
    class of two groups has none for validation, one of a single group is trained on only."""
    first: dict[int, str] = {}
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        first.setdefault(group, classes[row])  # a group of several classes goes with its first
        members.setdefault(group, []).append(row)
    of_class: dict[str, list[int]] = {}
    for group, name in first.items():
        of_class.setdefault(name, []).append(group)
    part = np.zeros(len(classes), np.int64)
    for name, own in sorted(of_class.items()):
        own.sort(key=lambda group: min(names[row] for row in members[group]))
        random.Random(f"{seed}/{name}").shuffle(own)
        for at, group in zip(_parts_of(len(own), fractions), own, strict=True):
            part[members[group]] = at
    return part


def _parts_of(count: int, fractions: Fractions) -> list[int]:
    """The part of each of `count` groups: test, then validation, then train."""
    test = max(1, round(count * fractions.gallery)) if fractions.gallery and count >= 2 else 0
    validation = max(1, round(count * fractions.validation)) if count - test >= 2 else 0
    return [2] * test + [1] * validation + [0] * (count - test - validation)
