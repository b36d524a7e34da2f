"""Reads a table of words in whatever dialect it was saved: CSV, TSV, JSON Lines, JSON, Parquet -> header and rows."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RealRAGError

MAX_TABLE = 512 << 20  # bytes; a million captions of 200 letters have 200 MB
MAX_LINE = 1 << 20  # bytes of one JSON line
MAX_COLUMNS = 1000
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt", ".token")
DELIMITERS = ",;\t|"
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# Longest first: the mark of UTF-32 little-endian begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_KARPATHY_LINE = re.compile(r"[^\t]+\.(?:jpe?g|png|webp)#\d+\t", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """The rows of a table, in order. A row is (number of its first line, {column: value}); the values are texts in CSV
    and Parquet, JSON values in JSON. notes: sentences on what was recognized, such as another encoding."""

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, object]], ...]
    notes: tuple[str, ...] = ()


def read_text(data: bytes) -> tuple[str, str]:
    """Bytes -> (text, encoding): by a byte order mark, else UTF-8, else UTF-16 without a mark, else Windows-1252.
    ValueError where it is none of them."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data.decode(name), name.removesuffix("-sig")
    if (zeros := data[:4096].count(0)) and zeros >= len(data[:4096]) // 4:
        name = "utf-16-be" if data[:4096:2].count(0) > zeros // 2 else "utf-16-le"
        return data.decode(name), name
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        if 0 in data:
            raise ValueError("neither UTF-8 nor another text encoding") from None
        return data.decode("cp1252"), "cp1252"


def read_table(source: Path | bytes, name: str = "", known: Iterable[str] = ()) -> Table:
    """A table from a file, or from its bytes with the `name` whose suffix says the format.

    known: names of columns, in small letters, that the caller looks for. They help to tell the delimiter, and a CSV file
    whose first row holds none of them is still read with that row as its header. RealRAGError names the table, the line
    and the cure.
    """
    name = name or str(source if isinstance(source, Path) else "table.csv")
    suffix = Path(name).suffix.lower()
    data = source if isinstance(source, bytes) else _read(source)
    if suffix == ".parquet":
        return _parquet(data, name)
    try:
        text, encoding = read_text(data)
    except ValueError:  # UnicodeDecodeError is one
        raise RealRAGError(f"{name} is not text in UTF-8, UTF-16 or Windows-1252. Save it again as UTF-8.") from None
    notes = [] if encoding == "utf-8" else [f"{name}: read as {_encoding_name(encoding)}."]
    if suffix in (".jsonl", ".ndjson"):
        return _from_objects(name, _json_lines(name, text), notes)
    if suffix == ".json":
        return _from_objects(name, _json(name, text), notes)
    return _csv(name, text, notes, frozenset(known), "\t" if suffix == ".tsv" else "")


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise RealRAGError(f"No table {path}. Give the path of a .csv, .tsv, .jsonl, .json or .parquet file.")
        with open(path, "rb") as file:
            data = file.read(MAX_TABLE + 1)
    except OSError as error:
        raise RealRAGError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None
    if len(data) > MAX_TABLE:
        raise RealRAGError(f"{path} has more than {MAX_TABLE >> 20} MiB. Split it.")
    return data


def _encoding_name(encoding: str) -> str:
    return {"cp1252": "Windows-1252"}.get(encoding, encoding.upper().replace("-LE", "").replace("-BE", ""))


def _csv(name: str, text: str, notes: list[str], known: frozenset[str], delimiter: str) -> Table:
    first, _, rest = text.partition("\n")
    skipped = 0
    if re.fullmatch(r"sep=.\s*", first, re.IGNORECASE):  # Excel's own line
        delimiter, text, skipped = first[4], rest, 1
    if _KARPATHY_LINE.match(text):  # Flickr8k.token.txt: no header, NAME#NUMBER, a tab, the caption
        text, delimiter, skipped = "image\tcaption\n" + text, "\t", -1
    # In Flickr8k.token.txt a quotation mark is a letter like any other.
    quoting: Any = csv.QUOTE_NONE if skipped < 0 else csv.QUOTE_MINIMAL
    delimiter = delimiter or _delimiter(text, known)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, quoting=quoting, skipinitialspace=True
    )
    header: list[str] = []
    rows: list[tuple[int, dict[str, object]]] = []
    line = 1
    try:
        for cells in reader:
            number, line = line + skipped, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                if len(header) > MAX_COLUMNS:
                    raise RealRAGError(f"{name} has {len(header)} columns, more than {MAX_COLUMNS}.")
                continue
            if any(cell.strip() for cell in cells[len(header) :]):
                raise RealRAGError(
                    f"{name}, line {number}: {len(cells)} cells in a table of {len(header)} columns. Put quotation marks "
                    f"around a cell that holds a {delimiter!r}."
                )
            rows.append((number, {key: cell.strip() for key, cell in zip(header, cells, strict=False) if key}))
    except csv.Error as error:
        raise RealRAGError(
            f"{name}, line {line + skipped}: not a readable CSV table ({error}). Save it again as CSV."
        ) from None
    if delimiter != "," and not name.lower().endswith(".tsv"):
        notes = [*notes, f"{name}: its columns are separated by {_NAMES.get(delimiter, repr(delimiter))}."]
    return Table(name, tuple(header), tuple(rows), tuple(notes))


