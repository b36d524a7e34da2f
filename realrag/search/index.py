"""Search: the rows nearest to a query, exactly or through inverted lists of 4-bit codes.

Both engines answer alike, best first and ties by row number. Scores are exact cosines with the embeddings given: the
codes only choose which rows to compare.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import BusyError, QueryError
from .exact import cosines, may_be_best, products, ranked, search_exactly

if TYPE_CHECKING:
    import faiss

log = logging.getLogger(__name__)

# Below this many rows an exact answer takes about 20 ms: no index to build, to keep, or to be wrong.
EXACT_LIMIT = 200_000
# A filter that leaves this few rows is answered exactly, in the time of three looks into the lists.
EXACT_SUBSET = 16_000
# Lists that a query looks into, of about sqrt(N) that have about sqrt(N) rows each: a fifth of a million, not quite half of
# 200,000. On the vectors of `realrag bench search` the recall@10 is then 0.99 or more at both.
PROBES = 200
COMPARED = 10_000  # so few allowed rows in the lists near a query are compared as they are, faster than all codes there
MORE = 2.25  # times as many lists as without a filter are looked into at most
COUNTED = 50_000  # of a filter's rows, those by which it is known in which lists they are
# Codes of half a byte for two dimensions: the true ten stand within the first few hundred by code.
DEPTH, DEPTH_MORE = 4, 360


class Index(Protocol):
    """Anything that can be asked for the rows nearest to a query."""

    kind: str
    n: int
    dim: int

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """queries (Q, D) float32 unit -> cosines (Q, K) float32, best first, and their rows (Q, K) int64.

        allowed: (N,) bool, the rows that may be answered. K = min(k, rows allowed). Raises QueryError.
        """
        ...


class ExactIndex:
    """Compares the query with every row. embeddings: (N, D) unit rows of any float type; may be mapped."""

    kind = "exact"

    def __init__(self, embeddings: np.ndarray):
        self.embeddings = embeddings
        self.n, self.dim = embeddings.shape

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        queries, rows, k = check_question(queries, k, allowed, self.n, self.dim)
        return search_exactly(self.embeddings, queries, k, rows)


class IVFIndex:
    """Looks into the lists whose centers are nearest (faiss `IVF,PQ4 fast scan`), then ranks what it finds by the embeddings.

    embeddings: (N, D) unit rows, fp16 and mapped for a large library. index: a faiss index of the same rows; it is only
    ever read, since adding to a mapped one ends the process. probes: lists looked into per query; more of them take
    longer and find more.
    """

    kind = "ivf"

    def __init__(self, embeddings: np.ndarray, index: faiss.IndexIVF):
        self.embeddings, self._index = embeddings, index
        self.n, self.dim = embeddings.shape
        self.lists = index.nlist
        self.probes = min(self.lists, PROBES)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        queries, rows, k = check_question(queries, k, allowed, self.n, self.dim)
        depth = DEPTH * k + DEPTH_MORE
        open_rows = self.n if rows is None else len(rows)
        if not len(queries) or (rows is not None and open_rows <= EXACT_SUBSET) or 4 * depth > open_rows:
            return search_exactly(self.embeddings, queries, k, rows)
        found: list[tuple[np.ndarray, int | None]]
        if rows is None or allowed is None:
            found = [(near, depth) for near in self._candidates(queries, depth)]
        else:
            found = self._candidates_among(queries, depth, allowed, rows)
        answers = [self._rank(query, *near, k, rows, allowed) for query, near in zip(queries, found, strict=True)]
        return np.stack([scores for scores, _ in answers]), np.stack([best for _, best in answers])

    def _candidates(self, queries: np.ndarray, depth: int) -> np.ndarray:
        """(Q, depth) int64 rows, best codes first, -1 where there are too few."""
        import faiss

        return self._index.search(queries, depth, params=faiss.SearchParametersIVF(nprobe=self.probes))[1]

    def _candidates_among(
        self, queries: np.ndarray, depth: int, allowed: np.ndarray, rows: np.ndarray
    ) -> list[tuple[np.ndarray, int | None]]:
        """For each query the same among the allowed rows, and their number; or all allowed rows that there are, and None. In
        as many lists, the nearest first, as hold the part of the allowed rows that is compared of all rows without a filter.
        Where the filter leaves out the query's own subject, the lists nearest to it hold few of them. A filter by subject
        leaves a smaller library in fewer lists, of which a larger part is compared, somewhat less than by the square root as
        for other small libraries."""
        import faiss

        every = max(1, len(rows) // COUNTED)
        counts = np.bincount(self.list_of_row[rows[::every]], minlength=self.lists)
        sizes = self._list_sizes
        fewer = max(1.0, _spread(sizes) / _spread(counts))
        fewer = fewer**0.45 * (self.n / len(rows)) ** 0.12  # and a little more, as fewer rows lie farther apart
        wanted = counts.sum() * min(1.0, fewer * self.probes / self.lists)
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        found: list[tuple[np.ndarray, int | None]] = []
        for query, scores, order in zip(queries, *self._index.quantizer.search(queries, self.lists), strict=True):
            held = np.flatnonzero(counts[order]) if every == 1 else np.arange(self.lists)
            inside = counts[order[held]].cumsum()
            held = held[: min(int(inside.searchsorted(wanted)) + 1, round(MORE * self.probes))]
            if inside[len(held) - 1] * every <= COMPARED:
                chosen = np.zeros(self.lists, bool)
                chosen[order[held]] = True
                found.append((rows[chosen[self.list_of_row[rows]]], None))
                continue
            params = faiss.SearchParametersIVF(nprobe=len(held), sel=selector)
            near, unused = np.empty(depth, np.int64), np.empty(depth, np.float32)
            given = (query, order[held], scores[held], unused, near)
            asked, lists, cosines_of, distances, ids = map(faiss.swig_ptr, given)
            # The method of the same name without "_c" takes no selector.
            self._index.search_preassigned_c(1, asked, depth, lists, cosines_of, distances, ids, False, params)
            found.append((near, depth))
        return found

    @cached_property
    def _list_sizes(self) -> np.ndarray:
        return np.bincount(self.list_of_row, minlength=self.lists)

    @cached_property
    def list_of_row(self) -> np.ndarray:
        """(N,) int32: the number of the list that holds each row. Made at the first search with a filter."""
        import faiss

        lists, found = self._index.invlists, np.zeros(self.n, np.int32)
        for number in range(self.lists):
            ids = faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
            found[ids[(ids >= 0) & (ids < self.n)]] = number
        return found

    def _rank(self, query, near, depth, k, rows, allowed) -> tuple[np.ndarray, np.ndarray]:
        near = np.sort(near[(near >= 0) & (near < self.n)])  # never believe an id
        near = near[np.diff(near, prepend=-1) > 0]
        if allowed is not None:
            near = near[allowed[near]]
        answer = rank_candidates(self.embeddings, query, near, k, depth)
        return answer or tuple(found[0] for found in search_exactly(self.embeddings, query[None], k, rows))


def rank_candidates(
    embeddings: np.ndarray, query: np.ndarray, near: np.ndarray, k: int, depth: int | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Cosines (k,) float32 and rows (k,) int64 of the best among the candidates `near` (M,), ascending, as exact search
    would rank them. None where they cannot decide: too few, or `depth` so equal that more may lie beyond them."""
    best = near[may_be_best(*products(embeddings, near, query), k)]
    if len(best) < k or len(best) == depth:
        return None
    scores, best = ranked(cosines(embeddings, best, query), best)
    return scores[:k], best[:k]


