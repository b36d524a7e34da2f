"""A folder of photos -> the list of what to index: sorted, each content once, with its words; and what was left out and
why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import PhotoError, RealRAGError
from .captions import MAX_FIELD, Captions, Credit
from .decode import FOREIGN, FORMATS, inspect

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Candidate:
    """A photo to index. `file`: path relative to the photo folder, with '/'; width and height of the upright picture."""

    file: str
    path: Path
    sha256: str
    width: int
    height: int
    credit: Credit


@dataclass(frozen=True)
class Rejected:
    file: str
    reason: str
    message: str


@dataclass
class Library:
    """What a folder holds. Every photo file is in exactly one of the three lists."""

    folder: Path
    candidates: list[Candidate] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)  # (file, the file it repeats)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def found(self) -> int:
        return len(self.candidates) + len(self.duplicates) + len(self.rejected)


def photo_files(folder: Path) -> list[str]:
    """Sorted relative paths of all files with a picture's suffix; hidden files and folders are passed over. RealRAGError
    where a folder cannot be read: its photos would count as removed."""

    def refuse(error: OSError) -> None:
        raise RealRAGError(
            f"{error.filename}: this folder cannot be read ({error.strerror}). Check its permissions, or move it away."
        )

    files = []
    for here, folders, names in os.walk(folder, followlinks=False, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in FORMATS.keys() | FOREIGN:
                files.append(Path(here, name).relative_to(folder).as_posix())
    return sorted(files)


def printable(name: str) -> str:
    """A file name that can be written as UTF-8: old disks hold names in other encodings."""
    return name.encode("utf-8", "replace").decode()[:MAX_FIELD]


def in_order(items: Iterable, work: Callable, workers: int, ahead: int):
    """`work(item)` for each item on `workers` threads, yielded in order, at most `ahead` results waiting: bounded
    memory."""
    with ThreadPoolExecutor(workers) as pool:
        waiting = []
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def scan(
    folder: Path,
    captions: Path | None = None,
    default: Credit = Credit(),
    *,
    workers: int = 4,
    progress: Progress = lambda done, total: None,
) -> Library:
    """Walk `folder` and its sub-folders; hash every photo and read its header. Nothing is decoded yet.

    Raises RealRAGError when the folder is missing or a caption table cannot be read; a photo that cannot be used never
    raises, it is listed in `rejected`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RealRAGError(f"No folder {folder}. Give the folder that holds your photos.")
    words = Captions(folder, captions, default)
    files = photo_files(folder)
    library = Library(folder)
    first: dict[str, str] = {}

    def look(file: str):
        try:
            if os.path.islink(folder / file) and not (folder / file).exists():
                raise PhotoError("unreadable", f"{file}: a link that leads nowhere. Remove it.")
            seen = inspect(folder / file)
            return seen, words.of(file)
        except PhotoError as error:
            return error

    for number, (file, result) in enumerate(zip(files, in_order(files, look, workers, 4 * workers), strict=True), 1):
        file = printable(file)
        if isinstance(result, PhotoError):
            library.rejected.append(Rejected(file, result.reason, printable(str(result))))
            progress(number, len(files))
            continue
        seen, credit = result
        if seen.sha256 in first:
            library.duplicates.append((file, first[seen.sha256]))
        else:
            first[seen.sha256] = file
            candidate = Candidate(file, seen.path, seen.sha256, seen.width, seen.height, credit)
            library.candidates.append(candidate)
        progress(number, len(files))
    return library
