"""95 % bootstrap intervals that draw classes with all their values: pictures of one class are no independent witnesses
of how others fare."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RESAMPLES = 10_000
BOUNDS = 0.025, 0.975


def interval(values: np.ndarray, classes: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> list[float]:
    """[mean, low, high] of the mean of values (N,), with classes (N,); NaN does not count."""
    kept = ~np.isnan(values)
    if not kept.any():
        return [float("nan")] * 3
    values, (_, code) = values[kept], np.unique(classes[kept], return_inverse=True)
    total, count = np.bincount(code, values), np.bincount(code)
    drawn = np.random.default_rng(seed).integers(0, len(total), (resamples, len(total)))
    low, high = np.quantile(total[drawn].sum(1) / count[drawn].sum(1), BOUNDS)
    return [float(values.mean()), float(low), float(high)]


def interval_of(
    figure: Callable[[np.ndarray], float], classes: np.ndarray, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """(low, high) of any figure of rows of classes (N,), such as a ratio, which may be infinite."""
    dice, own = np.random.default_rng(seed), [np.flatnonzero(classes == c) for c in np.unique(classes)]
    drawn = (np.concatenate([own[i] for i in dice.integers(len(own), size=len(own))]) for _ in range(resamples))
    return tuple(float(value) for value in np.quantile([figure(rows) for rows in drawn], BOUNDS, method="nearest"))
