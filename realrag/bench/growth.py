"""`realrag bench growth`: how search grows with the library, from 100,000 rows to ten million on one machine.

Rows are made from a seed and written to disk in chunks, the smaller libraries are the beginnings of the largest, and memory
holds a chunk, the codes of one index, and what the system keeps of the files. With --folder everything stays, and a run that was
stopped goes on where it was. Times are CPU time of one thread; the sizes take turns, a few queries each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import QueryError
from ..files import write_atomic, write_json
from .search import K, alone, memory, one_thread
from .turns import take_turns

BLOCK = 65_536  # rows compared at once for the true answers
RESAMPLED = 2000  # times the queries are drawn again for the interval
SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows", type=int, nargs="+", default=list(SIZES), metavar="N",
        help="sizes, at least two (default 1e5 to 1e7: 13 GB of disk, an hour on two cores)",
    )  # fmt: skip
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="keep rows, indexes and true answers here, and go on with what is there"
    )
    parser.add_argument(
        "--graph", type=Path, metavar="FILE", help="draw time over rows (.svg or .png; needs matplotlib)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run(args) -> dict:
    """Make what is missing, then measure all sizes in one process. Returns the results."""
    sizes = sorted(set(args.rows))
    if len(sizes) < 2 or sizes[0] < 1000 or args.queries < 2 or args.dim < 3:
        raise QueryError(
            f"--rows {' '.join(map(str, args.rows))} --queries {args.queries} --dim {args.dim}: two sizes of 1,000 rows or more, "
            "queries from 2, dim from 3."
        )
    with tempfile.TemporaryDirectory() as scratch, one_thread():
        folder = Path(args.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        alone(make_rows, folder, sizes, args.dim, args.queries, args.seed)
        built = [alone(build, folder, size) for size in sizes]
        result = alone(measure, folder, sizes)
    for row, more in zip(result["sizes"], built, strict=True):
        row.update(more)
    if args.graph:
        _draw(result, args.graph)
    return result


def make_rows(folder: Path, sizes: list[int], dim: int, queries: int, seed: int) -> None:
    """rows.npy, the first `sizes[-1]` rows of the seeded library, queries.npy, and the true answers of each size."""
    from .clustered_vectors import CHUNK, Chunks, text_queries

    recipe = {"rows": sizes[-1], "dim": dim, "queries": queries, "seed": seed}
    kept, path = folder / "rows.json", folder / "rows.npy"
    state: dict = json.loads(kept.read_text()) if kept.is_file() else {"recipe": recipe, "chunks": 0}
    if state["recipe"] != recipe:
        raise QueryError(f"{folder} holds the rows of {state['recipe']}, not of {recipe}. Name another --folder.")
    if not state["chunks"]:
        np.save(folder / "queries.npy", text_queries(queries, dim, seed=seed))
    mode = "r+" if state["chunks"] else "w+"
    rows = np.lib.format.open_memmap(path, mode, np.float16, (sizes[-1], dim))
    library, chunks = Chunks(dim, seed), -(-sizes[-1] // CHUNK)
    for number in range(state["chunks"], chunks):
        start = number * CHUNK
        rows[start : start + CHUNK] = library.chunk(number)[: sizes[-1] - start]
        if number % 32 == 31 or number == chunks - 1:
            rows.flush()
            write_json(kept, {"recipe": recipe, "chunks": number + 1})
    del rows
    _true_answers(folder, sizes)


def _true_answers(folder: Path, sizes: list[int]) -> None:
    """truth-N.npy (queries, K) for each size, in one reading of all rows."""
    if all(_truth(folder, size).is_file() for size in sizes):
        return
    rows, queries = np.load(folder / "rows.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    best = np.full((len(queries), K), -2, np.float32)
    near = np.zeros((len(queries), K), np.int64)
    start = 0
    for end in sorted({*range(BLOCK, sizes[-1], BLOCK), *sizes}):
        scores = queries @ np.asarray(rows[start:end], np.float32).T
        both = np.concatenate([best, scores], axis=1)
        places = np.concatenate([near, np.broadcast_to(np.arange(start, end), scores.shape)], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :K]
        best, near = np.take_along_axis(both, order, 1), np.take_along_axis(places, order, 1)
        if end in sizes:
            write_atomic(_truth(folder, end), partial(np.save, arr=near))
        start = end


def _truth(folder: Path, size: int) -> Path:
    return folder / f"truth-{size}.npy"


def build(folder: Path, size: int) -> dict:
    """The index of the first `size` rows, made where there is none; what it cost then."""
    from ..search.index import open_index
    from ..search.ivf import FILE

    kept = folder / f"built-{size}.json"
    if not kept.is_file():
        rows = np.load(folder / "rows.npy", mmap_mode="r")[:size]
        wall, cpu = time.perf_counter(), time.process_time()
        open_index(rows, folder, f"index-{size}", kind="ivf")
        cost = {"build_s": time.perf_counter() - wall, "build_cpu_s": time.process_time() - cpu}
        file = folder / f"index-{size}" / FILE
        write_json(kept, {**cost, "index_mb": file.stat().st_size / 1e6, "rows_mb": rows.nbytes / 1e6})
    return json.loads(kept.read_text())


def measure(folder: Path, sizes: list[int]) -> dict:
    """Time, recall and memory of each size, and the power of N that time grows with."""
    import torch  # noqa: F401  like faiss, so that importing it does not count as memory of the first size

    from ..search.index import ExactIndex, open_index
    from ..search.ivf import usable_faiss

    faiss = usable_faiss()
    queries = np.load(folder / "queries.npy")
    every = np.load(folder / "rows.npy", mmap_mode="r")
    indexes, touched = [], []
    ExactIndex(every[:K]).search(queries[:1], 1)
    for size in sizes:
        before = memory()
        index = open_index(every[:size], folder, f"index-{size}", kind="ivf")
        index.search(queries[:1], K)
        for query in queries:  # warms the pages
            index.search(query[None], K)
        after = memory()
        touched.append({part: after[part] - before[part] for part in after})
        indexes.append(index)
    if faiss is not None:
        faiss.omp_set_num_threads(1)
    searches = {
        str(size): lambda some, i=index: i.search(some, K)[1] for size, index in zip(sizes, indexes, strict=True)
    }
    by_size, recall = take_turns(searches, queries, {str(size): np.load(_truth(folder, size)) for size in sizes})
    times = np.stack([by_size[str(size)] for size in sizes])
    rows = [
        {
            "rows": size, "ms": 1e3 * float(np.median(times[at])), "recall": recall[str(size)], "touched_mb": touched[at],
            "lists": getattr(indexes[at], "lists", None), "probes": getattr(indexes[at], "probes", None),
        }
        for at, size in enumerate(sizes)
    ]  # fmt: skip
    return {"dim": queries.shape[1], "queries": len(queries), "k": K, "sizes": rows, **_exponent(sizes, times)}


def _exponent(sizes: list[int], times: np.ndarray) -> dict:
    """b of time = a N^b by least squares through the medians (S, Q), and its 95 % interval over the queries."""

    def fit(some: np.ndarray) -> float:
        return float(np.polyfit(np.log(sizes), np.log(np.median(some, axis=1)), 1)[0])

    rng = np.random.Generator(np.random.PCG64(0))
    again = [fit(times[:, rng.integers(0, times.shape[1], times.shape[1])]) for _ in range(RESAMPLED)]
    return {"exponent": fit(times), "interval": [float(end) for end in np.percentile(again, [2.5, 97.5])]}


def _draw(result: dict, path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        raise QueryError(
            "--graph needs matplotlib. Install it with `pip install matplotlib`, or leave --graph out."
        ) from None
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "realrag"  # the same graph gives the same file
    import matplotlib.pyplot as plt

    sizes, times = [row["rows"] for row in result["sizes"]], [row["ms"] for row in result["sizes"]]
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.loglog(sizes, times, "o-", label=f"measured: N^{result['exponent']:.2f}")
    middle = len(sizes) // 2
    axes.loglog(
        sizes,
        [times[middle] * (size / sizes[middle]) ** 0.5 for size in sizes],
        ":",
        color="gray",
        label="square root of N",
    )
    axes.loglog(
        sizes,
        [times[0] * size / sizes[0] for size in sizes],
        "--",
        color="lightgray",
        label="N, as comparing every photo",
    )
    for row in result["sizes"]:
        axes.annotate(
            f"{row['recall']:.3f}", (row["rows"], row["ms"]), (4, -12), textcoords="offset points", fontsize=8
        )
    axes.set(
        xlabel=f"rows of {result['dim']} dimensions (beside each point: recall@{result['k']})", ylabel="ms a query"
    )
    axes.legend(frameon=False)
    axes.grid(True, which="major", alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def format_report(result: dict) -> str:
    """The results as text for a terminal."""
    lines = [
        f"dim {result['dim']}, {result['queries']} queries, k = {result['k']}, CPU time of one thread",
        f"{'rows':>12} {'ms/query':>9} {'recall':>7} {'lists':>6} {'looked into':>11} {'build CPU s':>11} {'index MB':>9} {'rows MB':>8} "
        f"{'touched MB':>10}",
    ]
    for row in result["sizes"]:
        touched = f"{sum(row['touched_mb'].values()):10.0f}" if row["touched_mb"] else f"{'unknown':>10}"
        lines.append(
            f"{row['rows']:12,} {row['ms']:9.2f} {row['recall']:7.4f} {row['lists']:6} {row['probes']:11} {row['build_cpu_s']:11.1f} "
            f"{row['index_mb']:9.0f} {row['rows_mb']:8.0f} {touched}"
        )
    low, high = result["interval"]
    lines.append(
        f"time grows as N to the power {result['exponent']:.2f} (95 % interval over the queries {low:.2f} to {high:.2f})"
    )
    return "\n".join(lines)
