"""One ranking of what words and vectors find: photos of a class that the text names first, then captions and look, fused.

Photos of one named class are tied by their name: the other words of the text and the vectors decide among them, and the vectors
alone where the words do not. (Ties ranked by row number put the wrong photo of the class first: P@5 0.87 in place of 1.0.)
Words and look are fused by rank (reciprocal rank fusion, Cormack et al. 2009), where equal captions share a rank as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from ..prompts.subject import subject_of
from ..prompts.words import words
from .exact import cosines, search_exactly
from .index import EXACT_SUBSET, Index
from .lexicon import Lexicon
from .names import is_made_up
from .postings import Hits, distinct

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


class Sought:
    """The words of a text, and those of what it is about: its subject, and the names in it that are no words ("Gruñón angry",
    "an astronaut riding zoecat"). A photo with all words of either is found by them."""

    def __init__(self, lexicon: Lexicon, text: str):
        self._whole = lexicon.ask(text)
        called = " ".join(word for word in dict.fromkeys(words(text)) if is_made_up(word))
        self._about = [lexicon.ask(about) for about in {subject_of(text), called} if about not in ("", text)]

    def best(self, count: int, allowed: np.ndarray | None) -> Hits:
        hits = self._whole.best(count, allowed)
        found = [about.best(count, allowed) for about in self._about]
        if not found:
            return hits
        rows = distinct(np.concatenate([hits.rows, *(more.where(more.matched >= CERTAIN).rows for more in found)]))
        return Hits(rows, self._whole.matched(rows))

    def matched(self, rows: np.ndarray) -> np.ndarray:
        """(M,) float32: how much of the whole text these rows (M,) match."""
        return self._whole.matched(rows)

    def certain(self, hits: Hits) -> np.ndarray:
        """(M,) bool: whose words carry nearly all of the text, or of what it is about."""
        sure = hits.matched >= CERTAIN
        for about in self._about:
            sure = sure | (about.matched(hits.rows) >= CERTAIN)
        return sure


def rank(
    index: Index,
    vectors: np.ndarray,
    lexicon: Lexicon,
    query: np.ndarray,
    text: str,
    pool: int,
    allowed: np.ndarray | None = None,
    by: str = BOTH,
    called: Sequence[int] = (),
) -> Ranking:
    """At most about `pool` candidates of each kind. vectors (N, D) unit rows; query (D,) float32 unit; allowed (N,) bool.
    called: rows whose file the text names, which come first."""
    groups = lexicon.named(text)
    named = _named(index, vectors, groups, lexicon, query, text, pool, allowed) if groups else NONE
    if len(called):
        rows = np.array([row for row in called if allowed is None or allowed[row]], np.int64)
        own = Ranking(rows, cosines(vectors, rows, query), np.full(len(rows), BY_NAME, object))
        named = _behind(own, Ranking(*(part[_not_in(rows, named.rows)] for part in named)))
    if len(named.rows) >= pool:
        return named
    wanted = pool + len(named.rows)

    def by_words() -> tuple[Sought, Hits, np.ndarray]:
        asked = Sought(lexicon, text)
        hits = asked.best(wanted, allowed)
        hits = hits.where(asked.certain(hits)) if by == NAME else hits
        return asked, hits, cosines(vectors, hits.rows, query)

    rows, scores = NONE.rows, NONE.scores
    if by == NAME:
        asked, hits, cosine = by_words()
    else:
        reading = _meanwhile(by_words) if len(vectors) > EXACT_SUBSET else by_words
        scores, rows = (found[0] for found in index.search(query[None], wanted, allowed))
        if len(named.rows):
            kept = _not_in(named.rows, rows)
            rows, scores = rows[kept], scores[kept]
        asked, hits, cosine = reading()
    # What a name or look found has its place already.
    kept = _not_in(np.concatenate([named.rows, rows]), hits.rows)
    hits, cosine = _best_hits(hits.where(kept), cosine[kept], pool)
    fused = _fused(asked, hits, cosine, Hits(rows, asked.matched(rows)), scores)
    return _behind(named, fused) if len(named.rows) else fused


def _not_in(taken: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(M,) bool: which of `rows` (M,) are not among `taken`."""
    if not len(taken):
        return np.ones(len(rows), bool)
    ascending = np.sort(taken)
    return ascending.take(ascending.searchsorted(rows), mode="clip") != rows


