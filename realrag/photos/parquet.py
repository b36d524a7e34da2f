"""Parquet files that hold pictures, as data sets of Hugging Face do -> a picture and its words for each row, read in place.

The pictures are in a column of {bytes, path}, which is how `datasets` stores its feature Image. Whole groups of rows are
read, and the last two stay in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import PhotoError
from .kinds import PHOTO_SUFFIXES, kind_of

SUFFIX = ".parquet"
MAX_GROUP = 2 << 30  # bytes of pictures in one group of rows, as the file states them
WORDS = ".json"


class NoParquet(ImportError):
    """pyarrow, which reads Parquet, is not installed."""


@dataclass(frozen=True)
class Cell:
    """The picture, or the words, of one row. stamp: the file's size and time when it was listed."""

    stamp: tuple[int, int]
    group: int
    at: int
    column: str  # of the pictures; "" for the words

    def read(self, archive: Path, name: str, most: int) -> bytes:
        """The picture's bytes, or the words as JSON. PhotoError `unreadable`, `empty`, `too_large` (more than `most`) or
        `damaged`."""
        try:
            group = _group(archive, self.stamp, self.group, self.column)
            value = group[self.at]
        except Exception as error:  # of pyarrow, whose errors of damaged files are an OSError without a number
            if isinstance(error, OSError) and error.errno:
                raise PhotoError("unreadable", f"{archive.name}: cannot be read ({error.strerror}).") from None
            raise PhotoError(
                "damaged", f"{archive.name}: {name} in it cannot be read ({str(error)[:80]}). Copy the file again."
            ) from None
        if not self.column:
            return json.dumps(value, default=str).encode()
        data = value.as_py()
        if not data:
            raise PhotoError("empty", f"{archive.name}: {name} in it has no bytes. Leave that row out.")
        if len(data) > most:
            raise PhotoError("too_large", f"{name}: more than {most / (1 << 20):.3g} MiB. Save a smaller copy.")
        return data


def holds_pictures(path: Path) -> bool:
    """Whether a Parquet file has a column of pictures. NoParquet without pyarrow."""
    parquet = _pyarrow().parquet
    try:
        return bool(picture_columns(parquet.read_schema(path)))
    except Exception:  # not Parquet, or damaged: as a table it is refused with its name
        return False


def picture_columns(schema: Any) -> list[str]:
    """Names of the columns of an Arrow schema that hold pictures as {bytes, path}."""
    types = _pyarrow().types
    return [
        column.name for column in schema
        if types.is_struct(column.type) and (at := column.type.get_field_index("bytes")) >= 0
        and "binary" in str(column.type.field(at).type)
    ]  # fmt: skip


def rows(path: Path) -> Iterator[tuple[str, Cell]]:
    """(name, cell) of each picture and of its words, which have the name of the picture but for the suffix.

    ValueError where a group of rows is too large to be read, or the file is damaged."""
    parquet = _pyarrow().parquet
    state = path.stat()
    stamp = state.st_size, state.st_mtime_ns
    try:
        file = parquet.ParquetFile(path)
        column = picture_columns(file.schema_arrow)[0]
        row = 0
        for group in range(file.num_row_groups):
            if _stated_bytes(file, group, column) > MAX_GROUP:
                raise ValueError(
                    f"more than {MAX_GROUP >> 30} GiB of pictures in one group of rows; write it with row_group_size=100"
                )
            usual = ""
            for at, stated in enumerate(_stated_paths(file, group, column)):
                suffix = PurePosixPath(stated or "").suffix.lower()
                if suffix not in PHOTO_SUFFIXES:
                    suffix = usual = usual or _suffix(path, stamp, group, column)
                yield f"{row:08}{suffix}", Cell(stamp, group, at, column)
                yield f"{row:08}{WORDS}", Cell(stamp, group, at, "")
                row += 1
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(str(error)[:80]) from None


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError:
        raise NoParquet from None
    return pyarrow


def _stated_bytes(file: Any, group: int, column: str) -> int:
    metadata = file.metadata.row_group(group)
    chunks = (metadata.column(at) for at in range(metadata.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == f"{column}.bytes")


def _stated_paths(file: Any, group: int, column: str) -> list[str | None]:
    """What each row calls its picture; None where it gives no name."""
    if file.schema_arrow.field(column).type.get_field_index("path") < 0:
        return [None] * file.metadata.row_group(group).num_rows
    values = file.read_row_group(group, columns=[f"{column}.path"]).column(column).to_pylist()
    return [(value or {}).get("path") for value in values]


def _suffix(path: Path, stamp: tuple[int, int], group: int, column: str) -> str:
    """The suffix that fits the first picture of a group."""
    first = next((value.as_py() for value in _group(path, stamp, group, column) if value.is_valid), b"")
    kind = kind_of((first or b"")[:64])
    return next((suffix for suffix, of in PHOTO_SUFFIXES.items() if of == kind), ".jpg")


@lru_cache(maxsize=4)  # the pictures and the words of two groups of rows
def _group(path: Path, stamp: tuple[int, int], group: int, column: str) -> Any:
    """The pictures of a group of rows as an Arrow array, or its words as {column: value} of each row."""
    pyarrow = _pyarrow()
    file = pyarrow.parquet.ParquetFile(path)
    if column:
        table = file.read_row_group(group, columns=[f"{column}.bytes"])
        return pyarrow.compute.struct_field(table.column(column).combine_chunks(), "bytes")
    plain = [each.name for each in file.schema_arrow if _is_plain(each.type)]
    words, names = file.read_row_group(group, columns=plain).to_pylist(), _class_names(file.schema_arrow)
    for row in words:
        for label in names.keys() & row.keys():
            if isinstance(at := row[label], int) and 0 <= at < len(names[label]):
                row[label] = names[label][at]
    return words


def _is_plain(kind: Any) -> bool:
    """Texts, numbers, and lists of texts, such as several captions."""
    types = _pyarrow().types
    if types.is_list(kind) or types.is_large_list(kind):
        return types.is_string(kind.value_type) or types.is_large_string(kind.value_type)
    return not (types.is_nested(kind) or "binary" in str(kind))


def _class_names(schema: Any) -> dict[str, list[str]]:
    """{column: names of its numbers} for columns of the feature ClassLabel."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]] for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
        }  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
