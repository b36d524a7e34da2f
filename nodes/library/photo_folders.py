"""Where an artist's photos may lie: folders and .zip files under ComfyUI's input folder, chosen by name from a list."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import folder_paths

from ...realrag.errors import RealRAGError

NONE = "(none: use the images)"
DEEPEST = 3  # folders below input/
MOST = 500  # names in the list
MOST_FILES = 200_000  # whose state is read before each run


def photo_folders() -> dict[str, Path]:
    """Name -> folder or .zip file, as in "cats" and "cats/siamese"; sorted, hidden ones left out."""
    root = Path(folder_paths.get_input_directory())
    found: dict[str, Path] = {}
    level = [("", root)]
    for _ in range(DEEPEST):
        below = []
        for prefix, folder in level:
            for entry in _entries(folder):
                name = prefix + entry.name
                if entry.is_dir():
                    found[name] = Path(entry.path)
                    below.append((name + "/", Path(entry.path)))
                elif entry.name.lower().endswith(".zip"):
                    found[name] = Path(entry.path)
                if len(found) >= MOST:
                    return dict(sorted(found.items()))
        level = below
    return dict(sorted(found.items()))


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError:
        return []


def folder_named(name: str) -> Path:
    """The folder or file of a listed name. A name that a graph brings is looked up in the list, never joined to a path."""
    found = photo_folders()
    if not isinstance(name, str) or name not in found:
        there = f"There are: {', '.join(found)[:400]}" if found else "There is none yet"
        raise RealRAGError(
            f"No folder or .zip file {str(name)[:80]!r} under ComfyUI's input folder. {there}. Put a folder of photos there, with "
            "one sub-folder for each class, then press R."
        )
    return found[name]


def folder_state(folder: Path) -> str:
    """What changes when a photo is added, changed or taken away, or when it or its folder is renamed: a hash of the paths, bytes
    and times of all files. Linked folders are not followed, as when photos are read; a link to a folder above would have no
    end. Never raises."""
    count, digest, waiting = 0, hashlib.sha256(), [folder]
    while waiting and count < MOST_FILES:
        place = waiting.pop()
        if place.is_file():
            entries: list = [place]
        else:
            entries = [Path(entry.path) for entry in _entries(place)]
        for entry in entries:
            try:
                if entry.is_dir():
                    waiting += [] if entry.is_symlink() else [entry]
                    continue
                state = entry.stat()
            except OSError:
                continue
            count += 1
            digest.update(os.fsencode(f"{entry}|{state.st_size}|{state.st_mtime_ns}\n"))
    return digest.hexdigest()