def _named(index, vectors, groups: Sequence[tuple[int, ...]], lexicon, query, text, pool, allowed) -> Ranking:
    """The photos of the named classes; of several classes one photo each in turn."""
    lists, asked = [], lexicon.ask(text)
    for codes in groups:
        rows = lexicon.rows_of(codes)
        rows = rows if allowed is None else rows[allowed[rows]]
        if len(rows) > EXACT_SUBSET:
            mask = np.zeros(len(vectors), bool)
            mask[rows] = True
            scores, best = index.search(query[None], pool, mask)
        else:
            scores, best = search_exactly(vectors, query[None], min(pool, len(rows)), rows)
        lists.append(_by_words_too(asked, rows, best[0], scores[0], vectors, query, pool))
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


def _by_words_too(asked, rows, best, scores, vectors, query, pool) -> tuple[np.ndarray, np.ndarray]:
    """(scores, rows) of one class, by look and by the words that stand beside its photos. rows: all of the class; best: those
    that look best, with scores."""
    hits = asked.within(rows)
    most = hits.matched.max(initial=0.0)
    if not len(hits.rows) or (len(hits.rows) == len(rows) and hits.matched.min() == most):
        return scores, best  # the name alone is beside them all
    hits, _ = _best_hits(hits, np.zeros(len(hits.rows), np.float32), pool)
    more = hits.rows[_not_in(best, hits.rows)]
    rows, scores = np.concatenate([best, more]), np.concatenate([scores, cosines(vectors, more, query)])
    look = np.lexsort((rows, -scores))
    rows, scores = rows[look], scores[look]
    value = _by_rank(asked.matched(rows)) + 1 / (FUSE + 1 + np.arange(len(rows)))
    order = np.argsort(-value, kind="stable")[: max(len(best), pool)]
    return scores[order], rows[order]


def _by_rank(matched: np.ndarray) -> np.ndarray:
    """(M,) what words count for in a fusion by rank; equal ones share a rank."""
    levels = distinct(matched)  # ascending
    return matched / (FUSE + len(levels) - levels.searchsorted(matched))


def _best_hits(hits: Hits, scores: np.ndarray, pool: int) -> tuple[Hits, np.ndarray]:
    """The `pool` hits that match most, among equals those that look best by their cosines (M,), and these (pool,)."""
    if len(hits.rows) > pool:
        best = np.lexsort((-scores, -hits.matched))[:pool]
        hits, scores = hits.where(best), scores[best]
    return hits, scores


def _fused(asked: Sought, hits: Hits, cosine: np.ndarray, looks: Hits, scores: np.ndarray) -> Ranking:
    """hits: what words alone found, with their cosines (M,). looks: what look found, best first, with scores (P,);
    `matched` is how much the words of these match."""
    rows, matched = np.concatenate([looks.rows, hits.rows]), np.concatenate([looks.matched, hits.matched])
    cosines_of = np.concatenate([scores, cosine])
    certain = asked.certain(Hits(rows, matched))
    value = _by_rank(matched) * np.where(certain, 1, PARTIAL)
    # What words found for certain and look did not comes behind all that look found, in the ranking by look.
    look = np.where(certain, 1 / (FUSE + 1 + len(scores)), 0)
    look[: len(scores)] = 1 / (FUSE + 1 + np.arange(len(scores)))
    value += look
    order = np.lexsort((rows, -cosines_of, -value))
    return Ranking(rows[order], cosines_of[order], _FOUND[certain[order].view(np.int8)])


def _behind(first: Ranking, second: Ranking) -> Ranking:
    return Ranking(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
