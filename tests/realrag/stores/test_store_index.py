"""The index that asks a store answers as exact search over the same rows: rank, scores, ties, filters."""

import numpy as np
import pytest
from milvus_lite_store import lite_address

from realrag.bench.clustered_vectors import clustered_vectors, text_queries
from realrag.errors import QueryError
from realrag.search.index import ExactIndex
from realrag.stores import index as module
from realrag.stores.fill import Source, fill, open_store_index
from realrag.stores.index import Columns, StoreIndex
from realrag.stores.own import OwnStore
from realrag.stores.protocol import Found, Rows, name_keys

COUNT, DIM, SOURCE = 3000, 24, Source("content", "vectors", "bundle")


def library():
    """fp16 rows, a few hundred of them equal, in 40 classes and 3 licenses."""
    vectors = clustered_vectors(COUNT, DIM)
    vectors[1000:1700] = vectors[50]
    rng = np.random.default_rng(1)
    columns = Columns(
        rng.permutation(COUNT).astype(np.int64) * 7 - COUNT, (np.arange(COUNT) // 75).astype(np.int32),
        tuple(f"class {number}" for number in range(40)), rng.integers(0, 3, COUNT).astype(np.int32), ("a", "b", "c"),
    )  # fmt: skip
    return vectors, columns


VECTORS, COLUMNS = library()


@pytest.fixture(scope="module", params=["own", "milvus"])
def asking(request, tmp_path_factory):
    """The index of the library, asked through this kind of store."""
    if request.param == "own":
        keys = name_keys(COLUMNS.classes, COLUMNS.class_codes), name_keys(COLUMNS.licenses, COLUMNS.license_codes)
        yield StoreIndex(VECTORS, OwnStore(Rows(COLUMNS.ids, VECTORS, *keys)), COLUMNS)
        return
    address = lite_address(tmp_path_factory.mktemp("lite"))
    fill(address, SOURCE, VECTORS, COLUMNS)
    index = open_store_index(address, SOURCE, VECTORS, COLUMNS)
    yield index
    index.store.close()


@pytest.fixture(autouse=True)
def no_short_cut(monkeypatch):
    """Filters that leave few rows go to the store too."""
    monkeypatch.setattr(module, "EXACT_SUBSET", 0)


def agrees(index, queries, k, allowed=None):
    scores, rows = index.search(queries, k, allowed)
    right_scores, right_rows = ExactIndex(VECTORS).search(queries, k, allowed)
    assert rows.tolist() == right_rows.tolist()
    assert scores == pytest.approx(right_scores, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 10, 100])
def test_rank_and_scores_are_those_of_exact_search(asking, k):
    agrees(asking, text_queries(20, DIM), k)


def test_equal_photos_come_in_row_order_however_many_there_are(asking):
    query = VECTORS[50:51].astype(np.float32)
    agrees(asking, query, 10)
    assert asking.search(query, 3)[1][0].tolist() == [50, 1000, 1001]


@pytest.mark.slow
@pytest.mark.parametrize(
    "allowed",
    [
        COLUMNS.class_codes < 3, COLUMNS.class_codes > 1, COLUMNS.license_codes == 2,
        (COLUMNS.license_codes == 0) & (COLUMNS.class_codes % 2 == 0), np.arange(COUNT) % 3 > 0, np.arange(COUNT) % 50 == 7,
        np.arange(COUNT) != 50, np.arange(COUNT) < 2, np.zeros(COUNT, bool), np.ones(COUNT, bool),
    ],
)  # fmt: skip
def test_filters_by_class_license_and_id_leave_the_right_rows(asking, allowed):
    agrees(asking, text_queries(10, DIM, seed=2), 10, allowed)
    agrees(asking, VECTORS[50:51].astype(np.float32), 10, allowed)


def test_the_store_gets_the_narrowest_filter_that_lets_all_rows_through(asking):
    where, covered = asking._where(np.flatnonzero(COLUMNS.class_codes < 3))
    assert where.classes == ("class 0", "class 1", "class 2") and where.inverted == (False, False) and covered == 225
    where, covered = asking._where(np.flatnonzero(COLUMNS.class_codes != 5))
    assert where.classes == ("class 5",) and where.inverted == (True, False) and covered == COUNT - 75
    assert asking._where(np.arange(COUNT)[::2]) == (module.ALL, COUNT)


@pytest.mark.slow
def test_more_than_there_are_and_a_query_of_zeros(asking):
    agrees(asking, text_queries(2, DIM), COUNT + 5)
    agrees(asking, np.zeros((1, DIM), np.float32), 4)


def test_no_queries_and_senseless_ones(asking):
    assert [part.shape for part in asking.search(np.empty((0, DIM), np.float32), 3)] == [(0, 3), (0, 3)]
    with pytest.raises(QueryError, match="whole number"):
        asking.search(text_queries(1, DIM), 0)
    with pytest.raises(QueryError, match="one bool"):
        asking.search(text_queries(1, DIM), 1, np.ones(5, bool))


class Forgetful(OwnStore):
    """Finds the rows whose ids are odd only, some of them twice, and some that nobody knows."""

    def search(self, queries, k, where=module.ALL):
        found = super().search(queries, k, where)
        odd = [each.ids[each.ids % 2 == 1] for each in found]
        return [Found(np.zeros(0, np.float32), np.concatenate([ids, ids[:3], [10**15, -(10**15)]])) for ids in odd]


def test_what_a_store_says_is_never_believed(monkeypatch):
    keys = name_keys(COLUMNS.classes, COLUMNS.class_codes), name_keys(COLUMNS.licenses, COLUMNS.license_codes)
    index = StoreIndex(VECTORS, Forgetful(Rows(COLUMNS.ids, VECTORS, *keys)), COLUMNS)
    odd = COLUMNS.ids % 2 == 1
    queries = text_queries(5, DIM)
    scores, rows = index.search(queries, 10)
    right_scores, right_rows = ExactIndex(VECTORS).search(queries, 10, odd)
    assert rows.tolist() == right_rows.tolist() and scores == pytest.approx(right_scores, abs=1e-7)
    agrees(index, queries, 10, ~odd)  # it finds none of these: they are compared here
