"""What a store of vectors can be asked, whoever keeps them: search, add, remove, filter, count."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ..errors import QueryError


@dataclass(frozen=True)
class Where:
    """Which photos may answer: those of these classes and of these licenses, by their exact names. Empty tuples allow all."""

    classes: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    inverted: tuple[bool, bool] = (False, False)  # all classes but these; all licenses but these

    def __bool__(self) -> bool:
        return bool(self.classes or self.licenses)


ALL = Where()


@dataclass(frozen=True)
class Rows:
    """ids: (N,) int64, different. vectors: (N, D) unit rows of any float type. classes, licenses: (N,) int64, the
    `name_key` of each row's class and license."""

    ids: np.ndarray
    vectors: np.ndarray
    classes: np.ndarray
    licenses: np.ndarray


class Found(NamedTuple):
    """scores (K,) float32, best first, and the ids (K,) int64 that have them."""

    scores: np.ndarray
    ids: np.ndarray


class Store(Protocol):
    """Vectors of D dimensions by photo id. Scores are inner products, so cosines of unit vectors."""

    dim: int

    def count(self, where: Where = ALL) -> int:
        """How many photos pass."""
        ...

    def filter(self, where: Where = ALL) -> np.ndarray:
        """(M,) int64: the ids of the photos that pass, ascending."""
        ...

    def search(self, queries: np.ndarray, k: int, where: Where = ALL) -> list[Found]:
        """For each query (Q, D) float32 the best k photos that pass, or as many as there are. Raises QueryError."""
        ...

    def add(self, rows: Rows) -> None:
        """Put photos in. One whose id is there already takes its place."""
        ...

    def remove(self, ids: np.ndarray) -> None:
        """Take photos out; ids that are not there are passed over."""
        ...


def name_key(name: str) -> int:
    """A class or license as a number of 64 bits with a sign, which needs no quoting in any language of filters."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def name_keys(names: Sequence[str], codes: np.ndarray) -> np.ndarray:
    """(N,) int64: the key of `names[code]` for each of the codes (N,)."""
    return np.array([name_key(name) for name in names], np.int64)[codes]


def check_rows(rows: Rows, dim: int) -> None:
    """QueryError where the rows do not fit together, or are not of `dim` dimensions."""
    count = len(rows.ids)
    if rows.vectors.shape != (count, dim) or len(rows.classes) != count or len(rows.licenses) != count:
        raise QueryError(
            f"{count} ids, vectors of shape {rows.vectors.shape}, {len(rows.classes)} classes and {len(rows.licenses)} licenses "
            f"do not fit a store of {dim} dimensions: give as many of each, and vectors ({count}, {dim})."
        )
    if len(np.unique(rows.ids)) != count:
        raise QueryError(f"{count} rows have {len(np.unique(rows.ids))} different ids: add each photo once.")


def check_queries(queries: np.ndarray, k: int, dim: int) -> np.ndarray:
    """The queries as float32, or QueryError."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim or not np.isfinite(queries).all():
        raise QueryError(f"Queries of shape {queries.shape} do not fit: give (queries, {dim}) finite numbers.")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise QueryError(f"k is {k!r}; ask for a whole number of photos, 1 or more.")
    return queries
