"""JSON Lines and CSV files. Only a newline ends a line: U+2028 and its like are text, as a prompt may hold them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from realrag.files import write_atomic


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file (with or without a byte order mark), without their ends. OSError, UnicodeDecodeError."""
    lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a UTF-8 CSV file by column name. OSError, UnicodeDecodeError, csv.Error."""
    return list(csv.DictReader(io.StringIO(Path(path).read_bytes().decode("utf-8-sig"), newline="")))


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write the rows, atomically, under a header of these columns; a value that a row lacks stays empty."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomic(Path(path), text.getvalue().encode())
