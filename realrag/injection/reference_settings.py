"""What an artist sets for one reference: its weight, where and when it counts, and for which side of the prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..errors import QueryError
from ..prompts.words import words


@dataclass(frozen=True)
class ReferenceSettings:
    """weight 1 is plain, 2 counts as if the picture were there twice, 0 leaves it out. start and end: its part of the
    sampling, 0..1. negative: shown to the negative prompt, so that the picture moves away from it. mask: (H, W) in 0..1
    of any size, stretched over the picture being made; None is everywhere."""

    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    negative: bool = False
    mask: Tensor | None = field(default=None, compare=False)

    def __post_init__(self):
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise QueryError(
                f"A reference's weight is {self.weight:g}; it must be 0 or more. Use the negative flag to steer away."
            )
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise QueryError(f"A reference's part of the sampling is {self.start:g} to {self.end:g}; both are 0 to 1.")
        if self.mask is not None and (self.mask.ndim != 2 or not self.mask.numel()):
            raise QueryError(f"A reference's mask has shape {tuple(self.mask.shape)}; it must be (height, width).")

    def describe(self) -> str:
        """What differs from plain, for a report."""
        parts = [f"weight {self.weight:g}"] * (self.weight != 1)
        parts += [f"steps {self.start:.0%} to {self.end:.0%}"] * ((self.start, self.end) != (0, 1))
        parts += ["negative"] * self.negative + ["masked"] * (self.mask is not None)
        return ", ".join(parts)


def edit(references, rank: int, masks: Tensor | None = None, object: str = "", **changes):
    """The references with the settings of one (rank 1 is the best) or of all (rank 0) changed; others stay.

    object: the object of the prompt that they were found for, as far as to tell it from the others; ranks then count
    within it. Empty: all objects.

    masks: (M, H, W). One mask is for each edited reference; several go to the edited references in order of rank.
    """
    places = _of_object(references.items, object)
    count = len(places)
    if not 0 <= rank <= count:
        raise QueryError(f"There is no reference of rank {rank}: there are {count}. Use 1 to {count}, or 0 for all.")
    edited = places if rank == 0 else [places[rank - 1]]
    if masks is not None and len(masks) not in (1, len(edited)):
        raise QueryError(
            f"{len(masks)} masks for {len(edited)} references: give one mask for all, or one for each in order of rank."
        )
    items = list(references.items)
    for number, i in enumerate(edited):
        own = {} if masks is None else {"mask": masks[number if len(masks) > 1 else 0].detach().float().cpu()}
        items[i] = replace(items[i], settings=replace(items[i].settings, **changes, **own))
    return replace(references, items=tuple(items))


def _of_object(items: Sequence, object: str) -> list[int]:
    """The places of the references whose object holds all words of `object`."""
    wanted = set(words(object))
    if not wanted:
        return list(range(len(items)))
    places = [i for i, item in enumerate(items) if wanted <= set(words(item.object))]
    if not places:
        there = ", ".join(dict.fromkeys(repr(item.object) for item in items if item.object)) or "none has a label"
        raise QueryError(f"No reference was found for the object {object!r}. Objects here: {there}.")
    return places


def score_weights(scores: Sequence[float], temperature: float) -> list[float]:
    """N softmax(score / temperature): their mean is 1, so equal scores weigh 1. Temperature 0 turns the scores off."""
    if temperature <= 0 or not scores:
        return [1.0] * len(scores)
    shares = [math.exp((score - max(scores)) / temperature) for score in scores]
    return [len(scores) * share / sum(shares) for share in shares]


def effective(references, temperature: float = 0.0) -> list[ReferenceSettings]:
    """Each reference's settings, with its own weight times that of its retrieval score. Negative ones keep their own."""
    wanted = [item for item in references.items if not item.settings.negative]
    factors = iter(score_weights([item.score for item in wanted], temperature))
    return [
        item.settings if item.settings.negative else replace(item.settings, weight=item.settings.weight * next(factors))
        for item in references.items
    ]
