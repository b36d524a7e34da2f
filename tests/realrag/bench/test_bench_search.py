"""`realrag bench search` runs every engine and leaves the process as it was."""

import argparse
import json
import os

import numpy as np
import pytest

from realrag.bench import search
from realrag.bench.filters import FRACTIONS, format_filters
from realrag.errors import QueryError
from realrag.indexing.build import build


def arguments(*words):
    parser = argparse.ArgumentParser()
    search.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.mark.slow
def test_every_engine_is_measured_and_the_exact_ones_are_exact(tmp_path):
    environment = dict(os.environ)
    result = search.run(arguments("--rows", 3000, "--dim", 32, "--queries", 12, "--filters", "--scratch", tmp_path))
    assert os.environ == environment and not list(tmp_path.iterdir())
    assert json.loads(json.dumps(result)) == result
    engines = result["engines"]
    assert {name for name, row in engines.items() if row["recall"] == 1} >= {"numpy", "torch", "faiss flat", "exact"}
    assert result["used_at_this_size"] == "exact" and f"ivf, {result['ivf_lists']} lists" in engines
    assert sum(name.startswith("ivf") for name in engines) >= 3
    assert result["filters"][0]["filter"] == "none" and len(result["filters"]) > 3 * len(FRACTIONS)
    assert min(row["recall"] for row in result["filters"]) > 0.9  # exact where a filter leaves few rows
    report = search.format_report(result)
    assert (
        "<- used at this size" in report and "open, once verified" in report and all(name in report for name in engines)
    )


def test_filters_are_measured_beside_none():
    rows = [
        {"filter": "none", "rows": 9, "ms": 1.0, "times_unfiltered": 1.0, "recall": 0.99},
        {"filter": "half", "rows": 4, "ms": 2.0, "times_unfiltered": 2.0, "recall": 0.98},
    ]
    assert "at most 2.00 times the time, and costs at most 0.0100 of recall" in format_filters(rows)[-1]


def test_real_vectors_are_asked_with_rows_that_were_held_out(tmp_path):
    rows = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    library, queries, _ = search._vectors(arguments("--embeddings", tmp_path / "rows.npy", "--queries", 20), tmp_path)
    assert library.shape == (480, 16) and library.dtype == np.float16 and queries.shape == (20, 16)
    assert (queries @ library.T.astype(np.float32)).max() < 0.999


@pytest.mark.parametrize("words", [("--rows", 0), ("--dim", 2), ("--queries", 0)])
def test_a_benchmark_of_nothing_is_refused(words):
    with pytest.raises(QueryError, match="dim from 3"):
        search.run(arguments(*words))


def test_a_bundle_is_asked_with_its_own_captions(photos, tmp_path, encoder, monkeypatch):
    build(photos, tmp_path / "b", encoder)
    monkeypatch.setattr("realrag.library.own_encoder", lambda bundle, device: encoder)
    library, queries, source = search._vectors(arguments("--bundle", tmp_path / "b"), tmp_path)
    assert library.shape == (15, 13) and queries.shape == (3, 13)
    assert source.endswith("asked with 3 of its captions")
