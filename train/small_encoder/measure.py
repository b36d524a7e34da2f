"""Retrieval figures: a ranking of the whole gallery for each query, and what share of its top is right."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def ranked_relevance(scores: Tensor, relevant: Tensor) -> np.ndarray:
    """(Q, N) scores and bools -> (Q, N) bools, best first; ties by row number."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return relevant.gather(1, order).numpy()


def average_precision(ranked: np.ndarray) -> np.ndarray:
    """(Q,) mean over a query's relevant photos of the precision at their rank; every query needs one."""
    hits = ranked.cumsum(1)
    precision = hits / np.arange(1, ranked.shape[1] + 1)
    return (precision * ranked).sum(1) / hits[:, -1]


def figures(ranked: np.ndarray) -> dict[str, np.ndarray]:
    """For each query: mAP's part, the share of right ones in the first 10, and whether the first is right."""
    return {"mAP": average_precision(ranked), "P@10": ranked[:, :10].mean(1), "R@1": ranked[:, 0].astype(float)}


def interval(values: np.ndarray, seed: int = 0, resamples: int = 10_000) -> tuple[float, float, float]:
    """Mean and the ends of its 95 % bootstrap interval over the values (one each query, or each class)."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(1), (0.025, 0.975))
    return float(values.mean()), float(low), float(high)
