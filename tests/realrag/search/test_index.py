"""Exact and IVF search against a slow twin; a cached index with anything wrong is rebuilt, never believed."""

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrag.bench.clustered_vectors import clustered_vectors, text_queries
from realrag.errors import QueryError
from realrag.files import sha256_file
from realrag.locks import FolderLock
from realrag.search import exact, ivf
from realrag.search import index as module
from realrag.search.index import ExactIndex, IVFIndex, open_index

ROWS, DIM, K = 1500, 32, 10


@lru_cache
def library(dtype=np.float16):
    """(ROWS, DIM) clustered vectors, some of them many times."""
    rows = clustered_vectors(ROWS, DIM, dtype=dtype)
    rows[200:300] = rows[100]
    rows[700:710] = rows[5]
    return rows


@lru_cache
def lists():
    """An IVF index that looks into every list, so that only its own mistakes could make it differ from exact search."""
    index = IVFIndex(library(), ivf.build_lists(library()))
    index.probes = index.lists
    return index


@pytest.fixture
def no_short_cut(monkeypatch):
    """Filtered searches of a small library go through the lists and their codes too."""
    monkeypatch.setattr(module, "EXACT_SUBSET", 0)
    monkeypatch.setattr(module, "COMPARED", 0)


def slow_search(embeddings, query, k, allowed=None):
    scored = []
    for row, vector in enumerate(embeddings.astype(np.float64)):
        if allowed is None or allowed[row]:
            scored.append((-np.float32((vector * query.astype(np.float64)).sum()), row))
    scored.sort()
    return [-score for score, _ in scored[:k]], [row for _, row in scored[:k]]


def agrees(index, embeddings, queries, k, allowed=None):
    scores, rows = index.search(queries, k, allowed)
    assert scores.dtype == np.float32 and rows.dtype == np.int64
    for at, query in enumerate(queries):
        right_scores, right_rows = slow_search(embeddings, query, k, allowed)
        assert rows[at].tolist() == right_rows
        assert scores[at].tolist() == pytest.approx(right_scores, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 60),
    k=st.integers(1, 80),
    share=st.sampled_from([None, 0.0, 0.1, 0.7, 1.0]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_exact_search_agrees_with_the_slow_twin_on_filters_ties_and_k_beyond_the_end(seed, count, k, share, dtype):
    rng = np.random.default_rng(seed)
    embeddings = text_queries(8, 6, seed=seed).astype(dtype)[rng.integers(0, 8, count)]  # most rows several times
    allowed = None if share is None else rng.random(count) < share
    agrees(ExactIndex(embeddings), embeddings, text_queries(3, 6, seed=seed + 1), k, allowed)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.sampled_from([1, 3, 10, 60, 400, 5000]),
    share=st.sampled_from([None, 0.02, 0.5, 0.9]),
)
def test_ivf_search_agrees_with_the_slow_twin(seed, k, share):
    allowed = None if share is None else np.random.default_rng(seed).random(ROWS) < share
    old, module.EXACT_SUBSET = module.EXACT_SUBSET, 0
    try:
        agrees(lists(), library(), text_queries(2, DIM, seed=seed), k, allowed)
    finally:
        module.EXACT_SUBSET = old


def test_a_hundred_equal_pictures_come_in_row_order_from_both_engines():
    query = library()[100:101].astype(np.float32)
    for index in (ExactIndex(library()), lists()):
        assert index.search(query, K)[1][0].tolist() == [100, *range(200, 209)]


def test_ivf_search_with_its_own_choice_of_lists_finds_nearly_everything(no_short_cut):
    index, queries = IVFIndex(library(), ivf.build_lists(library())), text_queries(50, DIM)
    allowed = np.arange(ROWS) % 3 > 0
    for mask in (None, allowed):
        scores, rows = index.search(queries, K, mask)
        true_scores, _ = ExactIndex(library()).search(queries, K, mask)
        assert np.mean(scores >= true_scores[:, -1:]) > 0.9
        assert (np.diff(scores) <= 0).all() and (mask is None or mask[rows].all())


