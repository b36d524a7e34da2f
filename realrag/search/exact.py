"""The best rows by comparing the query with every one: quick products choose, sums in float64 decide."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache

import numpy as np

BLOCK = 2048  # rows made float32 at once: 4 MB at 512 dimensions, which stays in the processor's cache
GATHERED = 2048  # chosen rows copied together at once: 2 MB
SCORES = 1 << 24  # scores held at once by an exact search: 64 MB
LONGEST = 1.01  # of a row; unit rows in fp16 are off by less


def search_exactly(
    embeddings: np.ndarray, queries: np.ndarray, k: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines (Q, k) float32 and rows (Q, k) int64 of the best among `rows` (ascending int64; None: all).

    A quick product finds all that can be among the best k whatever its rounding; those are then compared in float64, so
    that equal rows score equal bits and ties fall by row number.
    """
    count = len(embeddings) if rows is None else len(rows)
    best_scores, best_rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    if not k:
        return best_scores, best_rows
    together = max(1, SCORES // count)
    for first in range(0, len(queries), together):
        part = queries[first : first + together]
        answers = [products(embeddings, rows, part[0])] if len(part) == 1 else _of_many(embeddings, rows, part)
        for at, (scores, slack) in enumerate(answers, first):
            near = may_be_best(scores, slack, k)
            near = near if rows is None else rows[near]
            found = ranked(cosines(embeddings, near, queries[at]), near)
            best_scores[at], best_rows[at] = found[0][:k], found[1][:k]
    return best_scores, best_rows


def may_be_best(scores: np.ndarray, slack: float, k: int) -> np.ndarray:
    """Places of the scores (M,) float32 that can be among the best k if each is off by half of `slack`."""
    if len(scores) <= k:
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k] - slack)


def cosines(embeddings: np.ndarray, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(M,) float32 of query (D,) with each of `rows` (M,), summed in float64, in one order whatever the other rows."""
    query = query.astype(np.float64)
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        scores[part] = (_float32(embeddings[rows[part]]) * query).sum(axis=1)
    return scores


def ranked(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, best first and ties by row number."""
    order = np.lexsort((rows, -scores))
    return scores[order], rows[order].astype(np.int64)


def products(embeddings: np.ndarray, rows: np.ndarray | None, query: np.ndarray) -> tuple[np.ndarray, float]:
    """Of one query (D,) with `rows`, or with all: scores (M,) float32, and twice what each is off by at most.

    Rows in fp16 are multiplied as they are where torch sums such products in float32: it reads half the bytes, and takes
    under half the time of float32 rows in numpy.
    """
    length = float(np.linalg.norm(query))
    if embeddings.dtype != np.float16 or not _sums_in_float32() or not length:
        scores = np.empty(len(embeddings) if rows is None else len(rows), np.float32)
        for start, block in _blocks(embeddings, rows):
            np.matmul(block, query, out=scores[start : start + len(block)])
        return scores, _slack(query)
    import torch

    unit = query / length
    half = torch.from_numpy(unit).half()
    if rows is None:
        found = _tensor(embeddings).mv(half).float()
    else:
        chunks = [rows[start : start + GATHERED] for start in range(0, len(rows), GATHERED)]
        found = torch.cat([torch.from_numpy(embeddings[chunk]).mv(half) for chunk in chunks]).float()
    scores = found.numpy()
    # The query's own rounding, that of the sum (see _slack), and that of the result to fp16.
    off = (
        LONGEST * float(np.linalg.norm(unit - half.numpy())) + _slack(unit) / 2 + 2.0**-11 * float(np.abs(scores).max())
    )
    return scores * np.float32(length), 2 * length * off


def _of_many(embeddings, rows, queries) -> list[tuple[np.ndarray, float]]:
    """`products` of each query (Q, D), which share one reading of the rows."""
    scores = np.empty((len(queries), len(embeddings) if rows is None else len(rows)), np.float32)
    for start, block in _blocks(embeddings, rows):
        np.matmul(queries, block.T, out=scores[:, start : start + len(block)])
    return [(row, _slack(query)) for row, query in zip(scores, queries, strict=True)]


def _slack(query: np.ndarray) -> float:
    """A float32 product of D terms is off by at most (D + 1) / 2^24 of the lengths (Higham 2002, 3.1); two are compared."""
    return 2 * (len(query) + 1) * 2.0**-24 * float(np.linalg.norm(query)) * LONGEST


@cache
def _sums_in_float32() -> bool:
    """Whether this torch sums products of fp16 in float32 on this processor: in fp16 the small terms would be lost."""
    import torch

    row = torch.full((1, 512), 2.0**-8).half()
    row[0, :64] = 1
    return row.mv(torch.ones(512).half()).item() == 64 + 448 * 2.0**-8


def _tensor(array: np.ndarray):
    """The same memory as a tensor, which nobody here writes to; torch would warn of a mapped file."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


def _float32(block: np.ndarray) -> np.ndarray:
    """torch turns fp16 into float32 six times faster than numpy."""
    import torch

    return torch.from_numpy(block).float().numpy() if block.dtype == np.float16 else block


def _blocks(embeddings: np.ndarray, rows: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
    """(position, (<= BLOCK, D) float32) over all rows or the chosen ones; a block is valid until the next."""
    import torch

    buffer = np.empty((BLOCK, embeddings.shape[1]), np.float32)
    for start in range(0, len(embeddings) if rows is None else len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        block = embeddings[part] if rows is None else embeddings[rows[part]]
        if block.dtype == np.float16:
            torch.from_numpy(buffer)[: len(block)].copy_(_tensor(block))
            block = buffer[: len(block)]
        yield start, np.asarray(block, np.float32)
