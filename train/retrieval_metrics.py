"""R@k, P@10, mAP, nDCG@10 and MRR of rankings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

MEASURES = ("R@1", "R@5", "R@10", "P@10", "mAP", "nDCG@10", "MRR")
SHORT = ("mAP", "P@10", "R@1")  # what reports of the small encoder hold
DEPTH = 10  # of P@10 and nDCG@10


def ranked_rows(scores: ArrayLike) -> np.ndarray:
    """(P, N) scores -> (P, N) row numbers, best first. Ties go by row number."""
    return np.argsort(-np.asarray(scores), axis=1, kind="stable")


def ranked_relevance(scores: ArrayLike, relevant: ArrayLike) -> np.ndarray:
    """(P, N) scores and bools -> (P, N) bools, best first."""
    return np.take_along_axis(np.asarray(relevant), ranked_rows(scores), 1)


def ranking_figures(relevant: np.ndarray, measures: Sequence[str] = MEASURES) -> dict[str, np.ndarray]:
    """(P, N) bools, best first -> (P,) values of each of `measures`. NaN for a prompt without a relevant photo.

    R@k is 1 if a relevant photo is among the first k. P@10 and nDCG@10 look at the first ten (at all where there are
    fewer); nDCG has gain 1 for a relevant photo. mAP and MRR look at the whole ranking.
    """
    count = relevant.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ranks = np.arange(1, relevant.shape[1] + 1)
        discounts = 1 / np.log2(1 + ranks[:DEPTH])
        ideal = np.concatenate([[0], discounts.cumsum()])[np.minimum(count, len(discounts))]
        values = {f"R@{k}": relevant[:, :k].any(1).astype(float) for k in (1, 5, 10)}
        values["P@10"] = relevant[:, :DEPTH].mean(1)
        values["mAP"] = (relevant.cumsum(1) / ranks * relevant).sum(1) / count
        values["nDCG@10"] = (relevant[:, :DEPTH] * discounts).sum(1) / ideal
        values["MRR"] = 1 / (1 + relevant.argmax(1))
    return {name: np.where(count > 0, values[name], np.nan) for name in measures}
