"""The best of many photos whose words match: found without looking at every row, and the same as by looking at all."""

import numpy as np
import pytest

from realrag.bench.clustered_vectors import clustered_vectors, text_queries
from realrag.search import hybrid, postings
from realrag.search.exact import cosines
from realrag.search.hybrid import _best_hits, rank
from realrag.search.index import ExactIndex
from realrag.search.lexicon import Lexicon
from realrag.search.postings import MOST_TIED, Hits, Postings
from realrag.search.postings_file import build_postings

NAMES = [f"w{chr(97 + i)}n" for i in range(12)]


def library(count=3000, seed=0) -> Postings:
    """Captions of 1 to 5 words, the first of which are common and the last rare."""
    rng = np.random.default_rng(seed)
    numbers = (12 ** rng.random((count, 5))).astype(int) - 1
    lengths = rng.integers(1, 6, count)
    return build_postings([" ".join(NAMES[n] for n in row[:m]) for row, m in zip(numbers, lengths, strict=True)], count)


@pytest.mark.parametrize("first", [1, 50, 100_000])
@pytest.mark.parametrize("count", [1, 7, 32, 500, 5000])
@pytest.mark.parametrize("filtered", [False, True])
def test_the_best_are_those_of_all_hits(monkeypatch, first, count, filtered):
    monkeypatch.setattr(postings, "FIRST", first)
    made, rng = library(), np.random.default_rng(1)
    allowed = rng.random(3000) < 0.4 if filtered else None
    for text in [" ".join(rng.choice(NAMES, size, replace=False)) for size in (1, 2, 3, 6, 12)]:
        asked = made.ask(text)
        every, best = asked.hits(allowed), asked.best(count, allowed)
        kept = dict(zip(every.rows.tolist(), every.matched.tolist(), strict=True))
        assert all(kept[row] == matched for row, matched in zip(best.rows.tolist(), best.matched.tolist(), strict=True))
        assert (np.diff(best.rows) > 0).all()
        wanted = min(count, len(kept))
        assert sorted(best.matched.tolist(), reverse=True)[:wanted] == sorted(kept.values(), reverse=True)[:wanted]
        assert len(best.rows) <= wanted + 2 * MOST_TIED


def test_rows_are_told_what_they_match_whether_found_or_not():
    made = library()
    asked = made.ask("wan wdn wkn")
    every = asked.hits()
    matched = np.zeros(3000, np.float32)
    matched[every.rows] = every.matched
    assert (asked.matched(np.arange(3000)) == matched).all() and 0 < len(every.rows) < 3000


def test_photos_with_the_same_words_match_equally_in_any_order():
    made = build_postings(["red small car", "car red small", "small car, red"] * 600 + ["blue"] * 900, 2700)
    for found in (made.ask("a small red blue car").best(40), made.ask("red car").best(40)):
        assert len(set(found.matched.tolist())) == 1


@pytest.mark.parametrize("pool", [1, 63, 64, 65, 272, 999, 1000])
@pytest.mark.parametrize("better", [0, 1, 200])
def test_equal_matches_fill_the_pool(pool, better):
    vectors = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
    matched = np.full(1000, 0.5, np.float32)
    matched[:better] = 0.9
    scores = cosines(vectors, np.arange(1000), vectors[0])
    found, best = _best_hits(Hits(np.arange(1000), matched), scores, pool)
    assert len(found.rows) == len(found.matched) == len(best) == len(set(found.rows.tolist())) == pool
    assert (found.matched == 0.9).sum() == min(pool, better)
    assert best == pytest.approx(vectors[found.rows] @ vectors[0], abs=1e-6)


def test_a_large_library_asks_for_words_in_a_thread_and_answers_alike(monkeypatch):
    rng = np.random.default_rng(2)
    vectors = clustered_vectors(3000, 16, dtype=np.float32)
    texts = [" ".join(rng.choice(NAMES, 4)) for _ in range(3000)]
    lexicon = Lexicon([""], np.zeros(3000, np.int32), lambda: texts, "toy")

    def answers():
        return [
            rank(ExactIndex(vectors), vectors, lexicon, query, " ".join(rng.choice(NAMES, 3)), 20)
            for query in text_queries(5, 16)
        ]

    rng = np.random.default_rng(3)
    alone = answers()
    monkeypatch.setattr(hybrid, "EXACT_SUBSET", 10)
    for _ in range(2):
        rng = np.random.default_rng(3)
        for found, right in zip(answers(), alone, strict=True):
            assert all(np.array_equal(*pair) for pair in zip(found, right, strict=True))
        hybrid._after_fork()  # a child process begins a thread of its own
    with pytest.raises(AttributeError):  # what fails in the thread fails here
        rank(ExactIndex(vectors), vectors, lexicon, text_queries(1, 16)[0], None, 20)


@pytest.mark.parametrize("pool", [1, MOST_TIED, 272, 999, 1000])
def test_as_many_as_are_wanted_come_of_equal_captions(pool):
    made = build_postings(["a puffin"] * 1000 + ["sea"] * 2000, 3000)
    found = made.ask("puffin").best(pool)
    assert pool <= len(found.rows) <= max(pool + MOST_TIED, 2 * MOST_TIED)
