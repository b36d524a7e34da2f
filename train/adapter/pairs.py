"""Reference and target: two different photos of one class in one augmentation. The same photo twice would teach
copying."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cache import Cached


@dataclass(frozen=True)
class Pairs:
    """(B,) each: target and reference photos of a Cached, their augmentation, the row of a sentence, and whether the
    reference and the text are given."""

    targets: np.ndarray
    references: np.ndarray
    looks: np.ndarray
    sentences: np.ndarray
    image: np.ndarray  # bool
    text: np.ndarray  # bool


NEAR = 8  # confusable classes whose captions may replace the right one


def confusable_classes(cached: Cached, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Row of a class -> the NEAR others whose captions are most similar to the text tower."""
    own = np.array(
        [
            np.asarray(cached.pooled[row * cached.sentences : (row + 1) * cached.sentences], float).mean(0)
            for row in rows
        ]
    )
    own /= np.linalg.norm(own, axis=1, keepdims=True) + 1e-12
    alike = own @ own.T
    np.fill_diagonal(alike, -np.inf)
    return {
        int(row): rows[np.argsort(-line)[: min(NEAR, len(rows) - 1)]] for row, line in zip(rows, alike, strict=True)
    }


class Drawing:
    """Draws pairs, classes with a probability proportional to the root of their photos.

    drops: fractions of rows without reference, without text, without both. plain: fraction without augmentation.
    confusable: fraction of the captions beside a reference that are replaced by that of a confusable class."""

    def __init__(
        self,
        cached: Cached,
        drops: tuple[float, float, float] = (0.0, 0.0, 0.0),
        plain: float = 0.5,
        confusable: float = 0.0,
    ):
        self.cached, self.drops = cached, drops
        self.plain = plain if len(cached.features) > 1 else 1.0
        self.own = {row: np.array(places) for row, places in cached.class_photos.of().items()}
        self.rows = np.array(sorted(self.own))
        weights = np.array([len(self.own[row]) for row in self.rows]) ** 0.5
        self.odds = weights / weights.sum()
        self.confusable, self.near = confusable, confusable_classes(cached, self.rows) if confusable else {}

    def draw(self, count: int, rng: np.random.Generator) -> Pairs:
        rows = rng.choice(self.rows, count, p=self.odds)
        pairs = np.array([rng.choice(self.own[row], 2, replace=False) for row in rows])
        altered = rng.integers(min(1, len(self.cached.features) - 1), len(self.cached.features), size=count)
        plain = rng.random(count) < self.plain
        sentences = rng.integers(self.cached.sentences, size=count)
        roll, (image, text, both) = rng.random(count), self.drops
        no_image, no_text = roll < image + both, (roll >= image) & (roll < image + both + text)
        named = rows
        if self.confusable:
            misnamed = (rng.random(count) < self.confusable) & ~no_image
            named = np.where(misnamed, [rng.choice(self.near[row]) for row in rows], rows)
        sentences = sentences + named * self.cached.sentences
        looks = np.where(plain | no_image, 0, altered)  # without a reference the appearance is the plain one
        return Pairs(pairs[:, 0], pairs[:, 1], looks, sentences, ~no_image, ~no_text)

    def others(self, pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
        """(B,) for each pair a photo of another class."""
        rows = np.array(self.cached.class_photos.rows)[pairs.targets]
        return np.array([rng.choice(self.own[rng.choice(self.rows[self.rows != row])]) for row in rows])
