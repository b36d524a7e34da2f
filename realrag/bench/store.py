"""`realrag bench store`: seeded vectors in a collection of milvus-lite or of a server, what filling and asking take, and how many of
the best are found once the rows at hand have compared what the store proposes."""

from __future__ import annotations

import argparse
import time

import numpy as np

from ..errors import QueryError

K = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to", required=True, metavar="ADDRESS", help="of a collection of its own, such as milvus-lite:NEW.db#bench"
    )
    parser.add_argument("--index-type", default="IVF_SQ8", help="of the collection (default %(default)s)")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run(args: argparse.Namespace) -> dict:
    """Fill the collection with what it lacks, then ask it and exact search in turns."""
    if min(args.rows, args.queries) < 1 or args.dim < 3:
        raise QueryError(
            f"--rows {args.rows} --queries {args.queries} --dim {args.dim}: rows and queries from 1, dim from 3."
        )
    from ..search.index import ExactIndex, Index
    from ..stores.fill import Source, fill, open_store_index
    from ..stores.index import Columns
    from .clustered_vectors import clustered_vectors, text_queries

    vectors, queries = (
        clustered_vectors(args.rows, args.dim, seed=args.seed),
        text_queries(args.queries, args.dim, seed=args.seed),
    )
    codes = np.zeros(args.rows, np.int32)
    columns = Columns(np.arange(args.rows, dtype=np.int64), codes, ("seeded",), codes, ("CC0-1.0",))
    source = Source(f"seeded-{args.rows}-{args.dim}-{args.seed}", f"seeded-{args.dim}", "bench")
    begun, spent = time.perf_counter(), time.process_time()
    report = fill(args.to, source, vectors, columns, index_type=args.index_type)
    filled = time.perf_counter() - begun, time.process_time() - spent
    engines: dict[str, Index] = {
        "store": open_store_index(args.to, source, vectors, columns),
        "exact": ExactIndex(vectors),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    right, engines_found = 0, {}
    for query in queries:
        for name, engine in engines.items():
            begun, spent = time.perf_counter(), time.process_time()
            engines_found[name] = engine.search(query[None], K)[1][0]
            times[name].append((1e3 * (time.perf_counter() - begun), 1e3 * (time.process_time() - spent)))
        right += len(set(engines_found["store"]) & set(engines_found["exact"]))
    return {
        "rows": args.rows, "dim": args.dim, "queries": args.queries, "k": K, "index": report.index, "dtype": report.dtype,
        "added": report.added, "fill_s": filled, "recall": right / (K * args.queries),
        **{f"{name}_ms": np.median(taken, axis=0).tolist() for name, taken in times.items()},
    }  # fmt: skip


def format_report(result: dict) -> str:
    wall, cpu = result["fill_s"]
    return "\n".join(
        [
            f"{result['rows']:,} x {result['dim']} in {result['index']}, {result['dtype']}; {result['queries']} queries, k = {result['k']}",
            f"filling: {result['added']:,} rows sent in {wall:.0f} s ({cpu:.0f} s of CPU time here)",
            f"recall@{result['k']} {result['recall']:.4f}, once the rows at hand have compared what the store proposes",
            *(
                f"a query of the {name}: {result[f'{name}_ms'][0]:.1f} ms by the clock, {result[f'{name}_ms'][1]:.1f} ms of CPU time here"
                for name in ("store", "exact")
            ),
        ]
    )
