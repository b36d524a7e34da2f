"""Compares bundles by their bytes, and changes a bundle like an author who writes the manifest by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from realrag.bundle.bundle import CHECKSUM
from realrag.files import canonical_json, sha256_file


def content(folder: Path) -> dict[str, str]:
    """{path: SHA-256} of every file of a bundle."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def file_of(folder: Path, role: str) -> Path:
    """The first file of this role."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return folder / next(entry["path"] for entry in manifest["files"] if entry["role"] == role)


def rewrite(folder: Path, change: Callable[[dict], dict | None]) -> None:
    """Change the manifest's JSON in place, and update its checksum."""
    path = folder / "manifest.json"
    path.write_bytes(rewritten(path.read_bytes(), change))


def rewritten(data: bytes, change: Callable[[dict], dict | None]) -> bytes:
    """The manifest's bytes with the change and an updated checksum."""
    manifest = json.loads(data)
    manifest = change(manifest) or manifest
    if CHECKSUM in manifest:
        rest = {key: value for key, value in manifest.items() if key != CHECKSUM}
        try:
            manifest[CHECKSUM] = hashlib.sha256(canonical_json(rest)).hexdigest()
        except ValueError:
            pass  # content without a canonical form has no valid checksum
    return json.dumps(manifest).encode()


def replace_hashed(folder: Path, role: str, data: bytes) -> None:
    """Replace a file and update its hash, like a hostile author."""
    path = file_of(folder, role)
    path.write_bytes(data)
    relist(folder, path)


def relist(folder: Path, path: Path) -> None:
    """Update the manifest's entry for this file."""
    data = path.read_bytes()

    def change(manifest: dict) -> None:
        for entry in manifest["files"]:
            if folder / entry["path"] == path:
                entry["bytes"], entry["sha256"] = len(data), hashlib.sha256(data).hexdigest()

    rewrite(folder, change)
