"""`realrag bench search` runs every engine and leaves the process as it was."""

import argparse
import json
import os

import numpy as np
import pytest

from realrag.bench import search
from realrag.errors import QueryError
from realrag.indexing.build import build


def arguments(*words):
    parser = argparse.ArgumentParser()
    search.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.mark.slow
def test_every_engine_is_measured_and_the_exact_ones_are_exact(tmp_path):
    environment = dict(os.environ)
    result = search.run(arguments("--rows", 3000, "--dim", 32, "--queries", 12, "--scratch", tmp_path))
    assert os.environ == environment and not list(tmp_path.iterdir())
    assert json.loads(json.dumps(result)) == result
    engines = result["engines"]
    assert {name for name, row in engines.items() if row["recall"] == 1} >= {"numpy", "torch", "faiss flat", "exact"}
    assert result["used_at_this_size"] == "exact" and f"ivf, {result['ivf_lists']} lists" in engines
    assert sum(name.startswith("ivf") for name in engines) >= 3
    report = search.format_report(result)
    assert (
        "<- used at this size" in report and "open, once verified" in report and all(name in report for name in engines)
    )


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
