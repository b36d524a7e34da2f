"""Filling a collection: resumable, idempotent, marked while it is not whole, and never of a bundle that does not fit."""

import json
import shutil

import numpy as np
import pytest
from made_photos import photo_bytes
from milvus_lite_store import lite_address

from realrag.bench.clustered_vectors import clustered_vectors, text_queries
from realrag.bundle.records import Filters
from realrag.commands.main import main
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import StoreError
from realrag.indexing.build import build
from realrag.indexing.options import IndexOptions
from realrag.library import store_columns, store_source, unit_vectors
from realrag.retriever import Retriever
from realrag.search.index import ExactIndex
from realrag.stores import fill as module
from realrag.stores.fill import Source, fill, open_store_index
from realrag.stores.index import Columns, StoreIndex
from realrag.stores.milvus import MilvusStore, connect, parse_address
from realrag.stores.protocol import Rows

COUNT, DIM, SOURCE = 500, 16, Source("content", "vectors", "bundle")


def columns(count=COUNT):
    codes = (np.arange(count) % 4).astype(np.int32)
    return Columns(np.arange(count, dtype=np.int64) * 3, codes, tuple("abcd"), codes % 2, ("x", "y"))


@pytest.fixture
def address(tmp_path):
    return lite_address(tmp_path)


@pytest.fixture
def vectors():
    return clustered_vectors(COUNT, DIM)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["FLAT", "IVF_SQ8", "HNSW", "AUTOINDEX"])
def test_each_kind_of_index_finds_nearly_all(address, kind):
    vectors, queries = clustered_vectors(2000, DIM), text_queries(40, DIM)
    assert fill(address, SOURCE, vectors, columns(2000), index_type=kind).index == kind
    index = open_store_index(address, SOURCE, vectors, columns(2000))
    scores, _ = index.search(queries, 10)
    right, _ = ExactIndex(vectors).search(queries, 10)
    assert np.mean(scores >= right[:, -1:]) > 0.95
    index.store.close()


def test_a_second_run_sends_nothing(address, vectors):
    report = fill(address, SOURCE, vectors, columns())
    assert (report.added, report.removed, report.total) == (COUNT, 0, COUNT)
    assert report.dtype in ("float16", "float32")
    report = fill(address, SOURCE, vectors, columns())
    assert (report.added, report.removed, report.total) == (0, 0, COUNT)


def test_a_run_that_was_stopped_goes_on_and_cannot_be_opened_before(address, vectors, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 100)

    def stop(done, total):
        if done == 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(address, SOURCE, vectors, columns(), progress=stop)
    with pytest.raises(StoreError, match="not whole"):
        open_store_index(address, SOURCE, vectors, columns())
    seen = []
    report = fill(address, SOURCE, vectors, columns(), progress=lambda *step: seen.append(step))
    assert report.added == 200 and seen[-1] == (200, 200)
    index = open_store_index(address, SOURCE, vectors, columns())
    assert index.search(vectors[7:8].astype(np.float32), 1)[1].tolist() == [[7]]
    index.store.close()


def test_what_changed_is_sent_and_what_is_gone_taken_out(address, vectors):
    fill(address, SOURCE, vectors, columns())
    changed = columns()
    changed.class_codes[:30] = (changed.class_codes[:30] + 1) % 4
    kept = slice(0, 400)
    fewer = Columns(
        changed.ids[kept], changed.class_codes[kept], changed.classes, changed.license_codes[kept], changed.licenses
    )
    later = Source("other content", "vectors", "bundle")
    report = fill(address, later, vectors[kept], fewer)
    assert (report.added, report.removed, report.total) == (30, 100, 400)
    with pytest.raises(StoreError, match=r"'other conten'.*'content'.*serve-index"):
        open_store_index(address, SOURCE, vectors, columns())
    open_store_index(address, later, vectors[kept], fewer).store.close()


def test_a_collection_of_another_encoder_or_size_is_refused_and_left_alone(address, vectors):
    fill(address, SOURCE, vectors, columns())
    for other, rows in ((Source("content", "other", "bundle"), vectors), (SOURCE, vectors[:, :8])):
        for use in (fill, open_store_index):
            with pytest.raises(StoreError, match=r"another encoder or head.*a collection of its own"):
                use(address, other, rows, columns())
    open_store_index(address, SOURCE, vectors, columns()).store.close()


def test_a_collection_that_others_made_or_changed_is_refused(address, vectors):
    client = connect(parse_address(address))
    client.create_collection("photos", dimension=DIM)
    client.close()
    for use in (fill, open_store_index):
        with pytest.raises(StoreError, match="not made by RealRAG, and is left as it is"):
            use(address, SOURCE, vectors, columns())
    mine = address.replace("#photos", "#mine")
    fill(mine, SOURCE, vectors, columns())
    store = MilvusStore.open(parse_address(mine))
    store.remove(np.array([3], np.int64))
    store.close()
    with pytest.raises(StoreError, match=f"{COUNT - 1} photos, the bundle {COUNT}"):
        open_store_index(mine, SOURCE, vectors, columns())
    store = MilvusStore.open(parse_address(mine))
    turned = -vectors.astype(np.float32)
    store.add(Rows(columns().ids, turned, *2 * [np.zeros(COUNT, np.int64)]))
    store.close()
    with pytest.raises(StoreError, match="finds no photo like"):
        open_store_index(mine, SOURCE, vectors, columns())


