"""What is said about a photo: caption, class and credit, from a table, a sidecar file, or the name of its folder."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import PhotoError, RealRAGError

# The names people and data sets give to the same six things.
COLUMNS = {
    "file": ("file", "path", "file_name", "filename", "image"),
    "caption": ("caption", "text", "description", "prompt"),
    "class_name": ("class", "class_name", "label", "category"),
    "author": ("author", "credit", "artist", "attribution", "photographer", "creator"),
    "licence": ("licence", "license", "rights"),
    "source": ("source", "source_url", "url", "origin"),
}
TABLE_NAMES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl", "credits.csv", "credits.jsonl")
MAX_FIELD = 2000
MAX_LINE = 1 << 16


@dataclass(frozen=True)
class Credit:
    """Words that travel with a photo; an empty string means "not said"."""

    caption: str = ""
    class_name: str = ""
    author: str = ""
    licence: str = ""
    source: str = ""

    def or_else(self, other: Credit) -> Credit:
        """Each empty field filled from `other`."""
        return replace(self, **{name: value for name, value in asdict(other).items() if not getattr(self, name)})


def clean(value: object) -> str:
    """One line of text without control characters, at most 2,000 characters."""
    if value is None or isinstance(value, (dict, list)):
        return ""
    text = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") else char for char in str(value))
    return " ".join(text.split())[:MAX_FIELD]


def spoken(name: str) -> str:
    """A folder or file name as words: `Granny-Smith` -> `Granny Smith`."""
    return clean(name.replace("_", " ").replace("-", " "))


def _credit(row: dict) -> Credit:
    lower = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    found = {}
    for field, names in COLUMNS.items():
        if field != "file":
            found[field] = next((text for name in names if (text := clean(lower.get(name)))), "")
    return Credit(**found)


def _file_of(row: dict) -> str:
    lower = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    return next((str(lower[name]).strip() for name in COLUMNS["file"] if lower.get(name)), "")


def read_table(path: Path) -> list[tuple[str, Credit]]:
    """(file, credit) per row of a CSV or JSONL table. RealRAGError names the line that cannot be read."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RealRAGError(f"No caption table {path}. Give the path of a .csv or .jsonl file.") from None
    except UnicodeDecodeError:
        raise RealRAGError(f"{path} is not UTF-8 text. Save it again as UTF-8.") from None
    rows: list[tuple[str, Credit]] = []
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line) if len(line) <= MAX_LINE else None
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise RealRAGError(
                    f'{path}, line {number}: not one JSON object of at most 64 KiB, like {{"file": "a.jpg"}}.'
                )
            rows.append((_file_of(row), _credit(row)))
    else:
        try:
            rows = [(_file_of(row), _credit(row)) for row in csv.DictReader(text.splitlines())]
        except csv.Error as error:
            raise RealRAGError(f"{path}: not a readable CSV table ({error}). Save it again as CSV, UTF-8.") from None
    if rows and not any(file for file, _ in rows):
        raise RealRAGError(f"{path} has no column that names the photo. Call it one of: {', '.join(COLUMNS['file'])}.")
    return [row for row in rows if row[0]]


class Captions:
    """Looks up the Credit of each photo in a folder. First said wins: table, sidecar .json, sidecar .txt, folder name."""

    def __init__(self, folder: Path, table: Path | None = None, default: Credit = Credit()):
        self._folder = Path(folder)
        self._default = default
        if table is None:
            table = next((self._folder / name for name in TABLE_NAMES if (self._folder / name).is_file()), None)
        self._table: dict[str, Credit] = {}
        self.table_rows = 0
        if table is not None:
            rows = read_table(table)
            self.table_rows = len(rows)
            # A table names photos from where it lies, or from the photo folder; the first that exists is meant.
            home, base = os.path.abspath(Path(table).parent), os.path.abspath(self._folder)
            for file, credit in rows:
                beside = os.path.relpath(os.path.join(home, file), base).replace("\\", "/")
                self._table.setdefault(beside, credit)
            for file, credit in rows:
                self._table.setdefault(os.path.normpath(file).replace("\\", "/"), credit)

    def of(self, file: str) -> Credit:
        """`file`: path relative to the photo folder, with '/'. PhotoError `bad_sidecar` when its words cannot be read."""
        path = self._folder / file
        credit = self._table.get(os.path.normpath(file).replace("\\", "/"), Credit())
        credit = credit.or_else(self._sidecar(path))
        parent = Path(file).parent.name
        if not credit.class_name and parent:
            credit = replace(credit, class_name=clean(parent))
        if not credit.caption:
            credit = replace(credit, caption=spoken(credit.class_name) or spoken(Path(file).stem))
        return credit.or_else(self._default)

    @staticmethod
    def _sidecar(path: Path) -> Credit:
        credit = Credit()
        for sidecar in (path.with_suffix(".json"), path.with_name(path.name + ".json")):
            if sidecar.is_file() and sidecar.stat().st_size <= MAX_LINE:
                try:
                    row = json.loads(sidecar.read_text(encoding="utf-8-sig"))
                except (ValueError, RecursionError, OSError):
                    raise PhotoError(
                        "bad_sidecar", f"{path.name}: {sidecar.name} is not JSON. Mend it or remove it."
                    ) from None
                if isinstance(row, dict):
                    credit = credit.or_else(_credit(row))
        text = path.with_suffix(".txt")
        if text.is_file() and text.stat().st_size <= MAX_LINE:
            credit = credit.or_else(Credit(caption=clean(text.read_text(encoding="utf-8-sig", errors="replace"))))
        return credit
