"""Our own index as a store: the photos given at the start lie behind it, later ones are compared one by one."""

from __future__ import annotations

import numpy as np

from ..search.exact import ranked, search_exactly
from ..search.index import ExactIndex, Index
from .protocol import ALL, Found, Rows, Where, check_queries, check_rows, name_key


class OwnStore:
    """`rows`, searched through `index` (default: exactly), whose rows are theirs; nothing of both is ever changed.

    A photo that is taken out is only passed over. One that is put in joins a list that is searched exactly, so that a
    store with many of them is better made anew.
    """

    def __init__(self, rows: Rows, index: Index | None = None):
        self.dim = rows.vectors.shape[1]
        check_rows(rows, self.dim)
        self._base, self._index = rows, index or ExactIndex(rows.vectors)
        self._here = np.ones(len(rows.ids), bool)
        self._order = np.argsort(rows.ids)
        self._more = Rows(*(array[:0] for array in (rows.ids, rows.vectors, rows.classes, rows.licenses)))

    def count(self, where: Where = ALL) -> int:
        return int(self._passing(where).sum() + _passes(self._more, where).sum())

    def filter(self, where: Where = ALL) -> np.ndarray:
        return np.sort(
            np.concatenate([self._base.ids[self._passing(where)], self._more.ids[_passes(self._more, where)]])
        )

    def search(self, queries: np.ndarray, k: int, where: Where = ALL) -> list[Found]:
        queries = check_queries(queries, k, self.dim)
        passing = self._passing(where)
        scores, rows = self._index.search(queries, k, None if passing.all() else passing)
        later = np.flatnonzero(_passes(self._more, where))
        more_scores, more = search_exactly(self._more.vectors, queries, min(k, len(later)), later)
        ids = np.concatenate([self._base.ids, self._more.ids]) if len(later) else self._base.ids
        found = []
        for at in range(len(queries)):
            both = np.concatenate([rows[at], more[at] + len(self._base.ids)])
            best, places = ranked(np.concatenate([scores[at], more_scores[at]]), both)
            found.append(Found(best[:k], ids[places[:k]]))
        return found

    def add(self, rows: Rows) -> None:
        check_rows(rows, self.dim)
        self.remove(rows.ids)
        pairs = zip(_arrays(self._more), _arrays(rows), strict=True)
        self._more = Rows(*(np.concatenate([old, np.asarray(new, old.dtype)]) for old, new in pairs))

    def remove(self, ids: np.ndarray) -> None:
        ids = np.asarray(ids, np.int64)
        if len(self._base.ids):
            places = self._order.take(np.searchsorted(self._base.ids, ids, sorter=self._order), mode="clip")
            self._here[places[self._base.ids[places] == ids]] = False
        kept = ~np.isin(self._more.ids, ids)
        if not kept.all():
            self._more = Rows(*(array[kept] for array in _arrays(self._more)))

    def _passing(self, where: Where) -> np.ndarray:
        return self._here & _passes(self._base, where) if where else self._here


def _arrays(rows: Rows) -> tuple[np.ndarray, ...]:
    return rows.ids, rows.vectors, rows.classes, rows.licenses


def _passes(rows: Rows, where: Where) -> np.ndarray:
    """(N,) bool."""
    passes = np.ones(len(rows.ids), bool)
    pairs = (where.classes, rows.classes), (where.licenses, rows.licenses)
    for (names, keys), inverted in zip(pairs, where.inverted, strict=True):
        if names:
            passes &= np.isin(keys, [name_key(name) for name in names], invert=inverted)
    return passes
