"""R@k, P@10, mAP, nDCG@10 and MRR of rankings."""

from __future__ import annotations

import numpy as np

MEASURES = ("R@1", "R@5", "R@10", "P@10", "mAP", "nDCG@10", "MRR")
DEPTH = 10  # of P@10 and nDCG@10


def ranked_rows(scores: np.ndarray) -> np.ndarray:
    """(P, N) scores -> (P, N) rows, best first, ties by row number."""
    return np.argsort(-scores, axis=1, kind="stable")


def ranking_figures(right: np.ndarray) -> dict[str, np.ndarray]:
    """right (P, N) bools, best first -> (P,) values of each of MEASURES; NaN for a prompt with nothing right.

    R@k: whether a right photo is among the first k. P@10, mAP, nDCG@10 (gain 1 for a right photo) and MRR over all N.
    """
    count = right.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ranks = np.arange(1, right.shape[1] + 1)
        discounts = 1 / np.log2(1 + ranks[:DEPTH])
        ideal = np.concatenate([[0], discounts.cumsum()])[np.minimum(count, len(discounts))]
        values = {f"R@{k}": right[:, :k].any(1).astype(float) for k in (1, 5, 10)}
        values["P@10"] = right[:, :DEPTH].mean(1)
        values["mAP"] = (right.cumsum(1) / ranks * right).sum(1) / count
        values["nDCG@10"] = (right[:, :DEPTH] * discounts).sum(1) / ideal
        values["MRR"] = 1 / (1 + right.argmax(1))
    return {name: np.where(count > 0, each, np.nan) for name, each in values.items()}
