"""A bundle by its bytes, to compare two."""

from __future__ import annotations

from pathlib import Path

from realrag.files import sha256_file


def content(folder: Path) -> dict[str, str]:
    """Every file of a bundle by its bytes."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}
