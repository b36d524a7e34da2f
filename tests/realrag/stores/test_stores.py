"""One set of questions that every store must answer alike: our own index and Milvus (in milvus-lite)."""

import numpy as np
import pytest
from milvus_lite_store import lite_address
from unit_rows import unit

from realrag.bench.clustered_vectors import clustered_vectors, text_queries
from realrag.errors import QueryError
from realrag.search.index import IVFIndex
from realrag.search.ivf import build_lists
from realrag.stores.milvus import MilvusStore, parse_address
from realrag.stores.own import OwnStore
from realrag.stores.protocol import ALL, Rows, Where, name_key, name_keys

DIM, COUNT = 16, 600
CLASSES = ("red kite", 'a "quoted" \\ name', "Äpfel, 苹果", "", "class_key in [1]")
LICENSES = ("MIT", "CC-BY-4.0")


def rows(count=COUNT, seed=0, first=0):
    """Rows of clustered vectors; half of the ids are negative, as those of half of all photos are."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(first, first + count)) * 2_000_000_011 * np.where(np.arange(count) % 2, 1, -1)
    classes = name_keys(CLASSES, np.arange(count) % len(CLASSES))
    licenses = name_keys(LICENSES, (np.arange(count) // 7) % 2)
    return Rows(ids.astype(np.int64), clustered_vectors(count, DIM, seed=seed, dtype=np.float32), classes, licenses)


def empty():
    return Rows(np.empty(0, np.int64), np.empty((0, DIM), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.fixture(params=["own", "own lists", "milvus"])
def new_store(request, tmp_path):
    """Makes a store of these rows; each kind gets them as it must: at the start, or one after the other."""
    opened = []

    def make(some: Rows):
        if request.param == "own":
            store = OwnStore(some)
        elif request.param == "own lists":
            index = IVFIndex(some.vectors, build_lists(some.vectors)) if len(some.ids) >= 256 else None
            if index:
                index.probes = index.lists
            store = OwnStore(some, index)
        else:
            address = parse_address(lite_address(tmp_path, f"photos_{len(opened)}"))
            store = MilvusStore.open_or_create(address, DIM, {"version": "test"})
            store.add(some)
            opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


def slow(some: Rows, query, k, passes=None):
    """[(score, id)] by float64, best first."""
    scored = [
        (-float(vector.astype(np.float64) @ query), int(id))
        for at, (id, vector) in enumerate(zip(some.ids, some.vectors, strict=True))
        if passes is None or passes(at)
    ]
    return [(-score, id) for score, id in sorted(scored)[:k]]


def agrees(store, some: Rows, k=10, where=ALL, passes=None):
    queries = text_queries(4, DIM, seed=3)
    answers = store.search(queries, k, where)
    assert len(answers) == len(queries)
    for query, found in zip(queries, answers, strict=True):
        right = slow(some, query.astype(np.float64), k, passes)
        assert found.scores.dtype == np.float32 and found.ids.dtype == np.int64
        assert found.scores == pytest.approx([score for score, _ in right], abs=2e-3)
        by_id = {int(id): vector for id, vector in zip(some.ids, some.vectors, strict=True)}
        assert len(set(found.ids.tolist())) == len(found.ids), "no photo twice"
        assert found.scores == pytest.approx([by_id[int(id)] @ query for id in found.ids], abs=2e-3), "its own score"


def test_the_best_are_found_and_counted(new_store):
    some = rows()
    store = new_store(some)
    assert store.dim == DIM and store.count() == COUNT
    assert store.filter().tolist() == sorted(some.ids.tolist())
    agrees(store, some)
    agrees(store, some, k=1)


def test_more_than_there_are_is_no_error(new_store):
    some = rows(40)
    agrees(new_store(some), some, k=1000)


def test_an_empty_store_answers_nothing(new_store):
    store = new_store(empty())
    assert store.count() == 0 and len(store.filter()) == 0
    assert [len(found.ids) for found in store.search(text_queries(2, DIM), 3)] == [0, 0]


@pytest.mark.parametrize(
    "where",
    [
        Where(classes=(CLASSES[0],)), Where(classes=CLASSES[1:4]), Where(classes=(CLASSES[4],)), Where(licenses=("MIT",)),
        Where(classes=CLASSES[:2], licenses=("MIT",)), Where(classes=CLASSES[:2], inverted=(True, False)),
        Where(classes=("",), licenses=("MIT",), inverted=(True, True)), Where(classes=("no such class",)),
    ],
)  # fmt: skip
def test_classes_and_licenses_let_through_what_they_name_whatever_the_names_hold(new_store, where):
    some = rows(300)

    def passes(at):
        of_class, license = CLASSES[at % len(CLASSES)], LICENSES[(at // 7) % 2]
        right_class = not where.classes or (of_class in where.classes) != where.inverted[0]
        return right_class and (not where.licenses or (license in where.licenses) != where.inverted[1])

    store, kept = new_store(some), [at for at in range(300) if passes(at)]
    assert store.count(where) == len(kept)
    assert store.filter(where).tolist() == sorted(some.ids[kept].tolist())
    agrees(store, some, where=where, passes=passes)


def test_adding_twice_keeps_one_and_the_last_counts(new_store):
    some, other = rows(), rows(seed=9)
    store = new_store(some)
    store.add(some)
    assert store.count() == COUNT
    part = slice(0, 50)
    store.add(Rows(some.ids[part], other.vectors[part], some.classes[part], some.licenses[part]))
    changed = Rows(some.ids, some.vectors.copy(), some.classes, some.licenses)
    changed.vectors[part] = other.vectors[part]
    assert store.count() == COUNT
    agrees(store, changed)


def test_what_is_removed_is_found_no_more_and_can_come_back(new_store):
    some = rows()
    store = new_store(some)
    gone = np.flatnonzero(some.classes == name_key(CLASSES[0]))
    store.remove(some.ids[gone])
    store.remove(np.array([12345], np.int64))  # not there
    assert store.count() == COUNT - len(gone) and store.count(Where(classes=(CLASSES[0],))) == 0
    agrees(store, some, passes=lambda at: at % len(CLASSES) != 0)
    back = gone[:5]
    store.add(Rows(some.ids[back], some.vectors[back], some.classes[back], some.licenses[back]))
    assert store.filter(Where(classes=(CLASSES[0],))).tolist() == sorted(some.ids[back].tolist())
    agrees(store, some, passes=lambda at: at % len(CLASSES) != 0 or at in back)
    store.remove(some.ids[back])
    assert store.count() == COUNT - len(gone)


def test_later_photos_are_ranked_among_the_first_ones(new_store):
    some, more = rows(300), rows(100, seed=4, first=1000)
    store = new_store(some)
    store.add(more)
    pairs = ((some.ids, more.ids), (some.vectors, more.vectors), (some.classes, more.classes))
    both = Rows(*map(np.concatenate, (*pairs, (some.licenses, more.licenses))))
    assert store.count() == 400
    agrees(store, both)


def test_a_query_of_zeros_scores_nothing(new_store):
    (found,) = new_store(rows(50)).search(np.zeros((1, DIM), np.float32), 3)
    assert found.scores.tolist() == [0, 0, 0]


@pytest.mark.parametrize("k", [0, -1, True, 1.5])
def test_a_senseless_k_is_refused(new_store, k):
    with pytest.raises(QueryError, match="1 or more"):
        new_store(rows(20)).search(text_queries(1, DIM), k)


def test_queries_and_rows_that_do_not_fit_are_refused(new_store):
    some = rows(20)
    store = new_store(some)
    for queries in (text_queries(1, DIM + 1), np.full((1, DIM), np.nan, np.float32)):
        with pytest.raises(QueryError, match=f"\\(queries, {DIM}\\) finite"):
            store.search(queries, 1)
    with pytest.raises(QueryError, match=f"\\(20, {DIM}\\)"):
        store.add(Rows(some.ids, some.vectors[:, 1:], some.classes, some.licenses))
    with pytest.raises(QueryError, match="each photo once"):
        store.add(Rows(np.zeros(20, np.int64), some.vectors, some.classes, some.licenses))
    assert store.count() == 20


def test_half_precision_rows_are_taken(new_store):
    some = rows(60)
    store = new_store(Rows(some.ids, unit(some.vectors, np.float16), some.classes, some.licenses))
    agrees(store, some)