def test_nobody_there_and_nothing_there_are_told_apart(address, vectors):
    with pytest.raises(StoreError, match=r"no collection 'photos'.*serve-index"):
        open_store_index(address, SOURCE, vectors, columns())
    with pytest.raises(StoreError, match=r"could not be reached.*server runs"):
        open_store_index("milvus://127.0.0.1:9/photos", SOURCE, vectors, columns())


def test_a_token_is_never_part_of_an_error(monkeypatch, vectors, address):
    monkeypatch.setenv("REALRAG_MILVUS_TOKEN", "root:secret")
    with pytest.raises(StoreError) as caught:
        open_store_index("milvus://127.0.0.1:9/photos", SOURCE, vectors, columns())
    assert "secret" not in str(caught.value)


@pytest.fixture
def filled(photos, tmp_path, encoder):
    """(bundle, address): the bundle of `photos` by the fake encoder, and its collection."""
    bundle = tmp_path / "b"
    build(photos, bundle, encoder)
    address = lite_address(tmp_path)
    assert main(["serve-index", str(bundle), "--to", address]) == 0
    return bundle, address


@pytest.mark.slow
def test_a_retriever_answers_the_same_through_the_collection(filled, encoder, tmp_path):
    bundle, address = filled
    local = Retriever.open(bundle, encoder=encoder, cache=tmp_path / "cache")
    remote = Retriever.open(bundle, encoder=encoder, cache=tmp_path / "cache", index=address)
    assert isinstance(remote.index, StoreIndex)
    some = local.bundle.records[3].id
    for options in (
        {}, {"find_by": "look"}, {"find_by": "name"}, {"k": 9, "page": 2}, {"diversity": 0.7}, {"min_score": None},
        {"filters": Filters(classes=("red", "blue"))}, {"filters": Filters(exclude_ids=(some,))}, {"pinned": [some]},
        {"filters": Filters(licences=("nothing",))},
    ):  # fmt: skip
        for text in ("red", "a green thing next to something blue", "blue without red"):
            mine, theirs = local.search(text, **options).as_json(), remote.search(text, **options).as_json()
            assert theirs == mine, (text, options)
    remote.index.store.close()


def test_a_bundle_that_changed_needs_the_collection_brought_up_to_date(filled, photos, encoder, tmp_path, capsys):
    bundle, address = filled
    (photos / "red" / "more.jpg").write_bytes(photo_bytes((250, 20, 20), 99))
    shutil.rmtree(photos / "blue")
    build(photos, bundle, encoder, IndexOptions(max_removed=100))
    with pytest.raises(StoreError, match="this bundle has the photos"):
        Retriever.open(bundle, encoder=encoder, index=address)
    capsys.readouterr()
    assert main(["serve-index", str(bundle), "--to", address, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["added"], report["removed"], report["total"]) == (1, 5, 11)
    remote = Retriever.open(bundle, encoder=encoder, index=address)
    assert {item.class_name for item in remote.search("red", k=6).items} == {"red"}
    remote.index.store.close()


@pytest.mark.slow
def test_each_head_has_a_collection_of_its_own(filled, encoder, tmp_path, photos):
    bundle, address = filled
    save_head(ReflectiveHead(encoder.dim, 4), tmp_path / "head.safetensors")
    build(photos, bundle, encoder, IndexOptions(head=tmp_path / "head.safetensors"))
    plain = Retriever.open(bundle, encoder=encoder, head=None, index=address)  # a head more changes no photo
    with pytest.raises(StoreError, match="another encoder or head"):
        plain.with_head("auto")
    plain.index.store.close()
    assert main(["serve-index", str(bundle), "--to", address.replace("#photos", "#through_head")]) == 0
    through = Retriever.open(bundle, encoder=encoder, index=address.replace("#photos", "#through_head"))
    assert through.head is not None and len(through.search("red", k=3)) == 3
    through.index.store.close()


def test_the_source_names_photos_and_vectors_and_nothing_else(bundle):
    from realrag.bundle.bundle import Bundle

    opened = Bundle(bundle)
    source, columns = store_source(opened), store_columns(opened)
    assert source.bundle == opened.id and source.content != source.vectors
    assert [f"{int(id) & (1 << 64) - 1:016x}" for id in columns.ids] == [record.id for record in opened.records]
    rows, known = columns.places(np.append(columns.ids, 5))
    assert rows[:-1].tolist() == list(range(len(opened.records))) and known.tolist() == [True] * len(columns.ids) + [
        False
    ]
    assert unit_vectors(opened).shape == (len(columns.ids), opened.manifest.dim)
