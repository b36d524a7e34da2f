"""Several experiments taken together: fixed-effect mean, heterogeneity, and from three on the random-effects mean.

Borenstein et al., Introduction to Meta-Analysis (2009), for the first two; Paule and Mandel (1982) for the variance between
experiments; Hartung and Knapp (2001) for the interval of the random-effects mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from realrag.errors import RealRAGError

from .stats import t_975

Z = 1.959963984540054  # the 97.5 % point of the normal distribution
FEWEST_RANDOM = 3  # two experiments say nothing of how experiments vary
STEPS = 200  # of the bisection, which halves an interval each time


@dataclass(frozen=True)
class Pooled:
    """fixed: [mean, low, high] with weights 1 / error^2. q, p: Cochran's Q and its p-value. i2: the fraction of the
    variance that lies between experiments. tau2 and random: the variance between experiments and the random-effects
    mean [mean, low, high]; None below FEWEST_RANDOM experiments."""

    fixed: list[float]
    error: float
    q: float
    p: float
    i2: float
    tau2: float | None = None
    random: list[float] | None = None


def pool(effects: Sequence[float], errors: Sequence[float]) -> Pooled:
    """effects, errors (K,): one mean and its standard error of each independent experiment. RealRAGError for fewer than
    two, or for an error that is not above 0."""
    effect, error = np.array(effects, float), np.array(errors, float)
    if len(effect) < 2 or len(effect) != len(error):
        raise RealRAGError(f"{len(effect)} effects and {len(error)} errors: pooling needs two or more experiments.")
    if not (np.isfinite(effect).all() and np.isfinite(error).all() and (error > 0).all()):
        raise RealRAGError(
            f"The standard errors are {', '.join(f'{each:g}' for each in error)}; each must be above 0. Leave that experiment out."
        )
    weight, freedom = error**-2, len(effect) - 1
    mean, its_error = float(effect @ weight / weight.sum()), float(weight.sum() ** -0.5)
    q = float((weight * (effect - mean) ** 2).sum())
    fixed = [mean, mean - Z * its_error, mean + Z * its_error]
    i2 = max(0.0, 1 - freedom / q) if q else 0.0
    if len(effect) < FEWEST_RANDOM:
        return Pooled(fixed, its_error, q, chi2_above(q, freedom), i2)
    tau2 = paule_mandel(effect, error)
    return Pooled(fixed, its_error, q, chi2_above(q, freedom), i2, tau2, hartung_knapp(effect, error, tau2))


def chi2_above(value: float, freedom: int) -> float:
    """The probability that chi-squared exceeds a value."""
    halves = torch.tensor([freedom / 2, value / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(halves[0], halves[1]))


def paule_mandel(effect: np.ndarray, error: np.ndarray) -> float:
    """The variance between experiments at which the weighted sum of squares equals its expectation, K - 1; 0 if the
    experiments differ by less than chance."""

    def excess(tau2: float) -> float:
        weight = 1 / (error**2 + tau2)
        return float((weight * (effect - effect @ weight / weight.sum()) ** 2).sum()) - (len(effect) - 1)

    low, high = 0.0, float(((effect - effect.mean()) ** 2).sum()) + float((error**2).max())
    if excess(low) <= 0:
        return 0.0
    while excess(high) > 0:
        high *= 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def hartung_knapp(effect: np.ndarray, error: np.ndarray, tau2: float) -> list[float]:
    """[mean, low, high] of the random-effects mean, by Student's t with K - 1 degrees of freedom."""
    weight = 1 / (error**2 + tau2)
    mean, freedom = float(effect @ weight / weight.sum()), len(effect) - 1
    scale = float((weight * (effect - mean) ** 2).sum()) / freedom
    wide = t_975(freedom) * math.sqrt(scale / float(weight.sum()))
    return [mean, mean - wide, mean + wide]
