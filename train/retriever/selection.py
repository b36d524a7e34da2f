"""Which head or encoder a run ships: the best one on the validation photos, or none where the plain encoder is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .evaluate import Questions, figures

BY = "mAP"  # what is compared: it moves with every photo of a ranking, R@1 with the first only


@dataclass(frozen=True)
class Candidate:
    """A trained head or encoder. arm "zero" is the plain encoder, which has one seed."""

    arm: str
    seed: int = 0

    def __str__(self) -> str:
        return self.arm if self.arm == "zero" else f"{self.arm}-{self.seed}"


@dataclass(frozen=True)
class Selection:
    """shipped: None for the plain encoder. by_validation: False where there was nothing to choose by. figures: of each
    candidate on the validation photos, {"mAP", "R@1"}."""

    shipped: Candidate | None
    by_validation: bool
    figures: Mapping[str, Mapping[str, float]]

    def as_json(self) -> dict:
        return {
            "shipped": str(self.shipped) if self.shipped else "",
            "by_validation": self.by_validation,
            "measure": BY,
            "validation": {name: dict(row) for name, row in self.figures.items()},
        }


def validation_figures(asked: Questions, scores: np.ndarray) -> dict[str, float]:
    found = figures(asked, scores=scores)
    return {name: round(float(np.nanmean(found[name])), 6) for name in (BY, "R@1")}


def best(found: Mapping[Candidate, Mapping[str, float]]) -> Candidate | None:
    """The candidate with the highest figure; None for the plain encoder, which also wins a tie. Of two equal ones the
    first."""
    order = sorted(found, key=lambda each: (-found[each][BY], each.arm != "zero"))
    return order[0] if order and order[0].arm != "zero" else None
