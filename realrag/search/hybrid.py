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
from .postings import Hits

BY_LOOK, BY_CAPTION, BY_NAME = "by look", "by caption", "by name"
BOTH, LOOK, NAME = "both", "look", "name"  # what to find by
CERTAIN = 0.8  # share of a question's weight that a photo's words carry, from which it counts as found by caption
PARTIAL = 0.5  # of a caption's say where it matches less: "green" of "green apples" must not beat what looks right
MOST_TIED = 256  # photos that match a text equally well, compared by look
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
    hits = lexicon.hits(text, allowed)
    fresh = ~np.isin(hits.rows, named.rows)
    hits = Hits(hits.rows[fresh], hits.matched[fresh])
    if by == NAME:
        sure = hits.matched >= CERTAIN
        hits = _best_hits(vectors, query, Hits(hits.rows[sure], hits.matched[sure]), pool)
        return _behind(named, _fused(vectors, query, hits, np.empty(0, np.int64), np.empty(0, np.float32)))
    scores, rows = (found[0] for found in index.search(query[None], pool + len(named.rows), allowed))
    fresh = ~np.isin(rows, named.rows)
    hits = _best_hits(vectors, query, hits, pool)
    return _behind(named, _fused(vectors, query, hits, rows[fresh], scores[fresh]))


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


def _best_hits(vectors, query, hits: Hits, pool: int) -> Hits:
    """The `pool` hits that match most; among equals those that look best."""
    if len(hits.rows) <= pool:
        return hits
    edge = np.partition(hits.matched, -pool)[-pool]
    above = hits.matched > edge
    tied = hits.rows[hits.matched == edge]
    wanted = pool - int(above.sum())
    tied = tied[:: max(1, len(tied) // max(MOST_TIED, wanted))]  # evenly; what looks best of all comes by look as well
    best = search_exactly(vectors, query[None], wanted, tied)[1][0]
    rows = np.concatenate([hits.rows[above], best])
    return Hits(rows, np.concatenate([hits.matched[above], np.full(len(best), edge, np.float32)]))


def _fused(vectors, query, hits: Hits, rows: np.ndarray, scores: np.ndarray) -> Ranking:
    """rows (P,), scores (P,): what look found, best first."""
    every = np.union1d(hits.rows, rows).astype(np.int64)
    value, matched = np.zeros(len(every)), np.zeros(len(every), np.float32)
    cosine = np.full(len(every), np.nan, np.float32)
    by_look = np.searchsorted(every, rows)
    cosine[by_look] = scores
    value[by_look] += 1 / (FUSE + 1 + np.arange(len(rows)))
    by_words = np.searchsorted(every, hits.rows)
    matched[by_words] = hits.matched
    levels = np.unique(hits.matched)  # ascending; equal captions share a rank
    ranks = len(levels) - np.searchsorted(levels, hits.matched)
    value[by_words] += hits.matched * np.where(hits.matched >= CERTAIN, 1, PARTIAL) / (FUSE + ranks)
    unseen = np.flatnonzero(np.isnan(cosine))
    cosine[unseen] = cosines(vectors, every[unseen], query)
    order = np.lexsort((every, -cosine, -value))
    found = np.where(matched >= CERTAIN, BY_CAPTION, BY_LOOK).astype(object)
    return Ranking(every[order], cosine[order], found[order])


def _behind(first: Ranking, second: Ranking) -> Ranking:
    return Ranking(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
