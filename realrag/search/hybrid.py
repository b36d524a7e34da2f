"""One ranking of what words and vectors find: photos of a class that the text names first, then captions and look, fused.

Photos of one named class are tied: all share a rank, and the vectors decide among them. (Ties ranked by row number put
the wrong photo of the class first: P@5 0.87 in place of 1.0.) Behind them captions and look are fused by rank
(reciprocal rank fusion, Cormack et al. 2009), where equal captions share a rank as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .index import EXACT_SUBSET, Index, cosines, search_exactly
from .lexicon import Lexicon
from .postings import Hits, distinct

BY_LOOK, BY_CAPTION, BY_NAME = "by look", "by caption", "by name"
BOTH, LOOK, NAME = "both", "look", "name"  # what to find by
CERTAIN = 0.8  # fraction of a question's weight that a photo's words carry, from which it counts as found by caption
PARTIAL = 0.5  # of a caption's weight where it matches less: "green" of "green apples" must not beat what looks right
_FOUND = np.array([BY_LOOK, BY_CAPTION], object)
FUSE = 60  # k of reciprocal rank fusion, as in the paper


class Ranking(NamedTuple):
    """rows (M,) int64, best first. scores (M,) float32: cosines with the query. found (M,): how each was found."""

    rows: np.ndarray
    scores: np.ndarray
    found: np.ndarray


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
    asked, wanted = lexicon.ask(text), pool + len(named.rows)
    hits = asked.best(wanted, allowed)
    rows, scores = NONE.rows, NONE.scores
    if by == NAME:
        hits = hits.where(hits.matched >= CERTAIN)
    else:
        scores, rows = (found[0] for found in index.search(query[None], wanted, allowed))
        if len(named.rows):
            kept = _not_in(named.rows, rows)
            rows, scores = rows[kept], scores[kept]
    # What a name or look found has its place already.
    hits = hits.where(_not_in(np.concatenate([named.rows, rows]) if groups else rows, hits.rows))
    hits, cosine = _best_hits(vectors, query, hits, pool)
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


def _best_hits(vectors, query, hits: Hits, pool: int) -> tuple[Hits, np.ndarray]:
    """The `pool` hits that match most, among equals those that look best, and their cosines (pool,)."""
    scores = cosines(vectors, hits.rows, query)
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
