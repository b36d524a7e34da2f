"""`realrag bench search`: time and recall of our search against brute force by numpy, torch and faiss, in one run.

Times are the process's CPU time on one thread, as medians over the queries: other work on the machine disturbs wall
time far more. Compare only ratios within one run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import QueryError
from .filters import format_filters, measure_filters
from .turns import take_turns

K = 10
BATCH = 64
ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows",
        type=int,
        default=200_000,
        help="rows of the seeded library (a million: 4 GB of memory, 2 of disk, 5 to 10 minutes)",
    )
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    real = parser.add_mutually_exclusive_group()
    real.add_argument("--bundle", type=Path, help="real vectors: a bundle's photos, asked with its own captions")
    real.add_argument(
        "--embeddings", type=Path, help="real vectors: a .npy (rows, dim); some rows are held out as queries"
    )
    parser.add_argument(
        "--scratch", type=Path, help="folder for the files of the run (default: the system's temporary one)"
    )
    parser.add_argument(
        "--device", default="cpu", help="accepted for old commands and ignored: index and search run on the CPU"
    )
    parser.add_argument("--filters", action="store_true", help="measure filters too: a few minutes at a million rows")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run(args) -> dict:
    """Measure in separate processes, where the libraries have one thread from their first import.

    One process writes the files and the next opens them, so its memory shows the cost of opening. Returns the results.
    """
    if min(args.rows, args.queries) < 1 or args.dim < 3:
        raise QueryError(
            f"--rows {args.rows} --queries {args.queries} --dim {args.dim}: rows and queries from 1, dim from 3."
        )
    with one_thread(), tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        result = {**alone(prepare, args, Path(scratch)), **alone(measure, Path(scratch))}
        if args.filters:
            result["filters"] = alone(measure_filters, Path(scratch), K)
        return result


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes that are started meanwhile have one thread in every library from its first import."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def alone(step, *given):
    """What `step` returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(step, *given).result()


def prepare(args, scratch: Path) -> dict:
    """Write the vectors and our index of them into `scratch`; returns the time and size."""
    from ..search.index import open_index
    from ..search.ivf import FILE

    library, queries, source = _vectors(args, scratch)
    np.save(scratch / "queries.npy", queries)
    wall, cpu = time.perf_counter(), time.process_time()
    index = open_index(library, scratch, "index", kind="ivf")
    return {
        "source": source,
        "rows": len(library),
        "dim": library.shape[1],
        "queries": len(queries),
        "k": K,
        "built_on": "cpu",
        "build_s": time.perf_counter() - wall,
        "build_cpu_s": time.process_time() - cpu,
        "index_mb": (scratch / "index" / FILE).stat().st_size / 1e6 if index.kind == "ivf" else 0.0,
    }


def measure(scratch: Path) -> dict:
    """Open what `prepare` wrote, and time it against brute force."""
    from ..search.index import ExactIndex, open_index
    from ..search.ivf import usable_faiss

    library, queries = np.load(scratch / "library.npy", mmap_mode="r"), np.load(scratch / "queries.npy")
    usable_faiss()  # imported here, so that the import does not count as opening the index
    opened, used = [], [memory()]
    for _ in range(5):
        start = time.perf_counter()
        index = open_index(library, scratch, "index", kind="ivf")
        opened.append(1e3 * (time.perf_counter() - start))
    used.append(memory())
    for query in queries:
        index.search(query[None], K)
    used.append(memory())
    truth = ExactIndex(library).search(queries, K)[1]
    return {
        "clock": "median CPU time per query on one thread",
        "open_ms": float(np.median(opened)),
        "memory_mb": {
            when: {part: now[part] - used[0][part] for part in now}
            for when, now in zip(("opened", "after all queries"), used[1:], strict=True)
        },
        **_compare(library, queries, index, truth),
    }