@pytest.mark.slow
@pytest.mark.parametrize("by", ["chance", "subject"])
@pytest.mark.parametrize("fraction", [0.5, 0.1])
@pytest.mark.parametrize("compared", [0, 10_000])
def test_a_filter_costs_no_recall_whatever_it_leaves(no_short_cut, monkeypatch, by, fraction, compared):
    monkeypatch.setattr(module, "COMPARED", compared)
    rows, queries, rng = clustered_vectors(20_000, 32), text_queries(100, 32), np.random.default_rng(5)
    index = IVFIndex(rows, ivf.build_lists(rows))
    index.probes = index.lists // 4
    if by == "chance":
        allowed = rng.random(len(rows)) < fraction
    else:  # whole lists, so that those nearest to a query often hold nothing
        allowed = (rng.random(index.lists) < fraction)[index.list_of_row]
    recall = []
    for mask in (None, allowed):
        scores, found = index.search(queries, K, mask)
        recall.append(np.mean(scores >= ExactIndex(rows).search(queries, K, mask)[0][:, -1:]))
        assert mask is None or mask[found].all()
    assert recall[1] > recall[0] - 0.02
    assert recall[0] < 1  # or the lists left out would not show


def test_equal_rows_score_equal_bits_whatever_they_are_compared_with():
    query = text_queries(1, DIM)[0]
    together = exact.cosines(library(), np.arange(ROWS), query)
    alone = [exact.cosines(library(), np.array([row]), query)[0] for row in (100, 250, 5, 709)]
    assert alone == [together[100], together[100], together[5], together[5]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), length=st.sampled_from([1e-6, 0.3, 1.0, 900.0, 1e6]), dim=st.sampled_from([3, 64, 511]),
    some=st.booleans(),
)  # fmt: skip
def test_a_product_is_off_by_no_more_than_it_says(seed, length, dim, some):
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(200, 70, replace=False)) if some else None
    embeddings = rng.standard_normal((200, dim))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float16)
    query = (length * embeddings[3].astype(float) + 0.2 * length * rng.standard_normal(dim) / dim**0.5).astype(
        np.float32
    )
    right = embeddings.astype(np.float64) @ query.astype(np.float64)
    scores, slack = exact.products(embeddings, rows, query)
    assert np.abs(scores - (right if rows is None else right[rows])).max() <= slack / 2
    assert slack <= 4e-3 * np.linalg.norm(query)


@pytest.mark.parametrize("quick", [True, False])
def test_one_query_is_answered_alike_with_quick_products_and_without(monkeypatch, quick):
    monkeypatch.setattr(exact, "_sums_in_float32", lambda: quick)
    monkeypatch.setattr(exact, "GATHERED", 100)
    query = library()[100:101].astype(np.float32) * 3
    agrees(ExactIndex(library()), library(), query, K)
    agrees(ExactIndex(library()), library(), query, K, np.arange(ROWS) % 3 == 1)
    assert not exact.products(library(), None, np.zeros(DIM, np.float32))[0].any()


def test_an_exact_search_in_many_parts_is_the_same(monkeypatch):
    queries = text_queries(20, DIM)
    whole = ExactIndex(library()).search(queries, K)
    monkeypatch.setattr(exact, "BLOCK", 64)
    monkeypatch.setattr(exact, "SCORES", 3 * ROWS)
    parts = ExactIndex(library()).search(queries, K)
    assert np.array_equal(whole[0], parts[0]) and np.array_equal(whole[1], parts[1])


