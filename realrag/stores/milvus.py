"""Milvus as a store: a collection on a server, or in a folder of milvus-lite, through pymilvus.

The address and the token come from whoever runs the program, never from a bundle or a workflow. Written and tested against
milvus-lite; a server takes the same calls, keeps half precision where lite cannot, and has the index that was asked for.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import numpy as np

from ..errors import StoreError, brief
from ..search.index import EXACT_LIMIT, PROBES
from .protocol import ALL, Found, Rows, Where, check_queries, check_rows, name_key

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN = "REALRAG_MILVUS_TOKEN"  # the environment variable with "user:password" or an API key
DEFAULT = "realrag"  # the collection of an address that names none
MOST = 16_384  # hits of a search, and rows of a query, that a server gives at most; lite knows no bound
BATCH = 4 << 20  # bytes of vectors sent at once: a server takes messages of 64 MB
PAGE = 8192  # rows of a listing read at once
TOGETHER = 16  # queries sent at once
SECONDS = 60.0  # for a server's answer
CONNECT = 5.0  # for its first one
# auto: exact up to as many rows as a bundle's own search is, then lists with a byte a dimension. AUTOINDEX is a graph, which
# may miss photos that have many copies; it and the others are for whoever wants them.
AUTO, INDEXES = "auto", ("auto", "FLAT", "IVF_SQ8", "HNSW", "DISKANN", "AUTOINDEX")
LISTS = 1024  # of a segment, which a server fills with some 10^5 rows before it begins another
_BUILD = {"IVF_SQ8": {"nlist": LISTS}, "HNSW": {"M": 32, "efConstruction": 200}}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
HOW = "milvus://HOST:19530/COLLECTION, milvus+https://HOST/COLLECTION or milvus-lite:FOLDER.db#COLLECTION"


@dataclass(frozen=True)
class Address:
    """uri: what pymilvus connects to. text: the address as it was given, which holds no secret."""

    text: str
    uri: str
    database: str
    collection: str

    @property
    def local(self) -> bool:
        return not self.uri.startswith("http")


def parse_address(text: str) -> Address:
    """Raises StoreError. A token never stands in an address, where logs would show it."""

    def bad(why: str) -> StoreError:
        return StoreError(f"{str(text)[:120]!r} is no address of an index: {why}. Write {HOW}.")

    scheme, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    if scheme == "milvus-lite" and colon:
        path, _, collection = rest.partition("#")
        path = unquote(path)
        if not path.endswith(".db"):  # pymilvus takes any other name for that of a server
            raise bad("the name of a local store ends in .db")
        uri, database = path, ""
    elif scheme in ("milvus", "milvus+https") and rest.startswith("//"):
        try:
            parts = urlsplit(f"{'https' if scheme == 'milvus+https' else 'http'}:{rest}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise bad(str(error)) from None
        if parts.username is not None or parts.password is not None:
            raise StoreError(
                f"The address of an index names a user. Put user:password into the environment variable {TOKEN} in place of it."
            )
        if not host or parts.query or parts.fragment:
            raise bad("it names no host, or more than host, port, database and collection")
        *before, collection = parts.path.strip("/").split("/")
        if len(before) > 1:
            raise bad("only a database and a collection stand after the host")
        shown = f"[{host}]" if ":" in host else host
        uri, database = (
            f"{parts.scheme}://{shown}:{port or (443 if parts.scheme == 'https' else 19530)}",
            "".join(before),
        )
    else:
        raise bad("it begins with none of milvus://, milvus+https:// and milvus-lite:")
    collection = collection or DEFAULT
    for name in filter(None, (database, collection)):
        if not _NAME.fullmatch(name):
            raise bad(f"{name[:80]!r} is no name: letters, digits and underscores, not beginning with a digit")
    return Address(text, uri, database, collection)


class MilvusStore:
    """A collection that is there. `metadata`: written by `open_or_create` and `mark`; {} if it is not ours."""

    def __init__(self, address: Address, client: MilvusClient):
        self.address, self._client, self._name = address, client, address.collection
        with self._asked("described"):
            about = client.describe_collection(self._name)
            fields = {field["name"]: field for field in about["fields"]}
            named = (about.get("properties") or {}).items()
            self.metadata = {key.removeprefix("realrag."): value for key, value in named if key.startswith("realrag.")}
            if self.metadata and {"id", "vector", "class_key", "license_key"} <= fields.keys():
                self.dim = int(fields["vector"]["params"]["dim"])
                self.half = _kind_of(fields["vector"]) == "FLOAT16_VECTOR"
                self.index_type = str(client.describe_index(self._name, "vector").get("index_type", ""))
                client.load_collection(self._name, timeout=SECONDS)
                return
        raise StoreError(
            f"The collection {self._name!r} at {address.text} was not made by RealRAG, and is left as it is. Name another one "
            "at the end of the address."
        )

    @classmethod
    def open(cls, address: Address) -> MilvusStore:
        """Raises StoreError where there is no server, or no such collection of ours."""
        client = connect(address)
        with asked(address, "looked up"):
            there = client.has_collection(address.collection)
        if not there:
            raise StoreError(
                f"There is no collection {address.collection!r} at {address.text}. Fill one with `realrag serve-index BUNDLE --to "
                f"{address.text}`."
            )
        return cls(address, client)

    @classmethod
    def open_or_create(
        cls, address: Address, dim: int, metadata: dict[str, str], index_type: str = AUTO, rows: int = 0
    ) -> MilvusStore:
        """The same; an empty collection with this metadata is made where there is none, in half precision if it can be. rows:
        how many it is made for."""
        from pymilvus import DataType, MilvusException

        if index_type == AUTO:
            index_type = "FLAT" if rows <= EXACT_LIMIT else "IVF_SQ8"

        client = connect(address)
        with asked(address, "looked up"):
            there = client.has_collection(address.collection)
        if there:
            return cls(address, client)
        for kind in (DataType.FLOAT16_VECTOR, DataType.FLOAT_VECTOR):
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("vector", kind, dim=dim)
            schema.add_field("class_key", DataType.INT64)
            schema.add_field("license_key", DataType.INT64)
            index = client.prepare_index_params()
            index.add_index("vector", index_type=index_type, metric_type="IP", params=_BUILD.get(index_type, {}))
            try:
                with _quiet:
                    client.create_collection(
                        address.collection, schema=schema, index_params=index, timeout=SECONDS,
                        properties={f"realrag.{key}": value for key, value in metadata.items()},
                    )  # fmt: skip
                break
            except MilvusException as error:
                if kind == DataType.FLOAT_VECTOR or client.has_collection(address.collection):
                    raise StoreError(
                        f"{address.text} made no collection ({_reason(error)}). Check its version, which must be 2.4 or newer, and "
                        f"that it has the index {index_type}."
                    ) from None
        return cls(address, client)

    def mark(self, metadata: dict[str, str]) -> None:
        """Write metadata beside the collection; those of before stay."""
        with self._asked("marked"):
            self._client.alter_collection_properties(
                self._name, properties={f"realrag.{key}": value for key, value in metadata.items()}
            )
        self.metadata = {**self.metadata, **metadata}

    def count(self, where: Where = ALL) -> int:
        with self._asked("counted"):
            rows = self._client.query(
                self._name, filter=_expression(where), output_fields=["count(*)"], consistency_level="Strong",
                timeout=SECONDS,
            )  # fmt: skip
            return int(rows[0]["count(*)"])

    def filter(self, where: Where = ALL) -> np.ndarray:
        parts = [ids for ids, _, _ in self.listing(where)]
        return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))

    def listing(self, where: Where = ALL) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """ids, class keys and license keys (M,) int64 of all photos that pass, in pages."""
        fields = ("id", "class_key", "license_key")
        with self._asked("listed"):
            pages = self._client.query_iterator(
                self._name, filter=_expression(where), output_fields=list(fields), batch_size=PAGE,
                consistency_level="Strong", timeout=SECONDS,
            )  # fmt: skip
        try:
            while True:
                with self._asked("listed"):
                    page = pages.next()
                if not page:
                    return
                ids, classes, licenses = (np.array([row[name] for row in page], np.int64) for name in fields)
                yield ids, classes, licenses
        finally:
            pages.close()

    def search(self, queries: np.ndarray, k: int, where: Where = ALL) -> list[Found]:
        """k goes up to MOST, as a server has it."""
        queries, k = check_queries(queries, k, self.dim), min(int(k), MOST)
        sent = queries.astype(np.float16) if self.half else queries
        looks = {"IVF_SQ8": {"nprobe": PROBES}, "HNSW": {"ef": k}, "DISKANN": {"search_list": k}}.get(self.index_type)
        deep = {"params": looks} if looks else {}
        found: list[Found] = []
        for start in range(0, len(sent), TOGETHER):
            with self._asked("searched"):
                hits = self._client.search(
                    self._name, data=list(sent[start : start + TOGETHER]), limit=k, filter=_expression(where),
                    anns_field="vector", search_params=deep, output_fields=[], timeout=SECONDS,
                )  # fmt: skip
                found += [
                    Found(
                        np.array([hit["distance"] for hit in each], np.float32),
                        np.array([hit["id"] for hit in each], np.int64),
                    )
                    for each in hits
                ]
        return found

    def add(self, rows: Rows) -> None:
        check_rows(rows, self.dim)
        step = max(1, BATCH // ((2 if self.half else 4) * self.dim))
        for start in range(0, len(rows.ids), step):
            part = slice(start, start + step)
            vectors = np.ascontiguousarray(rows.vectors[part], np.float16 if self.half else np.float32)
            columns = rows.ids[part].tolist(), vectors, rows.classes[part].tolist(), rows.licenses[part].tolist()
            data = [
                {"id": id, "vector": vector, "class_key": of_class, "license_key": of_license}
                for id, vector, of_class, of_license in zip(*columns, strict=True)
            ]
            with self._asked("filled"):
                self._client.upsert(self._name, data, timeout=SECONDS)

    def remove(self, ids: np.ndarray) -> None:
        for start in range(0, len(ids), PAGE):
            with self._asked("emptied"):
                gone = [int(id) for id in ids[start : start + PAGE]]
                self._client.delete(self._name, ids=gone, timeout=SECONDS)

    def flush(self) -> None:
        """Have all that was sent written to where a restart finds it."""
        with self._asked("written"):
            self._client.flush(self._name)

    def close(self) -> None:
        self._client.close()

    def _asked(self, what: str):
        return asked(self.address, what)


def connect(address: Address) -> MilvusClient:
    """A client that has reached the server. Raises StoreError."""
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise StoreError(
            f'{address.text} needs pymilvus, which is not installed. Install it with `pip install "realrag[milvus]"`.'
        ) from None
    if address.local:
        try:
            import milvus_lite  # noqa: F401
        except ImportError:
            raise StoreError(
                f'{address.text} needs milvus-lite, which is not installed. Install it with `pip install "realrag[milvus]"`, or '
                "name a server."
            ) from None
    with asked(address, "reached"):
        return MilvusClient(
            address.uri, token="" if address.local else os.environ.get(TOKEN, ""), db_name=address.database,
            timeout=CONNECT,
        )  # fmt: skip


@contextmanager
def asked(address: Address, what: str) -> Iterator[None]:
    """What pymilvus raises -> StoreError. It would log the same with a traceback."""
    from pymilvus import MilvusException

    try:
        with _quiet:
            yield
    except (MilvusException, OSError, ValueError, LookupError, TypeError) as error:
        cure = (
            "Check that its folder can be written and that no other program has it open"
            if address.local
            else f"Check that the server runs, its address, and the token in {TOKEN}"
        )
        raise StoreError(f"The index at {address.text} could not be {what} ({_reason(error)}). {cure}.") from None


class _Quiet:
    """Keeps pymilvus's log still while any thread is inside."""

    def __init__(self) -> None:
        self._lock, self._inside, self._level = threading.Lock(), 0, logging.NOTSET
        self._log = logging.getLogger("pymilvus")

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._level = self._log.level
                self._log.setLevel(logging.CRITICAL + 1)
            self._inside += 1

    def __exit__(self, *_exc) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._log.setLevel(self._level)


_quiet = _Quiet()


def _reason(error: Exception) -> str:
    """pymilvus wraps a message in its own name and a code."""
    message = getattr(error, "message", "")
    return brief(RuntimeError(message)).partition(": ")[2] if isinstance(message, str) and message else brief(error)


def _kind_of(field: dict) -> str:
    return str(getattr(field["type"], "name", field["type"]))


def _expression(where: Where) -> str:
    """Numbers alone, so that nothing in a name can change what is asked."""
    parts = []
    pairs = ("class_key", where.classes), ("license_key", where.licenses)
    for (field, names), inverted in zip(pairs, where.inverted, strict=True):
        if names:
            keys = ", ".join(str(name_key(name)) for name in names)
            parts.append(f"{field} {'not in' if inverted else 'in'} [{keys}]")
    return " and ".join(parts)
