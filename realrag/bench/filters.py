"""`realrag bench search --filters`: what a filter costs in time and recall, by how many rows it leaves and which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .turns import take_turns

FRACTIONS = (0.01, 0.02, 0.035, 0.05, 0.1, 0.3, 0.6)
SEED = 5


def measure_filters(scratch: Path, k: int) -> list[dict]:
    """Of the index and the rows in `scratch`: for each filter, and first for none, the median CPU ms of a query and the recall of
    its best `k`."""
    from ..search.index import ExactIndex, open_index
    from ..search.ivf import usable_faiss

    library, queries = np.load(scratch / "library.npy", mmap_mode="r"), np.load(scratch / "queries.npy")
    index = open_index(library, scratch, "index", kind="ivf")
    if index.kind != "ivf":
        return []
    usable_faiss().omp_set_num_threads(1)
    masks = {"none": None, **{name: mask for name, mask in _filters(library, index) if mask.any()}}
    truth = {name: ExactIndex(library).search(queries, k, mask)[1] for name, mask in masks.items()}
    searches = {name: lambda some, mask=mask: index.search(some, k, mask)[1] for name, mask in masks.items()}
    times, recall = take_turns(searches, queries, truth)
    ms = {name: 1e3 * float(np.median(each)) for name, each in times.items()}
    return [
        {
            "filter": name, "rows": len(library) if mask is None else int(mask.sum()),
            "ms": ms[name], "times_unfiltered": ms[name] / ms["none"], "recall": recall[name],
        }
        for name, mask in masks.items()
    ]  # fmt: skip


def _filters(library: np.ndarray, index) -> Iterator[tuple[str, np.ndarray]]:
    """Name and (N,) bools: rows by chance; whole lists by chance, which are subjects that seldom fit the query's; the rows
    nearest to one photo, and those farthest from it."""
    rng = np.random.default_rng(SEED)
    photo, close = np.asarray(library[len(library) // 3], np.float32), np.empty(len(library), np.float32)
    for start in range(0, len(close), 8192):
        close[start : start + 8192] = np.asarray(library[start : start + 8192], np.float32) @ photo
    ranks = np.argsort(np.argsort(-close)) / len(close)
    for fraction in FRACTIONS:
        yield f"{fraction:.1%} by chance", rng.random(len(library)) < fraction
        lists = rng.random(index.lists) < fraction
        yield f"{fraction:.1%} in whole lists", lists[index.list_of_row]
        yield f"{fraction:.1%} near a photo", ranks < fraction
        yield f"{fraction:.1%} far from it", ranks >= 1 - fraction


def format_filters(rows: list[dict]) -> list[str]:
    """Lines for a terminal; the first row is that without a filter."""
    worst = min(rows[1:], key=lambda row: row["recall"])
    lines = [f"{'filter':>24} {'rows left':>10} {'ms/query':>9} {'x unfiltered':>13} {'recall':>7}"]
    lines += [
        f"{row['filter']:>24} {row['rows']:10,} {row['ms']:9.2f} {row['times_unfiltered']:12.2f}x {row['recall']:7.4f}"
        for row in rows
    ]
    slowest = max(row["times_unfiltered"] for row in rows[1:])
    return [
        *lines,
        f"a filter takes at most {slowest:.2f} times the time, and costs at most {rows[0]['recall'] - worst['recall']:.4f} of recall",
    ]
