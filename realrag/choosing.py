"""Which photos of a ranking make the answer: those that somebody pinned, then the best of the others, page by page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .bundle.head_entries import AUTO
from .bundle.records import RecordTable
from .doubt import Level
from .errors import QueryError
from .search.diversity import drop_near_duplicates, mmr
from .search.exact import cosines
from .search.hybrid import BY_CAPTION, BY_LOOK, BY_NAME, PINNED, Ranking

MAX_K = 1000
MAX_PAGE = 100  # each page before the one that is asked for costs a search
# Pictures this close are the same shot saved twice. What this means depends on the encoder, so such pictures are not
# thrown away: they go behind all others.
NEAR_DUPLICATE = 0.995
DEEPEST = 16  # how many times the first look is widened, at most, to find enough different pictures


class Chosen(NamedTuple):
    """A row of the answer: its cosine, how it was found, and for which object of the prompt."""

    score: float
    row: int
    found: str
    object: str = ""


def _nameless(rows: np.ndarray) -> np.ndarray:
    return np.zeros(len(rows), bool)


@dataclass(frozen=True)
class Wanted:
    """One object of a prompt. query: (D,) float32 unit vector. look(size, allowed): the ranking of about so many candidates
    of each kind among the rows that `allowed` lets through, (N,) bool or None for all. label: "" where it is the only one.
    named(rows): which of these rows (M,) have its name. first: what the first look has found already."""

    query: np.ndarray
    look: Callable[[int, np.ndarray | None], Ranking]
    label: str = ""
    named: Callable[[np.ndarray], np.ndarray] = _nameless
    first: Ranking | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Chooser:
    """vectors: (N, D) unit rows. k: photos in the answer, the pinned ones among them. min_score: cosine below which a photo
    is no answer, "auto" for the level, None for no bound; a pinned photo is never left out. pinned: rows that come first
    on every page, in this order. page: 1 fills the other places with the best photos, 2 with those after them."""

    vectors: np.ndarray
    k: int
    min_score: float | str | None
    diversity: float
    pinned: tuple[int, ...] = ()
    page: int = 1

    def answer(
        self, wanted: Sequence[Wanted], allowed: np.ndarray | None, level: Level | None
    ) -> tuple[list[Chosen], float, int]:
        """The photos of this page, the best score there was by look, and the last page up to this one that had a photo.

        A page never repeats a photo of an earlier one, and near-duplicates of what an earlier one showed come last."""
        pinned, best = self._pinned(wanted), -1.0
        shown = [each.row for each in pinned]
        chosen: list[Chosen] = []
        for page in range(1, self.page + 1):
            chosen, top = self._one_page(wanted, allowed, level, pinned, shown)
            best = max(best, top)
            if not chosen:
                return pinned, best, page - 1
            shown += [each.row for each in chosen]
        return pinned + chosen, best, self.page

    def size(self, open_rows: int) -> int:
        """How many candidates of each kind the first look takes."""
        return min(open_rows, 4 * self.k + 16)

    def _pinned(self, wanted: Sequence[Wanted]) -> list[Chosen]:
        """With their true scores, each for the object whose name it has, or else for the one it looks most like."""
        rows = np.array(self.pinned[: self.k], np.int64)
        scores = np.stack([cosines(self.vectors, rows, each.query) for each in wanted])  # (objects, pinned)
        named = np.stack([each.named(rows) for each in wanted])
        best = (scores + 4.0 * named).argmax(axis=0)
        return [
            Chosen(float(scores[number, at]), int(row), PINNED, wanted[number].label)
            for at, (row, number) in enumerate(zip(rows, best, strict=True))
        ]

    def _one_page(self, wanted, allowed, level, pinned: list[Chosen], shown: list[int]) -> tuple[list[Chosen], float]:
        """The free places, shared out among the objects; a place that one of them cannot fill goes to the next."""
        chosen: list[Chosen] = []
        best, spent = -1.0, 0
        for number, each in enumerate(wanted):
            own = sum(pin.object == each.label for pin in pinned)
            share = -(-(self.k - spent) // (len(wanted) - number)) - own
            share = min(share, self.k - len(pinned) - len(chosen))
            if share > 0:
                taken = shown + [one.row for one in chosen]
                mine, top = self._choose(each, without_rows(allowed, taken, len(self.vectors)), share, level, shown)
                chosen += [one._replace(object=each.label) for one in mine]
                best = max(best, top)
                own += len(mine)
            spent += own
        return chosen, best

    def _choose(
        self, wanted: Wanted, allowed, k: int, level: Level | None, shown: list[int]
    ) -> tuple[list[Chosen], float]:
        """The answer, and the best score there was by look. Looks deeper while near-duplicates fill the candidates."""
        open_rows = count_open(allowed, len(self.vectors))
        if not open_rows:
            return [], -1.0
        size = self.size(open_rows)
        deepest = min(open_rows, DEEPEST * size)
        bound = -math.inf if self.min_score is None or isinstance(self.min_score, str) else self.min_score
        before = np.asarray(self.vectors[shown], np.float32)
        first = wanted.first if len(shown) == len(self.pinned[: self.k]) else None
        ranking = wanted.look(size, allowed) if first is None else first
        while True:
            passed = ranking.scores >= bound
            if self.min_score == AUTO and level is not None and level.score is not None:
                passed &= (ranking.found != BY_LOOK) | (ranking.scores >= level.score)
            rows, scores, found = (part[passed] for part in ranking)
            vectors = np.asarray(self.vectors[rows], np.float32)
            different = drop_near_duplicates(np.concatenate([before, vectors]), NEAR_DUPLICATE) - len(before)
            different = different[different >= 0]
            if len(different) >= k or not passed.all() or size >= deepest:
                break
            size = min(deepest, 4 * size)
            ranking = wanted.look(size, allowed)
        by_look = ranking.scores[ranking.found == BY_LOOK]
        best = float(by_look.max()) if len(by_look) else -1.0
        order: list[int] = []
        for tier in (BY_NAME,), (BY_CAPTION, BY_LOOK):
            mine = different[np.isin(found[different].astype(str), tier)]
            if self.diversity == 0:  # the ranking's own order, in which captions count as well as scores
                order += mine[: k - len(order)].tolist()
            elif len(mine):
                relevance = scores[mine].copy()
                relevance[0] = relevance.max()  # the ranking's best stays the best
                order += mine[mmr(relevance, vectors[mine], k - len(order), self.diversity)].tolist()
        order += np.setdiff1d(np.arange(len(rows)), different)[: k - len(order)].tolist()
        return [Chosen(float(scores[at]), int(rows[at]), str(found[at])) for at in order], best


def pinned_rows(
    records: RecordTable, ids: Sequence[str], allowed: np.ndarray | None, k: int
) -> tuple[tuple[int, ...], str]:
    """The rows of the photos that somebody pinned, and a sentence on those that cannot come. Raises QueryError."""
    if isinstance(ids, str) or not all(isinstance(id, str) for id in ids):
        raise QueryError(f"pinned is {str(ids)[:80]!r}; give a list of photo ids, as the scores text shows them.")
    found = {id: records.row_of(id) for id in ids}
    there = {id: row for id, row in found.items() if row is not None}
    left_out = [id for id, row in there.items() if allowed is not None and not allowed[row]]
    rows = tuple(dict.fromkeys(row for id, row in there.items() if id not in left_out))
    notes = [f"Pinned, but {why}: {_listed(some)}." for why, some in (
        ("not in this library", [id for id in found if id not in there]),
        ("left out by a filter", left_out),
    ) if some]  # fmt: skip
    if len(rows) > k:
        notes.append(f"{len(rows)} photos are pinned and {k} asked for: raise top_k to see all.")
    return rows, " ".join(notes)


def _listed(ids: list[str]) -> str:
    return ", ".join(repr(id[:20]) for id in ids[:5]) + f" and {len(ids) - 5} more" * (len(ids) > 5)


def count_open(allowed: np.ndarray | None, count: int) -> int:
    return count if allowed is None else int(allowed.sum())


def without_rows(allowed: np.ndarray | None, rows, count: int) -> np.ndarray | None:
    """(N,) bool: `allowed` without these rows. None where all are still allowed."""
    if not len(rows):
        return allowed
    left = np.ones(count, bool) if allowed is None else allowed.copy()
    left[np.asarray(rows, np.int64)] = False
    return left
