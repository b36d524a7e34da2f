"""One ranking of what words and vectors find: photos of a class that the text names first, then captions and look, fused.

Photos of one named class are tied: all share a rank, and the vectors decide among them. (Ties ranked by row number put
the wrong photo of the class first: P@5 0.87 in place of 1.0.) Behind them captions and look are fused by rank
(reciprocal rank fusion, Cormack et al. 2009), where equal captions share a rank as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from .exact import cosines, search_exactly
from .index import EXACT_SUBSET, Index
from .lexicon import Lexicon
from .postings import AskedWords, Hits, distinct

BY_LOOK, BY_CAPTION, BY_NAME = "by look", "by caption", "by name"
PINNED = "pinned"  # not found, but chosen by somebody
BOTH, LOOK, NAME = "both", "look", "name"  # what to find by
CERTAIN = 0.8  # fraction of a question's weight that a photo's words carry, from which it counts as found by caption
PARTIAL = 0.5  # of a caption's weight where it matches less: "green" of "green apples" must not beat what looks right
_FOUND = np.array([BY_LOOK, BY_CAPTION], object)
FUSE = 60  # k of reciprocal rank fusion, as in the paper


Found = TypeVar("Found")


class Ranking(NamedTuple):
    """rows (M,) int64, best first. scores (M,) float32: cosines with the query. found (M,): how each was found."""

    rows: np.ndarray
    scores: np.ndarray
    found: np.ndarray


_pool: ThreadPoolExecutor | None = None


def _meanwhile(work: Callable[[], Found]) -> Callable[[], Found]:
    """Begins `work` in a thread; what comes back waits for its result. faiss lets Python go while it searches, on one core
    for one query, so that words cost next to nothing where there is a second."""
    global _pool
    _pool = _pool or ThreadPoolExecutor(1, "realrag-words")
    return _pool.submit(work).result


def _after_fork() -> None:
    """A child process has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # not on Windows, which knows no fork
    os.register_at_fork(after_in_child=_after_fork)

NONE = Ranking(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, object))


def rank(
    index: Index,
    vectors: np.ndarray,
    lexicon: Lexicon,
    query: np.ndarray,
    text: str,
    pool: int,
    allowed: np.ndarray | None = None,
    by: str = BOTH,
) -> Ranking:
    """At most about `pool` candidates of each kind. vectors (N, D) unit rows; query (D,) float32 unit; allowed (N,) bool."""
    groups = lexicon.named(text)
    named = _named(index, vectors, groups, lexicon, query, pool, allowed) if groups else NONE
    if len(named.rows) >= pool:
        return named
    wanted = pool + len(named.rows)

    def by_words() -> tuple[AskedWords, Hits, np.ndarray]:
        asked = lexicon.ask(text)
        hits = asked.best(wanted, allowed)
        hits = hits.where(hits.matched >= CERTAIN) if by == NAME else hits
        return asked, hits, cosines(vectors, hits.rows, query)

    rows, scores = NONE.rows, NONE.scores
    if by == NAME:
        asked, hits, cosine = by_words()
    else:
        words = _meanwhile(by_words) if len(vectors) > EXACT_SUBSET else by_words
        scores, rows = (found[0] for found in index.search(query[None], wanted, allowed))
        if len(named.rows):
            kept = _not_in(named.rows, rows)
            rows, scores = rows[kept], scores[kept]
        asked, hits, cosine = words()
    # What a name or look found has its place already.
    kept = _not_in(np.concatenate([named.rows, rows]) if groups else rows, hits.rows)
    hits, cosine = _best_hits(hits.where(kept), cosine[kept], pool)
    fused = _fused(hits, cosine, Hits(rows, asked.matched(rows)), scores)
    return _behind(named, fused) if len(named.rows) else fused


def _not_in(taken: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(M,) bool: which of `rows` (M,) are not among `taken`."""
    if not len(taken):
        return np.ones(len(rows), bool)
    ascending = np.sort(taken)
    return ascending.take(ascending.searchsorted(rows), mode="clip") != rows


def _named(index, vectors, groups: Sequence[tuple[int, ...]], lexicon, query, pool, allowed) -> Ranking:
    """The photos of the named classes; of several classes one photo each in turn."""
    lists = []
    for codes in groups:
        rows = lexicon.rows_of(codes)
        rows = rows if allowed is None else rows[allowed[rows]]
        if len(rows) > EXACT_SUBSET:
            mask = np.zeros(len(vectors), bool)
            mask[rows] = True
            scores, best = index.search(query[None], pool, mask)
        else:
            scores, best = search_exactly(vectors, query[None], min(pool, len(rows)), rows)
        lists.append((scores[0], best[0]))
    turns = [(turn, number) for number, (_, rows) in enumerate(lists) for turn in range(len(rows))]
    places: dict[int, float] = {}
    for turn, number in sorted(turns):
        scores, rows = lists[number]
        places.setdefault(int(rows[turn]), float(scores[turn]))
    return Ranking(
        np.array(list(places), np.int64),
        np.array(list(places.values()), np.float32),
        np.full(len(places), BY_NAME, object),
    )


def _best_hits(hits: Hits, scores: np.ndarray, pool: int) -> tuple[Hits, np.ndarray]:
    """The `pool` hits that match most, among equals those that look best by their cosines (M,), and these (pool,)."""
    if len(hits.rows) > pool:
        best = np.lexsort((-scores, -hits.matched))[:pool]
        hits, scores = hits.where(best), scores[best]
    return hits, scores


def _fused(hits: Hits, cosine: np.ndarray, looks: Hits, scores: np.ndarray) -> Ranking:
    """hits: what words alone found, with their cosines (M,). looks: what look found, best first, with scores (P,);
    `matched` is how much the words of these match."""
    rows, matched = np.concatenate([looks.rows, hits.rows]), np.concatenate([looks.matched, hits.matched])
    cosines_of = np.concatenate([scores, cosine])
    levels = distinct(matched)  # ascending; equal captions share a rank
    ranks = len(levels) - levels.searchsorted(matched)
    certain = matched >= CERTAIN
    value = matched * np.where(certain, 1, PARTIAL) / (FUSE + ranks)
    value[: len(scores)] += 1 / (FUSE + 1 + np.arange(len(scores)))
    order = np.lexsort((rows, -cosines_of, -value))
    return Ranking(rows[order], cosines_of[order], _FOUND[certain[order].view(np.int8)])


def _behind(first: Ranking, second: Ranking) -> Ranking:
    return Ranking(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