def _vectors(args, scratch: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """(library fp16, mapped from a file as a bundle's is; queries float32; a description of their source)."""
    from ..bundle.bundle import unit_rows
    from .clustered_vectors import clustered_rows, text_queries

    if args.bundle:
        from ..files import default_cache
        from ..library import unit_vectors
        from ..retriever import Retriever

        retriever = Retriever.open(args.bundle, cache=default_cache(), kind="exact")
        records = retriever.bundle.records
        captions = sorted({records[row].caption or records[row].class_name for row in range(len(records))} - {""})
        if not captions:
            raise QueryError(
                f"{args.bundle} has no captions to ask with. Use --embeddings, which holds rows out instead."
            )
        queries = retriever.query(captions[:: -(-len(captions) // args.queries)])
        rows = len(records)
        chunks: Iterable[np.ndarray] = [unit_vectors(retriever.bundle, retriever.head)]
        source = f"{args.bundle}, asked with {len(queries)} of its captions"
    elif args.embeddings:
        given = np.load(args.embeddings, mmap_mode="r", allow_pickle=False)
        if given.ndim != 2 or len(given) <= args.queries:
            raise QueryError(
                f"{args.embeddings} has the shape {given.shape}; give (rows, dim) with more rows than --queries."
            )
        held_out = np.linspace(0, len(given) - 1, args.queries).astype(int)
        queries, rows = unit_rows(given[held_out]), len(given) - len(held_out)
        stays = np.setdiff1d(np.arange(len(given)), held_out)
        chunks = (unit_rows(given[stays[at : at + 8192]]) for at in range(0, rows, 8192))
        source = f"{args.embeddings}, asked with {args.queries} rows held out"
    else:
        queries, rows = text_queries(args.queries, args.dim, seed=args.seed), args.rows
        chunks = clustered_rows(rows, args.dim, seed=args.seed)
        source = f"realrag.bench.clustered_vectors, seed {args.seed}"
    library = np.lib.format.open_memmap(scratch / "library.npy", "w+", np.float16, (rows, queries.shape[1]))
    start = 0
    for chunk in chunks:
        library[start : start + len(chunk)] = chunk
        start += len(chunk)
    library.flush()
    return np.load(scratch / "library.npy", mmap_mode="r"), queries, source


def _compare(library: np.ndarray, queries: np.ndarray, index, truth: np.ndarray) -> dict:
    """Times and recall of brute force on float32 in memory, the fastest form for each library, and of ours on mapped fp16."""
    import torch

    from ..search.index import EXACT_LIMIT, ExactIndex
    from ..search.ivf import usable_faiss

    torch.set_num_threads(1)
    faiss = usable_faiss()
    rows = np.empty(library.shape, np.float32)
    for start in range(0, len(rows), 8192):
        rows[start : start + 8192] = library[start : start + 8192]
    tensor = torch.from_numpy(rows)
    k = truth.shape[1]

    def by_numpy(some: np.ndarray) -> np.ndarray:
        scores = some @ rows.T if len(some) > 1 else (rows @ some[0])[None]
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)

    def by_torch(some: np.ndarray) -> np.ndarray:
        return (torch.from_numpy(some) @ tensor.T).topk(k).indices.numpy()

    def by_faiss(some: np.ndarray) -> np.ndarray:  # like IndexFlatIP, without a second copy of the rows
        return faiss.knn(some, rows, k, metric=faiss.METRIC_INNER_PRODUCT)[1]

    engines = {"numpy": by_numpy, "torch": by_torch, "exact": _ask(ExactIndex(library), k)}
    own = None  # how many lists our index searches by default
    if index.kind == "ivf":
        faiss.omp_set_num_threads(1)
        engines["faiss flat"] = by_faiss
        own = index.probes
        for probes in sorted({max(1, own // 4), max(1, own // 2), own, min(2 * own, index.lists)}):
            engines[f"ivf, {probes} lists"] = _ask(index, k, probes)
    times, recall = take_turns(engines, queries, dict.fromkeys(engines, truth))
    batch, table = queries[:BATCH], {}
    base = np.median(times["numpy"])
    for name, search in engines.items():
        begin = time.process_time()
        search(batch)
        table[name] = {
            "ms": 1e3 * float(np.median(times[name])),
            "mean_ms": 1e3 * float(np.mean(times[name])),
            "times_numpy": float(base / np.median(times[name])),
            "recall": recall[name],
            "batch_ms": 1e3 * (time.process_time() - begin) / len(batch),
        }
    used = f"ivf, {own} lists" if own and len(library) > EXACT_LIMIT else "exact"
    return {"ivf_lists": own, "used_at_this_size": used, "engines": table}


def _ask(index, k: int, probes: int | None = None):
    def search(some: np.ndarray) -> np.ndarray:
        if probes:
            index.probes = probes
        return index.search(some, k)[1]

    return search


def memory() -> dict[str, float]:
    """MB of this process: `private` is its own; `mapped` are file pages in use, which the system can reclaim.

    Empty on systems other than Linux, which do not report it.
    """
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    size = {line.split(":")[0]: int(line.split()[1]) / 1e3 for line in lines}
    return {"private": size["Anonymous"], "mapped": size["Rss"] - size["Anonymous"]}


def format_report(result: dict) -> str:
    """The results as text for a terminal."""
    lines = [
        f"{result['rows']:,} x {result['dim']}, {result['queries']} queries, k = {result['k']}: {result['source']}",
        f"{'':>18} {'ms/query':>9} {'x numpy':>8} {'recall@' + str(result['k']):>10} {f'ms in a batch of {BATCH}':>19}",
    ]
    for name, row in result["engines"].items():
        mark = "  <- used at this size" if name == result["used_at_this_size"] else ""
        lines.append(
            f"{name:>18} {row['ms']:9.2f} {row['times_numpy']:7.1f}x {row['recall']:10.4f} {row['batch_ms']:19.2f}"
            + mark
        )
    lines.append(
        f"({result['clock']}. numpy, torch, faiss flat: float32 rows in memory; exact and ivf: ours, on mapped fp16.)"
    )
    if result["ivf_lists"]:
        lines.append(f"By default, ivf searches {result['ivf_lists']} lists.")
    lines.append(
        f"build {result['build_s']:.1f} s ({result['build_cpu_s']:.1f} s CPU), {result['index_mb']:.0f} MB on disk"
    )
    lines.append(f"open, once verified: {result['open_ms']:.1f} ms")
    for when, sizes in result["memory_mb"].items():
        if sizes:
            lines.append(f"memory, {when}: {sizes['private']:.0f} MB own, {sizes['mapped']:.0f} MB mapped")
    if result.get("filters"):
        lines += format_filters(result["filters"])
    return "\n".join(lines)
