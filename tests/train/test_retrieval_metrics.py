"""The figures of a ranking, against a slow twin written from the definitions and against torchmetrics."""

import math

import numpy as np
import pytest
import torch

from realrag_train.retrieval_metrics import MEASURES, SHORT, ranked_relevance, ranked_rows, ranking_figures


def slow_figures(right: list[bool]) -> dict[str, float]:
    """One ranking at a time, as the definitions read."""
    if not any(right):
        return dict.fromkeys(MEASURES, math.nan)
    values = {f"R@{k}": float(any(right[:k])) for k in (1, 5, 10)}
    values["P@10"] = sum(right[:10]) / min(10, len(right))
    hits, precisions = 0, []
    for rank, yes in enumerate(right, 1):
        if yes:
            hits += 1
            precisions.append(hits / rank)
    values["mAP"] = sum(precisions) / len(precisions)
    gained = sum(1 / math.log2(1 + rank) for rank, yes in enumerate(right[:10], 1) if yes)
    values["nDCG@10"] = gained / sum(1 / math.log2(1 + rank) for rank in range(1, min(10, sum(right)) + 1))
    values["MRR"] = 1 / (1 + right.index(True))
    return values


@pytest.mark.parametrize("length", [3, 10, 40])
def test_every_figure_equals_its_slow_twin(length):
    rng = np.random.default_rng(length)
    right = rng.random((200, length)) < 0.2
    values = ranking_figures(right)
    for row, truth in enumerate(right):
        for name, expected in slow_figures([bool(v) for v in truth]).items():
            np.testing.assert_allclose(values[name][row], expected, rtol=1e-12, err_msg=name)


def test_figures_equal_those_of_torchmetrics():
    retrieval = pytest.importorskip("torchmetrics.retrieval")
    theirs = {
        **{f"R@{k}": retrieval.RetrievalHitRate(top_k=k) for k in (1, 5, 10)},
        "P@10": retrieval.RetrievalPrecision(top_k=10),
        "mAP": retrieval.RetrievalMAP(),
        "nDCG@10": retrieval.RetrievalNormalizedDCG(top_k=10),
        "MRR": retrieval.RetrievalMRR(),
    }
    rng = np.random.default_rng(4)
    scores, relevant = rng.random((50, 30)), rng.random((50, 30)) < 0.15
    relevant[:, 0] |= ~relevant.any(1)  # a query without a relevant photo is NaN here and 0 there
    values = ranking_figures(ranked_relevance(scores, relevant))
    query = torch.arange(50).repeat_interleave(30)
    for name, metric in theirs.items():
        metric.update(torch.from_numpy(scores).flatten(), torch.from_numpy(relevant).flatten(), indexes=query)
        assert values[name].mean() == pytest.approx(float(metric.compute()), rel=1e-5), name
    assert set(theirs) == set(MEASURES)


def test_equal_scores_are_ranked_by_row_number():
    assert ranked_rows(np.array([[1.0, 2, 2, 1]])).tolist() == [[1, 2, 0, 3]]


def test_ranking_puts_the_best_first_and_ties_in_row_order():
    scores, relevant = torch.tensor([[0.1, 0.9, 0.9, 0.5]]), torch.tensor([[True, True, False, False]])
    assert ranked_relevance(scores, relevant).tolist() == [[True, False, False, True]]


def test_a_ranking_done_by_hand():
    ranked = np.array([[1, 0, 1, 0], [0, 0, 0, 1]], bool)
    values = ranking_figures(ranked, SHORT)
    assert tuple(values) == SHORT
    np.testing.assert_allclose(values["mAP"], [(1 / 1 + 2 / 3) / 2, 1 / 4])
    assert values["R@1"].tolist() == [1, 0]
