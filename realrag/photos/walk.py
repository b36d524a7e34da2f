"""A folder -> every file in it: photos, files of words, and what is passed over, each counted under its kind."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import PhotoError, RealRAGError
from . import parquet
from .archives import ARCHIVE_SUFFIXES, ArchiveError, Member, members
from .decode import MAX_BYTES, read_bytes
from .kinds import COMPANION_SUFFIXES, FOREIGN_SUFFIXES, PHOTO_SUFFIXES, RAW_SUFFIXES, READ, kind_of

# Folders in which disks, servers and photo programs keep deleted files, previews and copies of their own.
SYSTEM_FOLDERS = frozenset(
    (
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "$recycle.bin", "recycler",
        "__macosx", "lost+found", "system volume information",
    )
)  # fmt: skip
SYSTEM_SUFFIXES = (".lrdata", ".lrcat-data", ".cocatalog", ".cosessiondb")


@dataclass(frozen=True)
class Entry:
    """A file of a folder. file: its path below the folder, with '/'; inside an archive, the archive's path and the
    member's. member: what to read of the archive `path`."""

    file: str
    path: Path
    member: Member | parquet.Cell | None = None

    def read(self, most: int = MAX_BYTES) -> bytes:
        """The bytes. PhotoError `unreadable`, `empty`, `too_large` (more than `most`) or `damaged`."""
        if self.member is None:
            return read_bytes(self.path, most)
        return self.member.read(self.path, PurePosixPath(self.file).name, most)


@dataclass(frozen=True)
class Rejected:
    file: str
    reason: str
    message: str


@dataclass
class Listing:
    """photos: sorted by file. words: text, JSON, XMP and tables by file. passed_over: how many files of each kind."""

    photos: list[Entry] = field(default_factory=list)
    words: dict[str, Entry] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def walk(folder: Path, *, archives: bool = False) -> Listing:
    """List `folder` and its sub-folders, or the .zip, .tar or .parquet file `folder`. archives: list what is inside such files
    in the folder too; nothing is unpacked.

    RealRAGError where a folder cannot be read: its photos would count as removed; and where there are no photos but a
    Parquet file that cannot be opened without its package."""
    found, links = Listing(), []
    base = os.fspath(folder)
    if os.path.isfile(base):
        if Path(base).suffix.lower() == parquet.SUFFIX and not _holds_pictures(Path(base), required=True):
            raise RealRAGError(
                f"{base} is not a Parquet file with a column of pictures, {{bytes, path}}. Give a folder of photos."
            )
        _open_archive(Entry("", Path(base)), found)
        found.photos.sort(key=lambda entry: entry.file)
        return found

    def refuse(error: OSError) -> None:
        raise RealRAGError(
            f"{error.filename}: this folder cannot be read ({error.strerror}). Check its permissions, or move it away."
        )

    for here, folders, names in os.walk(base, followlinks=False, onerror=refuse):
        inside = os.path.relpath(here, base).replace(os.sep, "/")
        prefix = "" if inside == "." else inside + "/"
        kept = []
        for name in sorted(folders):
            if os.path.islink(os.path.join(here, name)):
                links.append(prefix + name)
            elif name.startswith("."):
                found.passed_over["hidden folder"] += 1
            elif _is_of_system(name):
                found.passed_over[f"system folder {name}"] += 1
            elif _is_bundle(os.path.join(here, name)):
                found.passed_over["folder that is a bundle"] += 1
            else:
                kept.append(name)
        folders[:] = kept
        stems = {_stem(name) for name in names if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES}
        for name in sorted(names):
            _sort_in(Entry(prefix + name, Path(here, name)), name, stems, found, archives)
    if links:
        found.notes.append(
            _with_example(len(links), "linked folder is", "linked folders are", "not followed", links[0])
        )
    tables = [entry for file, entry in found.words.items() if file.lower().endswith(parquet.SUFFIX)]
    if archives and tables and not found.photos:
        _holds_pictures(tables[0].path, required=True)
    found.photos.sort(key=lambda entry: entry.file)
    return found


def _sort_in(entry: Entry, name: str, stems: set[str], found: Listing, archives: bool) -> None:
    suffix = PurePosixPath(name).suffix.lower()
    if name.startswith("."):
        found.passed_over["hidden file"] += 1
    elif suffix in PHOTO_SUFFIXES:
        found.photos.append(entry)
    elif suffix in RAW_SUFFIXES and _stem(name) in stems:
        found.passed_over["raw file beside its photo"] += 1
    elif suffix in FOREIGN_SUFFIXES:
        found.rejected.append(_foreign(entry.file, FOREIGN_SUFFIXES[suffix]))
    elif suffix == parquet.SUFFIX and archives and _holds_pictures(entry.path):
        _open_archive(entry, found)
    elif suffix in COMPANION_SUFFIXES:
        found.words[entry.file] = entry
    elif suffix in ARCHIVE_SUFFIXES and archives:
        _open_archive(entry, found)
    else:
        _by_content(entry, suffix, found)


def _by_content(entry: Entry, suffix: str, found: Listing) -> None:
    """A file whose suffix says nothing: a photo without one is a photo."""
    kind = ""
    try:
        if entry.member:
            kind = kind_of(entry.read()[:64])
        elif stat.S_ISREG(os.stat(entry.path).st_mode):
            with open(entry.path, "rb") as file:
                kind = kind_of(file.read(64))
    except (OSError, PhotoError):
        pass
    if kind in READ:
        found.photos.append(entry)
    elif kind in FOREIGN_SUFFIXES.values():
        found.rejected.append(_foreign(entry.file, kind))
    else:
        found.passed_over[f"{suffix} file" if suffix else "file without a suffix"] += 1


def _foreign(file: str, kind: str) -> Rejected:
    return Rejected(file, "unsupported_format", f"{file}: {kind} is not read. Export it as JPEG, PNG or WebP.")


def _open_archive(archive: Entry, found: Listing) -> None:
    """The members of an archive: photos and words by the same stem."""
    inside = f"{archive.file}/" if archive.file else ""
    try:
        for inner, member in members(archive.path):
            name = PurePosixPath(inner).name
            if member is None:
                found.passed_over["member of an archive that is no file, or is encrypted"] += 1
            elif not any(map(_is_of_system, PurePosixPath(inner).parts[:-1])):
                _sort_in(Entry(inside + inner, archive.path, member), name, set(), found, False)
            else:
                found.passed_over["file in a system folder of an archive"] += 1
    except ArchiveError as error:
        file = archive.file or archive.path.name
        found.rejected.append(Rejected(file, "damaged", f"{file}: not a readable archive ({error}). Make it again."))


def _holds_pictures(path: Path, required: bool = False) -> bool:
    """Whether a Parquet file is one of pictures. required: RealRAGError where its package is missing."""
    try:
        return parquet.holds_pictures(path)
    except parquet.NoParquet:
        if required:
            raise RealRAGError(
                f"{path}: Parquet files are read by pyarrow. Run `pip install pyarrow`, or give a folder of photos."
            ) from None
        return False


def _is_of_system(name: str) -> bool:
    return name.lower() in SYSTEM_FOLDERS or name.lower().endswith(SYSTEM_SUFFIXES)


def _is_bundle(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "manifest.json"), "rb") as file:
            return b'"realrag-bundle"' in file.read(1 << 20)
    except OSError:
        return False


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.lower()


def _with_example(count: int, one: str, many: str, what: str, first: str) -> str:
    return f"{count} {one if count == 1 else many} {what} (first: {first})."