@pytest.mark.parametrize(
    "queries, k, allowed, said",
    [
        (np.ones((1, DIM + 1)), K, None, "dimensions"),
        (np.ones(DIM), K, None, "dimensions"),
        (np.full((1, DIM), np.nan), K, None, "not finite"),
        (np.ones((1, DIM)), 0, None, "k is 0"),
        (np.ones((1, DIM)), 2.5, None, "k is 2.5"),
        (np.ones((1, DIM)), K, np.ones(ROWS, int), "one bool"),
        (np.ones((1, DIM)), K, np.ones(3, bool), "one bool"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_in_words(queries, k, allowed, said):
    for index in (ExactIndex(library()), lists()):
        with pytest.raises(QueryError, match=said):
            index.search(queries, k, allowed)


def test_nothing_allowed_and_nothing_asked_give_empty_answers():
    for index in (ExactIndex(library()), lists()):
        assert index.search(text_queries(2, DIM), K, np.zeros(ROWS, bool))[1].shape == (2, 0)
        assert index.search(np.zeros((0, DIM)), K)[1].shape == (0, K)
    assert open_index(np.zeros((0, DIM), np.float16), None, "key", kind="ivf").search(text_queries(1, DIM), K)[
        0
    ].shape == (1, 0)


def test_four_threads_searching_one_index_get_the_answers_of_one():
    queries = text_queries(40, DIM)
    for index in (ExactIndex(library()), lists()):
        alone = [index.search(query[None], K)[1].tolist() for query in queries]
        with ThreadPoolExecutor(4) as threads:
            for _ in range(3):
                assert (
                    list(threads.map(lambda query, index=index: index.search(query[None], K)[1].tolist(), queries))
                    == alone
                )


def test_rows_that_cannot_be_are_never_answered():
    class Liar:
        nlist = 4

        def search(self, queries, depth, params):
            return None, np.array([[-1, ROWS, 2**62, -5, 3, 3, 4] + [-1] * (depth - 7)] * len(queries))

    agrees(IVFIndex(library(), Liar()), library(), text_queries(2, DIM), K)


# The cache


def open_ivf(folder, rows=None, **options):
    return open_index(library() if rows is None else rows, folder, "key", kind="ivf", **options)


def answers(index):
    return [part.tolist() for part in index.search(text_queries(20, DIM), K)]


def test_the_kind_is_chosen_by_size(tmp_path, monkeypatch):
    assert open_index(library(), tmp_path, "key").kind == "exact"
    monkeypatch.setattr(module, "EXACT_LIMIT", ROWS - 1)
    assert open_index(library(), None, "key").kind == "exact"
    assert open_index(library(), tmp_path, "key").kind == "ivf"
    with pytest.raises(QueryError, match="hnsw"):
        open_index(library(), tmp_path, "key", kind="hnsw")


@pytest.mark.parametrize("mapped", [True, False])
def test_a_kept_index_is_opened_and_not_built_again(tmp_path, monkeypatch, mapped):
    first = answers(open_ivf(tmp_path))
    monkeypatch.setattr(ivf, "MAPPED", mapped and ivf.MAPPED)
    monkeypatch.setattr(ivf, "build_lists", None)
    assert answers(open_ivf(tmp_path)) == first


def test_the_kept_file_has_the_same_bytes_however_many_threads_there_are(tmp_path):
    before = faiss.omp_get_max_threads()
    try:
        for number in (1, 2):
            faiss.omp_set_num_threads(number)
            open_ivf(tmp_path / str(number))
            assert faiss.omp_get_max_threads() == number
    finally:
        faiss.omp_set_num_threads(before)
    assert sha256_file(tmp_path / "1/key" / ivf.FILE) == sha256_file(tmp_path / "2/key" / ivf.FILE)


def test_the_limits_of_faiss_are_put_back(tmp_path):
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    open_ivf(tmp_path)
    assert before == (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit())


def damage(path: Path, how: int) -> None:
    data = bytearray(path.read_bytes())
    if how == 0:
        data = b""
    elif how == 1:
        del data[len(data) // 2 :]
    else:
        at = np.random.default_rng(how).integers(0, len(data) if how % 2 else 256)
        data[at] ^= 1 << how % 8
    path.write_bytes(data)


@pytest.mark.slow
def test_a_damaged_index_is_built_anew_and_never_parsed(tmp_path, monkeypatch):
    right = answers(open_ivf(tmp_path))
    path, good = tmp_path / "key" / ivf.FILE, sha256_file(tmp_path / "key" / ivf.FILE)
    read = faiss.read_index

    def careful_read(name, flags):
        assert sha256_file(name) == good
        return read(name, flags)

    monkeypatch.setattr(faiss, "read_index", careful_read)
    for how in range(12):
        damage(path, how)
        assert answers(open_ivf(tmp_path)) == right
        assert sha256_file(path) == good


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"recipe": 1, "sha256": 2}', '{"sha256": "00"}', "{" * 5000])
def test_damaged_facts_about_the_index_make_it_built_anew(tmp_path, text):
    right = answers(open_ivf(tmp_path))
    (tmp_path / "key" / ivf.METADATA).write_text(text)
    assert answers(open_ivf(tmp_path)) == right


def test_an_index_of_other_vectors_under_the_same_key_is_not_used(tmp_path):
    open_ivf(tmp_path)
    others = library()[::-1].copy()
    assert answers(open_ivf(tmp_path, others)) == answers(open_ivf(tmp_path / "elsewhere", others))


def test_what_a_killed_build_left_is_ignored_and_swept(tmp_path):
    folder = tmp_path / "key"
    folder.mkdir()
    left = folder / f".{ivf.FILE}.tmp.99999999.1"
    left.write_bytes(b"half an index")
    os.utime(left, (1, 1))
    (folder / "ivf.lock").write_text("99999999")
    assert open_ivf(tmp_path).kind == "ivf"
    assert sorted(path.name for path in folder.iterdir()) == [ivf.FILE, ivf.METADATA, "verdicts.json"]


def test_a_build_can_be_stopped_and_leaves_nothing(tmp_path):
    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_ivf(tmp_path, progress=stop)
    assert not (tmp_path / "key").exists()


def test_progress_goes_from_nothing_to_all(tmp_path):
    seen = []
    open_ivf(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert (
        seen[0][0] == 0
        and seen[-1][0] == seen[-1][1]
        and seen == sorted(seen)
        and len({total for _, total in seen}) == 1
    )


def test_while_another_process_builds_search_is_exact(tmp_path, caplog):
    with FolderLock(tmp_path / "key" / "ivf.lock"):
        assert open_ivf(tmp_path).kind == "exact"
    assert "exactly" in caplog.text


def test_a_cache_that_cannot_be_written_costs_only_the_keeping(tmp_path, caplog):
    (tmp_path / "key").write_text("a file where the folder should be")
    assert answers(open_ivf(tmp_path)) == answers(open_ivf(None))
    assert "cannot be kept" in caplog.text


def test_without_faiss_search_is_exact_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = open_ivf(tmp_path)
    assert index.kind == "exact" and "faiss" in caplog.text
    agrees(index, library(), text_queries(2, DIM), K)


def test_an_old_faiss_is_not_trusted_with_files(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(faiss, "__version__", "1.13.2")
    with caplog.at_level(logging.WARNING):
        assert open_ivf(tmp_path).kind == "exact"
    assert "1.13.2 is too old" in caplog.text


@pytest.mark.parametrize("rows", [1, 2, 9, 40])
def test_a_handful_of_rows_can_be_indexed_too(tmp_path, rows):
    few = library()[:rows]
    agrees(open_ivf(tmp_path, few), few, text_queries(2, DIM), K)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.05, 0.1, 0.3, 1.0])
def test_the_rows_of_a_filter_are_counted_right_at_any_density(fraction):
    allowed = np.random.default_rng(3).random(50_000) < fraction
    assert np.array_equal(module._true_rows(allowed), np.flatnonzero(allowed))
