"""A library is searched in a Milvus collection where the artist's own file says so, and nowhere else."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def loaded(plugin, tmp_path, monkeypatch):
    """(the loader's module, its folders, the artist's file, which is not there yet)."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    return plugin("nodes.retrieval.load_retriever"), plugin("nodes.folders"), tmp_path / "realrag.json"


def test_without_a_file_and_for_other_libraries_there_is_no_address(loaded):
    load, folders, file = loaded
    assert load.index_address(folders.SHIPPED) is None
    file.write_text('{"indexes": {"other": "milvus://127.0.0.1:9/x"}}')
    assert load.index_address(folders.SHIPPED) is None
    managed = load.LoadReflectiveRetriever.execute(folders.SHIPPED).args[0]
    assert managed.retriever.index.kind == "exact"


def test_the_address_in_the_file_is_asked_and_its_loss_is_told(loaded):
    load, folders, file = loaded
    before = load.LoadReflectiveRetriever.fingerprint_inputs(folders.SHIPPED)
    file.write_text(json.dumps({"indexes": {folders.SHIPPED: "milvus://127.0.0.1:9/sample"}}))
    assert load.LoadReflectiveRetriever.fingerprint_inputs(folders.SHIPPED) == f"{before} milvus://127.0.0.1:9/sample"
    with pytest.raises(Exception, match=r"milvus://127\.0\.0\.1:9/sample (needs pymilvus|could not be reached)"):
        load.LoadReflectiveRetriever.execute(folders.SHIPPED)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"indexes": []}', '{"indexes": {"a": 1}}', '{"indexes": {}, "more": 1}', "{'indexes': {}}", "x" * 70_000],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_an_example_and_no_fingerprint_raises(loaded, text):
    load, folders, file = loaded
    file.write_text(text)
    with pytest.raises(Exception, match=r"realrag\.json .*my-photos"):
        load.index_address(folders.SHIPPED)
    assert load.LoadReflectiveRetriever.fingerprint_inputs(folders.SHIPPED) == ""


def test_an_address_that_is_none_is_refused_before_anything_is_opened(loaded):
    load, folders, file = loaded
    file.write_text(json.dumps({"indexes": {folders.SHIPPED: "http://example.org"}}))
    with pytest.raises(Exception, match="no address of an index"):
        load.LoadReflectiveRetriever.execute(folders.SHIPPED)


def test_the_collection_answers_as_the_library_alone(plugin, loaded, tmp_path):
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed: pip install 'realrag[milvus]'")
    load, folders, file = loaded
    managed = load.LoadReflectiveRetriever.execute(folders.SHIPPED).args[0]
    library = managed.retriever
    fill, module = plugin("realrag.stores.fill"), plugin("realrag.library")
    address = f"milvus-lite:{tmp_path}/store.db#sample"
    source, columns = module.store_source(library.bundle, library.head), module.store_columns(library.bundle)
    fill.fill(address, source, library.vectors, columns)
    file.write_text(json.dumps({"indexes": {folders.SHIPPED: address}}))
    remote = load.LoadReflectiveRetriever.execute(folders.SHIPPED).args[0]
    assert remote is not managed and remote.retriever.index.kind == "store"
    mine, theirs = managed.search("green apples", k=4).as_json(), remote.search("green apples", k=4).as_json()
    assert theirs == mine
    remote.retriever.index.store.close()
