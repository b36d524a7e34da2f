"""Other names of classes, in any language: a table with the columns class, language and name beside the photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import RealRAGError
from .credit import clean
from .tables import read_table

if TYPE_CHECKING:
    from .walk import Entry

FILE = "names.csv"  # what the table is called in a folder of photos, or in a .zip of them
COLUMNS = ("class", "language", "name")
MAX_NAME = 200


class OtherName(NamedTuple):
    """What a class is also called. language: a tag such as "de" or "zh", which only tells people."""

    class_name: str
    language: str
    name: str


def read_names(source: Path | Entry) -> list[OtherName]:
    """The rows of the table, each once. RealRAGError names the table, the line and the cure."""
    if isinstance(source, Path):
        path, table = source, read_table(source, known=COLUMNS)
    else:
        path = source.path / source.file if source.member else source.path
        table = read_table(source.read(), str(path), COLUMNS)
    columns = {str(column).strip().lower(): column for column in table.header}
    if missing := [name for name in ("class", "name") if name not in columns]:
        raise RealRAGError(
            f"{path} has no column {missing[0]!r}; it has {', '.join(map(repr, table.header)) or 'none'}. "
            f"The columns are: {', '.join(COLUMNS)}."
        )
    found = []
    for line, row in table.rows:
        values = [clean(row.get(columns[name])) if name in columns else "" for name in COLUMNS]
        if not values[0] and not values[2]:
            continue
        if not values[0] or not values[2]:
            raise RealRAGError(f"{path}, line {line}: a class or its name is missing. Give both, or remove the line.")
        found.append(OtherName(*(value[:MAX_NAME] for value in values)))
    return list(dict.fromkeys(found))
