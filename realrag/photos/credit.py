"""The words that travel with a photo, and the names that people and data sets give to them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

# Of several columns the first that is named here counts.
COLUMNS = {
    "file": (
        "file", "path", "file_name", "filename", "image", "filepath", "file_path", "image_path", "image_file_name",
        "image_name", "image_file", "image_id", "img", "key", "id",
    ),
    "caption": (
        "caption", "text", "description", "prompt", "title", "captions", "comment", "sentence", "raw", "tags",
    ),
    "class_name": ("class", "class_name", "label", "category", "cls"),
    "author": ("author", "credit", "artist", "attribution", "photographer", "creator"),
    "licence": ("licence", "license", "rights", "license_url", "licence_url"),
    "source": ("source", "source_url", "url", "origin"),
}  # fmt: skip
MAX_FIELD = 2000
# What pandas and spreadsheets write for an empty cell.
_EMPTY = frozenset(("nan", "NaN", "<NA>", "NULL", "null", "None", "#N/A", "N/A"))


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

    def __bool__(self) -> bool:
        return self != Credit()


def clean(value: object) -> str:
    """One line of text without control characters, at most 2,000 characters. Of a list, its first text."""
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, str) and item.strip()), None)
    if value is None or isinstance(value, dict):
        return ""
    text = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") else char for char in str(value))
    return " ".join(text.split())[:MAX_FIELD]


def spoken(name: str) -> str:
    """A folder or file name as words: `Granny-Smith` -> `Granny Smith`."""
    return clean(name.replace("_", " ").replace("-", " "))


def lowered(row: Mapping[str, object]) -> dict[str, object]:
    return {str(key).strip().lower(): value for key, value in row.items() if key is not None}


def credit_of(row: Mapping[str, object], fields: tuple[str, ...] = tuple(COLUMNS)[1:]) -> Credit:
    """The words of a table's row or a JSON object, found by the names in COLUMNS."""
    lower = lowered(row)
    found = {field: next((text for name in COLUMNS[field] if (text := _said(lower.get(name)))), "") for field in fields}
    return Credit(**found)


def file_of(row: Mapping[str, object]) -> str:
    """What a row calls its photo; empty where no column names one."""
    lower = lowered(row)
    return next((str(lower[name]).strip() for name in COLUMNS["file"] if lower.get(name) not in (None, "")), "")


def _said(value: object) -> str:
    text = clean(value)
    return "" if text in _EMPTY else text
