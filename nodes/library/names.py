"""The name of a library that an artist makes: a folder of models/realrag, right on every system."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...realrag.errors import RealRAGError
from ..folders import BUNDLES, SHIPPED, bundles

LONGEST = 64
_RESERVED = frozenset(
    [
        "con",
        "prn",
        "aux",
        "nul",
        *(f"{kind}{number}" for kind in ("com", "lpt") for number in "123456789\u00b9\u00b2\u00b3"),
    ]
)
_SIGNS = " -_.+&()'"


def library_folder(name: str) -> Path:
    """Where the library of this name is or will be. RealRAGError where the name could leave models/realrag, or is not a
    folder's name on some system."""
    name = name.strip() if isinstance(name, str) else ""
    wrong = (
        not name
        or len(name) > LONGEST
        or name[0] in "." or name[-1] == "."
        or name.split(".")[0].strip().lower() in _RESERVED
        or any(not (char.isalnum() or char in _SIGNS) for char in name)
    )  # fmt: skip
    if wrong or name == SHIPPED:
        raise RealRAGError(
            f"A library cannot be called {name[:80]!r}. Use up to {LONGEST} letters, numbers, spaces and {_SIGNS.strip()}, with a "
            "letter or number in front, such as 'my cars'."
        )
    there = bundles()
    if name in there:
        return there[name]
    for other in there:
        if other.casefold() == name.casefold():
            raise RealRAGError(f"There is a library {other!r} already. Write its name as it is, or choose another.")
    return Path(folder_paths.get_folder_paths(BUNDLES)[0], name)


def writable(folder: Path) -> None:
    """RealRAGError where no library can be kept there."""
    parent = folder if folder.is_dir() else folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    if not os.access(parent, os.W_OK):
        raise RealRAGError(
            f"{parent} cannot be written to. Check its permissions, or name another folder in extra_model_paths.yaml."
        )
