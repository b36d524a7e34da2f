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
FUSE = 60  # k of reciprocal rank fusion, as in the paper


class Ranking(NamedTuple):
    """rows (M,) int64, best first. scores (M,) float32: cosines with the query. found (M,): how each was found."""

    rows: np.ndarray
    scores: np.ndarray
    found: np.ndarray


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
    named = _named(index, vectors, lexicon.named(text), lexicon, query, pool, allowed)
    if len(named.rows) >= pool:
        return named
    asked, wanted = lexicon.ask(text), pool + len(named.rows)
    hits = _besides(named, asked.best(wanted, allowed))
    rows, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    if by == NAME:
        hits = hits.where(hits.matched >= CERTAIN)
    else:
        scores, rows = (found[0] for found in index.search(query[None], wanted, allowed))
        rows, scores = _besides(named, Hits(rows, scores))
    hits, cosine = _best_hits(vectors, query, hits, pool)
    fused = _fused(hits, cosine, Hits(rows, asked.matched(rows)), scores)
    return _behind(named, fused) if len(named.rows) else fused


def _besides(named: Ranking, hits: Hits) -> Hits:
    """The hits without the photos that were found by name."""
    return hits.where(~np.isin(hits.rows, named.rows)) if len(named.rows) else hits


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
    """hits: what words found, with their cosines (M,). looks: what look found, best first, with scores (P,); `matched` is
    how much the words of these match."""
    every = distinct(np.concatenate([hits.rows, looks.rows]))
    by_words, by_look = every.searchsorted(hits.rows), every.searchsorted(looks.rows)
    value, matched, cosines_of = (
        np.zeros(len(every)),
        np.empty(len(every), np.float32),
        np.empty(len(every), np.float32),
    )
    matched[by_words], matched[by_look] = hits.matched, looks.matched
    cosines_of[by_words], cosines_of[by_look] = cosine, scores
    value[by_look] = 1 / (FUSE + 1 + np.arange(len(looks.rows)))
    levels = distinct(matched)  # ascending; equal captions share a rank
    ranks = len(levels) - levels.searchsorted(matched)
    value += matched * np.where(matched >= CERTAIN, 1, PARTIAL) / (FUSE + ranks)
    order = np.lexsort((every, -cosines_of, -value))
    found = np.where(matched >= CERTAIN, BY_CAPTION, BY_LOOK).astype(object)
    return Ranking(every[order], cosines_of[order], found[order])


def _behind(first: Ranking, second: Ranking) -> Ranking:
    return Ranking(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
