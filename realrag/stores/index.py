"""The index of a bundle whose rows a store finds: it asks for more than enough, and compares those with the vectors here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..search.exact import search_exactly
from ..search.index import DEPTH, DEPTH_MORE, EXACT_SUBSET, check_question, rank_candidates
from .protocol import ALL, Store, Where

MOST = 16_384  # photos that a store is asked for at most
MOST_NAMES = 1024  # in a filter that is sent
SURE = 2  # times k: with so many photos left after a filter, the k best are among them
TIES = 1_000_000  # rows of which so many equal ones that the store cannot list them are compared exactly


@dataclass(frozen=True)
class Columns:
    """Of N rows: ids (N,) int64; class_codes, license_codes (N,) int32, their places in classes and licenses."""

    ids: np.ndarray
    class_codes: np.ndarray
    classes: tuple[str, ...]
    license_codes: np.ndarray
    licenses: tuple[str, ...]

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.ids, kind="stable")

    def places(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M,) int64 ids -> their rows (M,) int64, and (M,) bool of those that are here at all."""
        rows = self._order.take(np.searchsorted(self.ids, ids, sorter=self._order), mode="clip")
        return rows, self.ids[rows] == ids


class StoreIndex:
    """embeddings: (N, D) unit rows, which decide; `store` has rows of the same photos, by their ids, and only proposes."""

    kind = "store"

    def __init__(self, embeddings: np.ndarray, store: Store, columns: Columns):
        self.embeddings, self.store, self.columns = embeddings, store, columns
        self.n, self.dim = embeddings.shape

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As every `Index`. A filter of few rows is answered here; of a larger one the store gets the classes and licenses,
        and more photos are asked for the more of them the filter leaves out."""
        queries, rows, k = check_question(queries, k, allowed, self.n, self.dim)
        open_rows = self.n if rows is None else len(rows)
        if not len(queries) or not k or SURE * k > MOST or (rows is not None and open_rows <= EXACT_SUBSET):
            return search_exactly(self.embeddings, queries, k, rows)
        where, covered = (ALL, self.n) if rows is None else self._where(rows)
        most = min(MOST, covered)
        size = min(most, math.ceil((DEPTH * k + DEPTH_MORE) * covered / open_rows))
        answers = []
        for query, found in zip(queries, self.store.search(queries, size, where), strict=True):
            answer = self._rank(query, found.ids, k, allowed, open_rows, size < most or self.n <= TIES)
            if answer is None and size < most:
                more = self.store.search(query[None], most, where)[0]
                answer = self._rank(query, more.ids, k, allowed, open_rows, self.n <= TIES)
            answers.append(answer or tuple(each[0] for each in search_exactly(self.embeddings, query[None], k, rows)))
        return np.stack([scores for scores, _ in answers]), np.stack([best for _, best in answers])

    def _rank(self, query, ids, k, allowed, open_rows, tied) -> tuple[np.ndarray, np.ndarray] | None:
        """None where these photos cannot decide. tied: not even if all of them are equal."""
        rows, here = self.columns.places(ids)
        near = np.unique(rows[here])
        near = near if allowed is None else near[allowed[near]]
        if len(near) == open_rows:
            return rank_candidates(self.embeddings, query, near, k)
        if len(near) < min(SURE * k, open_rows):
            return None
        return rank_candidates(self.embeddings, query, near, k, len(near) if tied else None)

    def _where(self, rows: np.ndarray) -> tuple[Where, int]:
        """The narrowest filter by class and license that lets all of `rows` through, and how many rows it lets through."""
        chosen, inverted, passes = [], [], np.ones(self.n, bool)
        for codes, names in (
            (self.columns.class_codes, self.columns.classes),
            (self.columns.license_codes, self.columns.licenses),
        ):
            there = np.bincount(codes[rows], minlength=len(names)) > 0
            turned = int(there.sum()) > len(names) / 2
            listed = np.flatnonzero(~there if turned else there)
            if there.all() or len(listed) > MOST_NAMES:
                listed = listed[:0]
            else:
                passes &= there[codes]
            chosen.append(tuple(names[code] for code in listed))
            inverted.append(turned and bool(len(listed)))
        return Where(chosen[0], chosen[1], (inverted[0], inverted[1])), int(passes.sum())