def open_index(
    embeddings: np.ndarray,
    cache: Path | None,
    key: str,
    *,
    kind: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """The index of `embeddings` (N, D), unit rows: "exact", "ivf", or "auto", which is exact up to EXACT_LIMIT rows.

    An IVF index is built once and kept in `cache`/`key`, from where it is mapped; `key` names what the embeddings came
    from. Without faiss, or without a cache for "auto", search is exact, with a line in the log. progress(done, total) is
    called while building and may raise to stop.
    """
    if kind not in ("auto", "exact", "ivf"):
        raise QueryError(f"There is no search of the kind {kind!r}. Choose auto, exact or ivf.")
    if kind == "exact" or not len(embeddings) or (kind == "auto" and len(embeddings) <= EXACT_LIMIT):
        return ExactIndex(embeddings)
    from . import ivf  # the only module that builds and reads faiss's files

    if len(embeddings) < ivf.FEWEST or ivf.usable_faiss() is None:
        return ExactIndex(embeddings)
    if cache is None and kind == "auto":
        log.info("No cache folder to keep an index in: searching all %d rows exactly.", len(embeddings))
        return ExactIndex(embeddings)
    try:
        folder = None if cache is None else Path(cache) / key
        return IVFIndex(embeddings, ivf.open_lists(embeddings, folder, progress))
    except BusyError as error:
        log.warning("Searching exactly meanwhile: %s", error)
        return ExactIndex(embeddings)


def _spread(counts: np.ndarray) -> float:
    """Over how many lists the rows (L,) are spread, large ones counting more (inverse participation ratio)."""
    return float(counts.sum()) ** 2 / float((counts.astype(np.float64) ** 2).sum())


def _true_rows(allowed: np.ndarray) -> np.ndarray:
    """np.flatnonzero, which takes up to three times as long where a twentieth to a tenth is set, in no order: above that it
    counts without a branch."""
    count = np.count_nonzero(allowed)
    if not 0.04 < count / max(1, len(allowed)) <= 0.1:
        return np.flatnonzero(allowed)
    return np.flatnonzero(np.concatenate([allowed, np.ones(len(allowed) // 8, bool)]))[:count]


def check_question(queries, k, allowed, n: int, dim: int) -> tuple[np.ndarray, np.ndarray | None, int]:
    """The queries as float32, the allowed rows (None: all) and k, or QueryError."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise QueryError(
            f"Queries of shape {queries.shape} do not fit an index of {dim} dimensions: give (queries, {dim}), made by "
            "the encoder that the library was made with."
        )
    if not np.isfinite(queries).all():
        raise QueryError(
            "A query holds numbers that are not finite. Was its picture or text encoded in a damaged model?"
        )
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise QueryError(f"k is {k!r}; ask for a whole number of rows, 1 or more.")
    if allowed is None:
        return queries, None, min(int(k), n)
    allowed = np.asarray(allowed)
    if allowed.dtype != bool or allowed.shape != (n,):
        raise QueryError(
            f"The filter is {allowed.dtype} {allowed.shape}; it must be one bool for each of the {n} rows."
        )
    rows = _true_rows(allowed)
    return queries, rows, min(int(k), len(rows))
