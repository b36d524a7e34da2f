"""Addresses of indexes: what is read, what is refused, and that no secret stands in them."""

import sys

import pytest

from realrag.errors import StoreError
from realrag.stores.milvus import connect, parse_address


@pytest.mark.parametrize(
    ("text", "uri", "database", "collection"),
    [
        ("milvus://127.0.0.1:19530/photos", "http://127.0.0.1:19530", "", "photos"),
        ("milvus://milvus.studio", "http://milvus.studio:19530", "", "realrag"),
        ("milvus+https://in.cloud/team/my_photos/", "https://in.cloud:443", "team", "my_photos"),
        ("milvus://[::1]:1/p", "http://[::1]:1", "", "p"),
        ("milvus-lite:/data/my%20photos.db#p", "/data/my photos.db", "", "p"),
        ("milvus-lite:photos.db", "photos.db", "", "realrag"),
    ],
)
def test_an_address_is_read(text, uri, database, collection):
    address = parse_address(text)
    assert (address.uri, address.database, address.collection) == (uri, database, collection)
    assert address.local == text.startswith("milvus-lite")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begins with none of"), ("http://127.0.0.1:19530/p", "begins with none of"), (None, "begins with none of"),
        ("milvus:127.0.0.1", "begins with none of"), ("milvus:///p", "names no host"), ("milvus://h/a/b/c", "only a database"),
        ("milvus://h:99999/p", "Port out of range"), ("milvus://h/p?x=1", "more than host"), ("milvus://h/9p", "'9p' is no name"),
        ("milvus://h/p;drop", "no name"), ("milvus-lite:http://h:1/p", "ends in .db"), ("milvus-lite:/data/p#x", "ends in .db"),
        ("milvus-lite:p.db#a b", "no name"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_to_write(text, why):
    with pytest.raises(StoreError, match=why) as caught:
        parse_address(text)
    assert "Write milvus://HOST:19530/COLLECTION" in str(caught.value)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(StoreError, match="REALRAG_MILVUS_TOKEN") as caught:
        parse_address("milvus://root:secret@h/p")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "missing"), [("milvus://127.0.0.1:9/p", "pymilvus"), ("milvus-lite:p.db", "milvus_lite")]
)
def test_what_is_not_installed_is_named_with_its_cure(monkeypatch, address, missing):
    if missing == "milvus_lite":
        pytest.importorskip("pymilvus")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StoreError, match=r'pip install "realrag\[milvus\]"'):
        connect(parse_address(address))
