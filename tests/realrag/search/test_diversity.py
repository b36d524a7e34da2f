"""Near-duplicate removal and MMR, against slow twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit_rows import unit

from realrag.search import diversity as module
from realrag.search.diversity import drop_near_duplicates, mmr


def candidates(seed, count, dim=8):
    """(scores, embeddings) of a search: some pictures twice, best first."""
    rng = np.random.default_rng(seed)
    embeddings = unit(rng.standard_normal((count, dim)))
    embeddings[count // 2 :] = embeddings[rng.integers(0, max(1, count // 2), count - count // 2)]
    embeddings = unit(embeddings + 0.01 * rng.standard_normal((count, dim)))
    scores = embeddings @ unit(rng.standard_normal((1, dim)))[0]
    order = np.argsort(-scores)
    return scores[order], embeddings[order]


def slow_duplicates(embeddings, threshold):
    kept = []
    for i, row in enumerate(embeddings):
        if all(float(row @ embeddings[j]) < threshold for j in kept):
            kept.append(i)
    return kept


def slow_mmr(scores, embeddings, k, diversity):
    chosen, rest = [], list(range(len(scores)))
    while rest and len(chosen) < k:

        def value(i):
            likeness = max((float(embeddings[i] @ embeddings[j]) for j in chosen), default=None)
            return float(scores[i]) if likeness is None else (1 - diversity) * scores[i] - diversity * likeness

        best = max(rest, key=lambda i: (value(i), -i))
        chosen.append(best)
        rest.remove(best)
    return chosen


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(0, 60), block=st.sampled_from([1, 7, 1024]))
def test_near_duplicates_are_dropped_as_the_slow_twin_drops_them(seed, count, block):
    _, embeddings = candidates(seed, count)
    old, module.BLOCK = module.BLOCK, block
    try:
        assert drop_near_duplicates(embeddings, 0.98).tolist() == slow_duplicates(embeddings, 0.98)
    finally:
        module.BLOCK = old


def test_the_better_of_two_equal_pictures_stays():
    embeddings = unit(np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]]))
    assert drop_near_duplicates(embeddings, 0.995).tolist() == [0, 1]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(0, 40),
    k=st.integers(1, 50),
    diversity=st.sampled_from([0, 0.1, 0.5, 0.9]),
)
def test_mmr_chooses_as_the_slow_twin_chooses(seed, count, k, diversity):
    scores, embeddings = candidates(seed, count)
    assert mmr(scores, embeddings, k, diversity).tolist() == slow_mmr(scores, embeddings, k, diversity)


def test_mmr_without_diversity_ranks_by_score():
    scores = np.array([0.1, 0.3, 0.2, 0.3], np.float32)
    assert mmr(scores, np.eye(4), 4, 0.0).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_the_best_match_comes_first_however_much_diversity_is_asked(diversity):
    scores, embeddings = candidates(3, 20)
    assert mmr(scores, embeddings, 5, diversity)[0] == 0


def test_diversity_prefers_another_picture_over_the_same_one_again():
    embeddings = unit(np.array([[1.0, 0], [1, 0.01], [0.6, 0.8]]))
    assert mmr(np.array([0.3, 0.299, 0.25]), embeddings, 2, 0.5).tolist() == [0, 2]
