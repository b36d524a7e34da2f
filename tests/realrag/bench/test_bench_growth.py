"""`realrag bench growth` goes on where it was stopped, and its true answers and exponent are those of slow twins."""

import argparse
import json

import numpy as np
import pytest

from realrag.bench import growth
from realrag.bench.clustered_vectors import clustered_vectors
from realrag.errors import QueryError
from realrag.search.index import ExactIndex


def arguments(*words):
    parser = argparse.ArgumentParser()
    growth.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.mark.slow
def test_a_run_measures_all_sizes_draws_them_and_another_builds_nothing(tmp_path):
    words = (
        "--rows",
        1000,
        2500,
        "--dim",
        16,
        "--queries",
        8,
        "--folder",
        tmp_path / "g",
        "--graph",
        tmp_path / "g.svg",
    )
    result = growth.run(arguments(*words))
    assert [row["rows"] for row in result["sizes"]] == [1000, 2500]
    assert all(row["recall"] > 0.9 and row["ms"] > 0 and row["index_mb"] > 0 for row in result["sizes"])
    assert result["interval"][0] <= result["exponent"] <= result["interval"][1]
    assert (tmp_path / "g.svg").read_text().startswith("<?xml")
    report = growth.format_report(result)
    assert "1,000" in report and "2,500" in report and "to the power" in report
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "g").rglob("*") if path.is_file()}
    again = growth.run(arguments(*words[:-2]))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "g").rglob("*") if path.is_file()} == stamps
    assert [row["build_cpu_s"] for row in again["sizes"]] == [row["build_cpu_s"] for row in result["sizes"]]


def test_rows_that_were_half_made_are_finished_and_the_true_answers_are_exact(tmp_path, monkeypatch):
    monkeypatch.setattr("realrag.bench.clustered_vectors.CHUNK", 64)
    monkeypatch.setattr(growth, "BLOCK", 100)
    growth.make_rows(tmp_path, [1000, 3000], 16, 5, 3)
    whole = np.load(tmp_path / "rows.npy").copy()
    assert np.array_equal(whole, clustered_vectors(3000, 16, seed=3))
    state = json.loads((tmp_path / "rows.json").read_text())
    (tmp_path / "rows.json").write_text(json.dumps({**state, "chunks": 20}))
    half = np.load(tmp_path / "rows.npy", mmap_mode="r+")
    half[20 * 64 :] = 0
    half.flush()
    growth.make_rows(tmp_path, [1000, 3000], 16, 5, 3)
    assert np.array_equal(np.load(tmp_path / "rows.npy"), whole)
    queries = np.load(tmp_path / "queries.npy")
    for size in (1000, 3000):
        right = ExactIndex(whole[:size]).search(queries, growth.K)[1]
        assert np.load(tmp_path / f"truth-{size}.npy").tolist() == right.tolist()
    with pytest.raises(QueryError, match="Name another --folder"):
        growth.make_rows(tmp_path, [1000, 3000], 8, 5, 3)


def test_the_exponent_is_that_of_the_curve_and_its_interval_holds_it():
    sizes, rng = [1000, 10_000, 100_000], np.random.default_rng(0)
    times = np.stack([3e-6 * size**0.5 * rng.lognormal(0, 0.1, 60) for size in sizes])
    found = growth._exponent(sizes, times)
    low, high = found["interval"]
    assert abs(found["exponent"] - 0.5) < 0.05 and low < 0.5 < high and high - low < 0.1


@pytest.mark.parametrize(
    "words", [("--rows", 1000), ("--rows", 1000, 1000), ("--rows", 10, 2000), ("--queries", 1), ("--dim", 2)]
)
def test_a_measurement_of_nothing_is_refused(words):
    with pytest.raises(QueryError, match="two sizes"):
        growth.run(arguments(*words))
