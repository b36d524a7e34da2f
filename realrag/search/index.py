"""Search: the rows nearest to a query, exactly or through inverted lists of 8-bit codes.

Both engines answer alike, best first and ties by row number. Scores are exact cosines with the embeddings given: the
codes only choose which rows to compare.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import BusyError, QueryError

if TYPE_CHECKING:
    import faiss

log = logging.getLogger(__name__)

# Below this many rows an exact answer takes about 20 ms: no index to build, to keep, or to be wrong.
EXACT_LIMIT = 200_000
# A filter that leaves this few rows is answered exactly, in the time of one look into the lists.
EXACT_SUBSET = 20_000
# Lists that a query looks into: this times the fourth root of their number. On `synthetic` a recall@10 of 0.98 needs
# about 180 of 1,789 lists at 200,000 rows and 245 of 4,000 at a million; this gives 234 and 286.
PROBES = 36
# Codes are 8 bits a dimension, so the true ten stand within the first twenty by code: more adds time and no recall.
DEPTH, DEPTH_MORE = 2, 32
BLOCK = 2048  # rows made float32 at once: 4 MB at 512 dimensions, which stays in the processor's cache
SCORES = 1 << 24  # scores held at once by an exact search: 64 MB


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
        queries, rows, k = _checked(queries, k, allowed, self.n, self.dim)
        return search_exactly(self.embeddings, queries, k, rows)


class IVFIndex:
    """Looks into the lists whose centers are nearest (faiss `IVF,SQ8`), then ranks what it finds by the embeddings.

    embeddings: (N, D) unit rows, fp16 and mapped for a large library. index: a faiss index of the same rows; it is only
    ever read, since adding to a mapped one ends the process. probes: lists looked into per query; more of them take
    longer and find more.
    """

    kind = "ivf"

    def __init__(self, embeddings: np.ndarray, index: faiss.IndexIVF):
        self.embeddings, self._index = embeddings, index
        self.n, self.dim = embeddings.shape
        self.lists = index.nlist
        self.probes = min(self.lists, round(PROBES * self.lists**0.25))

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        queries, rows, k = _checked(queries, k, allowed, self.n, self.dim)
        depth = DEPTH * k + DEPTH_MORE
        open_rows = self.n if rows is None else len(rows)
        if not len(queries) or (rows is not None and open_rows <= EXACT_SUBSET) or 4 * depth > open_rows:
            return search_exactly(self.embeddings, queries, k, rows)
        found = self._candidates(queries, depth, allowed, open_rows / self.n)
        answers = [self._rank(query, near, k, depth, rows, allowed) for query, near in zip(queries, found, strict=True)]
        return np.stack([scores for scores, _ in answers]), np.stack([best for _, best in answers])

    def _candidates(self, queries: np.ndarray, depth: int, allowed: np.ndarray | None, fraction: float) -> np.ndarray:
        """(Q, depth) int64 rows, best codes first, -1 where there are too few. A filter that lets a tenth of the rows
        through leaves a tenth of the codes to compare, so ten times the lists are looked into."""
        import faiss

        probes = min(self.lists, round(self.probes / fraction))
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        return self._index.search(queries, depth, params=faiss.SearchParametersIVF(nprobe=probes, sel=selector))[1]

    def _rank(self, query, near, k, depth, rows, allowed) -> tuple[np.ndarray, np.ndarray]:
        near = np.unique(near[(near >= 0) & (near < self.n)])  # never believe an id
        if allowed is not None:
            near = near[allowed[near]]
        scores, best = _ranked(cosines(self.embeddings, near, query), near)
        # Too few found, or so many equal pictures that more of them may lie beyond the candidates.
        if len(best) < k or (len(best) == depth and scores[k - 1] == scores[-1]):
            scores, best = (found[0] for found in search_exactly(self.embeddings, query[None], k, rows))
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

    if ivf.usable_faiss() is None:
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


def search_exactly(
    embeddings: np.ndarray, queries: np.ndarray, k: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines (Q, k) float32 and rows (Q, k) int64 of the best among `rows` (ascending int64; None: all).

    A float32 product, block by block, finds all that can be among the best k whatever its rounding; those are then
    compared in float64, so that equal rows score equal bits and ties fall by row number.
    """
    count = len(embeddings) if rows is None else len(rows)
    best_scores, best_rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    if not k:
        return best_scores, best_rows
    # A float32 product of D terms is off by at most (D + 1) / 2^24 of the lengths (Higham 2002, 3.1); two are compared.
    slack = 2 * (embeddings.shape[1] + 1) * 2.0**-24 * np.linalg.norm(queries, axis=1)
    together = max(1, SCORES // count)
    for first in range(0, len(queries), together):
        part = queries[first : first + together]
        scores = np.empty((len(part), count), np.float32)
        for start, block in _blocks(embeddings, rows):
            if len(part) == 1:  # numpy is slower at a product of one row
                np.matmul(block, part[0], out=scores[0, start : start + len(block)])
            else:
                np.matmul(part, block.T, out=scores[:, start : start + len(block)])
        for at, row_scores in enumerate(scores, first):
            near = np.flatnonzero(row_scores >= np.partition(row_scores, count - k)[count - k] - slack[at])
            near = near if rows is None else rows[near]
            ranked = _ranked(cosines(embeddings, near, queries[at]), near)
            best_scores[at], best_rows[at] = ranked[0][:k], ranked[1][:k]
    return best_scores, best_rows


def cosines(embeddings: np.ndarray, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(M,) float32 of query (D,) with each of `rows` (M,), summed in float64, in one order whatever the other rows.

    torch turns fp16 into float32 six times faster than numpy.
    """
    import torch

    query = query.astype(np.float64)
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        block = embeddings[rows[part]]
        if block.dtype == np.float16:
            block = torch.from_numpy(block).float().numpy()
        scores[part] = (block * query).sum(axis=1)
    return scores


def _ranked(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((rows, -scores))
    return scores[order], rows[order].astype(np.int64)


def _blocks(embeddings: np.ndarray, rows: np.ndarray | None):
    """(position, (<= BLOCK, D) float32) over all rows or the chosen ones; a block is valid until the next."""
    import torch

    buffer = np.empty((BLOCK, embeddings.shape[1]), np.float32)
    for start in range(0, len(embeddings) if rows is None else len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        block = embeddings[part] if rows is None else embeddings[rows[part]]
        if block.dtype == np.float16:
            torch.from_numpy(buffer)[: len(block)].copy_(torch.from_numpy(np.array(block)))
            block = buffer[: len(block)]
        yield start, np.asarray(block, np.float32)


def _checked(queries, k, allowed, n: int, dim: int) -> tuple[np.ndarray, np.ndarray | None, int]:
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
    rows = np.flatnonzero(allowed)
    return queries, rows, min(int(k), len(rows))
