"""Brings a collection up to date with a bundle: what is missing or changed is sent, what is gone is taken out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import StoreError
from ..search.exact import cosines
from .index import Columns, StoreIndex
from .milvus import AUTO, MilvusStore, parse_address
from .protocol import Rows, name_keys

VERSION = "1"  # of the fields in a collection
BLOCK = 16_384  # rows sent between two steps of the progress
FILLING = "being filled"  # in place of the content's fingerprint
COMPARED = 16  # photos whose vectors are compared when a collection is opened


@dataclass(frozen=True)
class Source:
    """What a collection is made of. content: fingerprint of the photos' records and vectors. vectors: fingerprint of the
    encoder and the head that the vectors come from. bundle: the bundle's id, for people."""

    content: str
    vectors: str
    bundle: str

    def metadata(self, dim: int) -> dict[str, str]:
        return {"version": VERSION, "vectors": self.vectors, "dim": str(dim), "content": FILLING, "bundle": self.bundle}


@dataclass(frozen=True)
class FillReport:
    """Photos sent, taken out, and in the collection now; dtype: how it keeps vectors."""

    added: int
    removed: int
    total: int
    dtype: str
    index: str


def fill(
    to: str,
    source: Source,
    vectors: np.ndarray,
    columns: Columns,
    *,
    index_type: str = AUTO,
    progress: Callable[[int, int], None] | None = None,
) -> FillReport:
    """Make the collection at the address `to` hold `vectors` (N, D), unit rows, by the ids in `columns`.

    May be stopped at any time and run again: photos that are there as they should be are not sent twice. While it runs, the
    collection is marked as not whole, and nobody can open it. Raises StoreError.
    """
    count, dim = vectors.shape
    store = MilvusStore.open_or_create(parse_address(to), dim, source.metadata(dim), index_type, count)
    try:
        _check_vectors(store, source, dim)
        classes = name_keys(columns.classes, columns.class_codes)
        licenses = name_keys(columns.licenses, columns.license_codes)
        missing, gone = np.ones(count, bool), []
        for ids, their_classes, their_licenses in store.listing():
            rows, known = columns.places(ids)
            right = known & (classes[rows] == their_classes) & (licenses[rows] == their_licenses)
            missing[rows[right]] = False
            gone.append(ids[~known])
        stale = np.concatenate([np.empty(0, np.int64), *gone])
        rows = np.flatnonzero(missing)
        if len(rows) or len(stale) or store.metadata.get("content") != source.content:
            store.mark({"content": FILLING})
        store.remove(stale)
        for start in range(0, len(rows), BLOCK):
            if progress:
                progress(start, len(rows))
            part = rows[start : start + BLOCK]
            store.add(Rows(columns.ids[part], np.asarray(vectors[part]), classes[part], licenses[part]))
        store.flush()
        there = store.count()
        if there != count:
            raise StoreError(
                f"{store.address.text} holds {there} photos, the bundle {count}. Does something else write into it? Run "
                "`realrag serve-index` again."
            )
        store.mark({"content": source.content, "bundle": source.bundle})
        if progress:
            progress(len(rows), len(rows))
        dtype = "float16" if store.half else "float32"
        return FillReport(len(rows), len(stale), there, dtype, store.index_type)
    finally:
        store.close()


def open_store_index(address: str, source: Source, vectors: np.ndarray, columns: Columns) -> StoreIndex:
    """The index that asks the collection at `address`. Raises StoreError where it does not hold exactly these photos."""
    store = MilvusStore.open(parse_address(address))
    try:
        _check_vectors(store, source, vectors.shape[1])
        content = store.metadata.get("content", "")
        again = f"Bring it up to date with `realrag serve-index BUNDLE --to {store.address.text}`."
        if content == FILLING:
            raise StoreError(f"The collection at {store.address.text} is not whole: filling it was stopped. {again}")
        if content != source.content:
            raise StoreError(
                f"The collection at {store.address.text} holds the photos {content[:12]!r}, of the bundle "
                f"{store.metadata.get('bundle', '')[:12]!r}; this bundle has the photos {source.content[:12]!r}. {again}"
            )
        if (there := store.count()) != len(vectors):
            raise StoreError(
                f"The collection at {store.address.text} holds {there} photos, the bundle {len(vectors)}. {again}"
            )
        _compare(store, vectors, columns, again)
    except BaseException:
        store.close()
        raise
    return StoreIndex(vectors, store, columns)


def _check_vectors(store: MilvusStore, source: Source, dim: int) -> None:
    version, theirs = store.metadata.get("version"), store.metadata.get("vectors", "")
    if version != VERSION:
        raise StoreError(
            f"The collection at {store.address.text} has the fields of version {str(version)[:20]!r}; this RealRAG knows {VERSION}. "
            "Fill another collection with `realrag serve-index`."
        )
    if theirs != source.vectors or store.dim != dim:
        raise StoreError(
            f"The collection at {store.address.text} has vectors {theirs[:12]!r} of {store.dim} dimensions, from another encoder or "
            f"head; this library has {source.vectors[:12]!r} of {dim}. Name a collection of its own for each encoder and head at the "
            "end of the address, or choose the head that it was filled for."
        )


def _compare(store: MilvusStore, vectors: np.ndarray, columns: Columns, again: str) -> None:
    """Whether a few photos lie where their vectors say: asked with its own vector, each scores what it does here."""
    rows = np.unique(np.linspace(0, len(vectors) - 1, COMPARED).astype(np.int64))
    queries = np.asarray(vectors[rows], np.float32)
    for row, query, found in zip(rows, queries, store.search(queries, 1), strict=True):
        mine = cosines(vectors, np.array([row]), query)[0]
        if not len(found.ids) or found.scores[0] < mine - 0.01:
            best = float(found.scores[0]) if len(found.ids) else None
            raise StoreError(
                f"The collection at {store.address.text} finds no photo like {int(columns.ids[row]) & 0xFFFFFFFFFFFFFFFF:016x}: "
                f"best {best}, here {mine:.3f}. It was changed by something else. Drop it. {again}"
            )
