"""P-values by resampling classes, Holm's correction of several, and the slope of one figure of a class on another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .stats import FEWEST, RESAMPLES, percentiles, resampled_means

DIGITS = 12  # means that differ from 0 by less are 0: averages over seeds leave such remainders


def p_value(values: np.ndarray, classes: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Twice the smaller share of resampled means of values (N,) on one side of 0; classes (N,) are resampled.

    A mean of exactly 0 counts on both sides, so that two arms with the same pictures have the p-value 1."""
    means = resampled_means(values, classes, seed, resamples).round(DIGITS)
    return float(min(1.0, 2 * min((means <= 0).mean(), (means >= 0).mean())))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's step-down correction (1979), in the given order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = largest
    return corrected


def slope(x: np.ndarray, y: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> list[float]:
    """[slope, low, high] of y (C,) on x (C,) by least squares. The interval resamples classes, one pair each.

    NaN where x does not vary; the bounds are NaN below FEWEST classes too. Resamples in which x does not vary are left
    out."""
    value, nan = float(_slopes(x, y)), float("nan")
    if np.isnan(value) or len(x) < FEWEST:
        return [value, nan, nan]
    drawn = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    found = _slopes(x[drawn], y[drawn])
    return [value, *percentiles(found[~np.isnan(found)])]


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the last axis; NaN where x does not vary."""
    apart = x - x.mean(-1, keepdims=True)
    spread, shared = (apart**2).sum(-1), (apart * (y - y.mean(-1, keepdims=True))).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-12, shared / spread, np.nan)
