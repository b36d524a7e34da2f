"""Reference and target: two different photos of one thing in one look. The same photo twice would teach to copy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cache import Cached


@dataclass(frozen=True)
class Pairs:
    """(B,) each: target and reference photos of a Cached, their look, a sentence's row in it, and which parts are
    shown."""

    targets: np.ndarray
    references: np.ndarray
    looks: np.ndarray
    sentences: np.ndarray
    image: np.ndarray  # bool
    text: np.ndarray  # bool


NEAR = 8  # things that a name may be taken from instead


def near_things(cached: Cached, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Each of these things -> the NEAR others whose sentences mean most nearly the same to the text tower."""
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
    """Draws pairs by dice that the caller brings, things by the root of how many photos they have.

    drops: shares of rows without reference, without words, without both. plain: share in the plain look. cousins: share
    of the sentences beside a reference that are of one of the NEAR things whose names mean nearly the same."""

    def __init__(
        self,
        cached: Cached,
        drops: tuple[float, float, float] = (0.0, 0.0, 0.0),
        plain: float = 0.5,
        cousins: float = 0.0,
    ):
        self.cached, self.drops = cached, drops
        self.plain = plain if len(cached.features) > 1 else 1.0
        self.own = {row: np.array(places) for row, places in cached.things.of().items()}
        self.rows = np.array(sorted(self.own))
        weights = np.array([len(self.own[row]) for row in self.rows]) ** 0.5
        self.odds = weights / weights.sum()
        self.cousins, self.near = cousins, near_things(cached, self.rows) if cousins else {}

    def draw(self, count: int, dice: np.random.Generator) -> Pairs:
        rows = dice.choice(self.rows, count, p=self.odds)
        pairs = np.array([dice.choice(self.own[row], 2, replace=False) for row in rows])
        altered = dice.integers(min(1, len(self.cached.features) - 1), len(self.cached.features), size=count)
        plain = dice.random(count) < self.plain
        sentences = dice.integers(self.cached.sentences, size=count)
        roll, (image, text, both) = dice.random(count), self.drops
        no_image, no_text = roll < image + both, (roll >= image) & (roll < image + both + text)
        named = rows
        if self.cousins:
            misnamed = (dice.random(count) < self.cousins) & ~no_image
            named = np.where(misnamed, [dice.choice(self.near[row]) for row in rows], rows)
        sentences = sentences + named * self.cached.sentences
        looks = np.where(plain | no_image, 0, altered)  # where nothing shows the look, things look as they do
        return Pairs(pairs[:, 0], pairs[:, 1], looks, sentences, ~no_image, ~no_text)

    def others(self, pairs: Pairs, dice: np.random.Generator) -> np.ndarray:
        """(B,) for each pair a photo of another thing."""
        rows = np.array(self.cached.things.rows)[pairs.targets]
        return np.array([dice.choice(self.own[dice.choice(self.rows[self.rows != row])]) for row in rows])
