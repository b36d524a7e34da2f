"""The benchmark's vectors are what they are said to be, and stay so."""

import numpy as np
import pytest

import realrag.bench.clustered_vectors as made
from realrag.bench.clustered_vectors import CHUNK, clustered_rows, clustered_vectors, text_queries


def test_the_numbers_that_set_the_difficulty_are_those_the_benchmark_was_frozen_with():
    world = (made.CONE, made.TOPIC, made.NOISE, made.SPREAD)
    assert world == (0.5, 0.3, 0.2, 0.7)
    assert (made.SUBSPACE, made.TOPICS, made.ZIPF, CHUNK) == (64, 2000, 1.0, 16_384)


@pytest.mark.slow
def test_the_vectors_are_the_same_on_every_machine_and_numpy():
    rows = clustered_vectors(CHUNK + 1, 512, dtype=np.float32)
    assert rows[0, :4].tolist() == pytest.approx([0.00071358, -0.03699531, -0.05757377, 0.00423033], abs=1e-6)
    assert rows[CHUNK, :3].tolist() == pytest.approx([0.03576022, -0.02750686, 0.00855544], abs=1e-6)
    queries = text_queries(200, 512)
    assert queries[0, :4].tolist() == pytest.approx([0.01774299, -0.05152256, -0.07349698, -0.05975715], abs=1e-6)
    weights = np.cos(np.arange(512))  # any other draw anywhere gives another sum
    assert np.abs(rows[:2000] @ weights).sum() == pytest.approx(909.2551, abs=0.02)
    assert np.abs(queries @ weights).sum() == pytest.approx(85.34746, abs=0.002)


@pytest.mark.slow
def test_the_statistics_are_those_of_the_docstring():
    rows, queries = clustered_vectors(4000, 512, dtype=np.float32), text_queries(200, 512)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(queries, axis=1) == pytest.approx(1, abs=1e-5)
    between = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    assert between.mean() == pytest.approx(0.506, abs=0.005)
    assert np.quantile(between, 0.999) == pytest.approx(0.74, abs=0.02)  # the nearest of one topic
    across = queries @ rows.T
    assert across.mean() == pytest.approx(0.005, abs=0.005)  # texts lie far from every picture
    assert across.max(axis=1).mean() == pytest.approx(0.24, abs=0.03)


def test_a_smaller_library_is_the_beginning_of_a_larger_one():
    large = clustered_vectors(CHUNK + 50, 16)
    assert np.array_equal(clustered_vectors(CHUNK + 7, 16), large[: CHUNK + 7])
    assert np.array_equal(clustered_vectors(30, 16), large[:30])
    assert [len(chunk) for chunk in clustered_rows(CHUNK + 50, 16)] == [CHUNK, 50]


def test_another_seed_is_another_world_and_queries_are_no_rows():
    assert not np.array_equal(clustered_vectors(10, 16, seed=1), clustered_vectors(10, 16, seed=2))
    assert np.abs(clustered_vectors(500, 64, dtype=np.float32) @ text_queries(500, 64).T).max() < 0.7