def _delimiter(text: str, known: frozenset[str]) -> str:
    """The delimiter whose header names the most known columns, then the one that gives the most rows of equal length."""
    sample = text[: 1 << 16]

    def fit(delimiter: str) -> tuple[int, int, int]:
        rows = []
        try:
            for cells in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, skipinitialspace=True):
                rows.append(cells)
                if len(rows) == 50:
                    break
        except csv.Error:
            return 0, 0, 0
        if not rows:
            return 0, 0, 0
        named = sum(cell.strip().lower() in known for cell in rows[0])
        even = sum(len(row) == len(rows[0]) for row in rows) if len(rows[0]) > 1 else 0
        return named, even, len(rows[0])

    return max(DELIMITERS, key=fit) if sample else ","


def _json_lines(name: str, text: str):
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line) if len(line) <= MAX_LINE else None
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise RealRAGError(
                f'{name}, line {number}: not one JSON object of at most 1 MiB, like {{"file": "a.jpg"}}.'
            )
        yield number, row


def _json(name: str, text: str):
    """A list of objects; kohya's {photo: {caption, tags}} or {photo: caption}; COCO's images and annotations."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RealRAGError(f"{name} is not valid JSON ({str(error)[:100]}). Mend it or remove it.") from None
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        content = list(_coco(content["images"], content["annotations"]))
    if isinstance(content, dict):
        content = [
            {"file": photo, **(words if isinstance(words, dict) else {"caption": words})}
            for photo, words in content.items()
        ]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise RealRAGError(f'{name} is neither a list of objects like {{"file": "a.jpg"}} nor one object of photos.')
    yield from enumerate(content, 1)


def _coco(images: object, annotations: object):
    if not isinstance(images, list) or not isinstance(annotations, list):
        return
    files = {str(row.get("id")): row.get("file_name") for row in images if isinstance(row, dict)}
    for row in annotations:
        if isinstance(row, dict) and row.get("caption") and (file := files.get(str(row.get("image_id")))):
            yield {"file": file, "caption": row["caption"]}


def _from_objects(name: str, objects: Iterable[tuple[int, dict]], notes: list[str]) -> Table:
    rows = tuple((number, {str(key).strip(): value for key, value in row.items()}) for number, row in objects)
    header = dict.fromkeys(key for _, row in rows for key in row)
    return Table(name, tuple(header)[:MAX_COLUMNS], rows, tuple(notes))


def _parquet(data: bytes, name: str) -> Table:
    try:
        import pyarrow.parquet
    except ImportError:
        raise RealRAGError(
            f"{name}: Parquet tables are read by pyarrow. Run `pip install pyarrow`, or save the table as CSV."
        ) from None
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        # Only texts and numbers: a data set of Hugging Face may hold its pictures in the table, as {bytes, path}.
        types = pyarrow.types
        plain = [f.name for f in file.schema_arrow if not (types.is_nested(f.type) or "binary" in str(f.type))]
        paths = [f.name for f in file.schema_arrow if types.is_struct(f.type) and f.type.get_field_index("path") >= 0]
        columns = file.read(columns=[*plain, *(f"{column}.path" for column in paths)]).to_pydict()
        for column in paths:
            columns[column] = [value and value["path"] for value in columns[column]]
    except Exception as error:
        raise RealRAGError(f"{name} is not a readable Parquet table ({str(error)[:100]}).") from None
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return _from_objects(name, enumerate(rows, 1), [])
