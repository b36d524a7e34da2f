"""A folder of photos -> the list of what to index: sorted, each content once, with its words; and what was left out and
why."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..errors import PhotoError, RealRAGError
from ..prompts.words import is_a_name
from .archives import ARCHIVE_SUFFIXES
from .c2pa import readable, words_of_manifest
from .captions import Captions
from .credit import MAX_FIELD, Credit, clean, generated_by, spoken
from .decode import header
from .kinds import PHOTO_SUFFIXES
from .metadata import words_inside
from .other_names import FILE as OTHER_NAMES
from .walk import Entry, Rejected, walk

Progress = Callable[[int, int], None]
# Photos that were read for their hash stay in memory up to this many bytes, so that small ones are read once.
KEPT_BYTES = 256 << 20


class Source:
    """Where a photo's bytes come from: memory, once, if they were kept; else the file, if it is the same as before."""

    def __init__(self, entry: Entry, sha256: str, data: bytes):
        self._entry, self._sha256, self._data = entry, sha256, data
        self._stamp = _stamp(entry.path)

    def forget(self) -> None:
        self._data = b""

    def read(self) -> bytes:
        """PhotoError `changed` where the file is no longer the one that was hashed."""
        data, self._data = self._data, b""
        if data:
            return data
        data = self._entry.read()
        if _stamp(self._entry.path) != self._stamp and hashlib.sha256(data).hexdigest() != self._sha256:
            raise PhotoError(
                "changed", f"{self._entry.file}: changed while it was being indexed. Run the command again."
            )
        return data


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        state = os.stat(path)
    except OSError:
        return 0, 0, 0
    return state.st_size, state.st_mtime_ns, state.st_ino


@dataclass(frozen=True)
class Candidate:
    """A photo to index. `file`: path relative to the photo folder, with '/'; width and height of the upright picture.
    path: its file, or the archive that holds it. source: its bytes."""

    file: str
    path: Path
    sha256: str
    width: int
    height: int
    credit: Credit
    source: Source = field(repr=False, compare=False)


@dataclass
class Library:
    """What a folder holds. Every photo file is in exactly one of the three lists. notes: sentences on what was passed
    over and on words without photos or photos without words. generated: photos that carry a generator's mark. names: the
    table of other names of the classes, where there is one."""

    folder: Path
    candidates: list[Candidate] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)  # (file, the file it repeats)
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    generated: int = 0
    names: Entry | None = None

    @property
    def found(self) -> int:
        return len(self.candidates) + len(self.duplicates) + len(self.rejected)


def photo_files(folder: Path) -> list[str]:
    """Sorted relative paths of all photos; hidden files and system folders are passed over."""
    return [entry.file for entry in walk(folder).photos]


def printable(name: str) -> str:
    """A file name that can be written as UTF-8 on one line: old disks hold names in other encodings."""
    name = "".join(char if char.isprintable() else "?" for char in name.encode("utf-8", "replace").decode())
    return name[:MAX_FIELD]


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


@dataclass(frozen=True)
class _Looked:
    """A photo that can be used: its facts, its own words, and the generator that marked it. c2pa: it carries a
    manifest."""

    source: Source
    size: int
    sha256: str
    width: int
    height: int
    kind: str
    several: bool
    own: Credit
    generator: str
    c2pa: bool


def scan(
    folder: Path,
    captions: Path | None = None,
    default: Credit = Credit(),
    *,
    archives: bool = False,
    known: Container[str] = (),
    keep_bytes: int = 0,
    workers: int = 4,
    progress: Progress = lambda done, total: None,
) -> Library:
    """Walk `folder` and its sub-folders, or a .zip, .tar or .parquet file of photos; hash every photo and read its header. Nothing is decoded yet.

    archives: list the photos inside .tar, .zip and .parquet files too. keep_bytes: how many bytes of photos, whose hash is not in
    `known`, may stay in memory for `Candidate.source`. Raises RealRAGError when a folder or a table cannot be read; a
    photo that cannot be used never raises, it is listed in `rejected`.
    """
    folder = Path(folder)
    if not folder.is_dir() and not (folder.is_file() and folder.suffix.lower() in ARCHIVE_SUFFIXES):
        raise RealRAGError(
            f"No folder {folder}. Give the folder that holds your photos, or a .zip or .parquet file of them."
        )
    listing = walk(folder, archives=archives)
    words = Captions(folder, captions, default, listing)
    library = Library(folder, notes=[*listing.notes, *words.notes], names=listing.words.get(OTHER_NAMES))
    library.rejected = [
        replace(item, file=printable(item.file), message=printable(item.message)) for item in listing.rejected
    ]
    first: dict[str, str] = {}
    elsewhere: dict[str, list[Credit]] = {}
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}

    def count(what: str, file: str) -> None:
        counts[what] += 1
        examples.setdefault(what, file)

    def look(entry: Entry):
        try:
            if entry.path.is_symlink() and not entry.path.exists():
                raise PhotoError("unreadable", f"{entry.file}: a link that leads nowhere. Remove it.")
            data = entry.read()
            seen, contents = header(data, PurePosixPath(entry.file).name, entry.path)
            inside, generator = words_inside(contents)
            own = words.own(entry.file).or_else(inside)
            if contents.c2pa:
                stated, maker = words_of_manifest(data, contents.kind)
                own, generator = own.or_else(stated), generator or maker
            if generator:
                own = replace(own, source=generated_by(generator, own.source))
            source = Source(entry, seen.sha256, data if keep_bytes else b"")
            return _Looked(
                source, len(data), seen.sha256, seen.width, seen.height, seen.kind, seen.several, own.joined(), generator,
                contents.c2pa,
            )  # fmt: skip
        except PhotoError as error:
            return error
        except OSError as error:
            return PhotoError("unreadable", f"{entry.file}: cannot be read ({error.strerror}). Check its name.")

    total = len(listing.photos)
    looked = in_order(listing.photos, look, workers, 4 * workers)
    for number, (entry, result) in enumerate(zip(listing.photos, looked, strict=True), 1):
        file = printable(entry.file)
        if isinstance(result, PhotoError):
            library.rejected.append(Rejected(file, result.reason, printable(str(result))))
        elif result.sha256 in first:
            library.duplicates.append((file, first[result.sha256]))
            there = replace(words.named(result.own, entry.file), caption=result.own.caption)
            elsewhere.setdefault(first[result.sha256], []).append(there)
        else:
            first[result.sha256] = file
            if result.sha256 in known or result.size > keep_bytes:
                result.source.forget()
            else:
                keep_bytes -= result.size
            credit = words.named(result.own, entry.file)
            library.candidates.append(
                Candidate(file, entry.path, result.sha256, result.width, result.height, credit, result.source)
            )
            library.generated += bool(result.generator)
            if not result.own.caption:
                count("without words", file)
            if result.several:
                count("several", file)
            if result.generator:
                count("generated", file)
            if result.c2pa and not readable():
                count("not read", file)
            expected = PHOTO_SUFFIXES.get(PurePosixPath(entry.file).suffix.lower())
            if expected and expected != result.kind:
                count("other name", f"{file} is {result.kind}")
        progress(number, total)
    library.candidates = [
        replace(item, credit=_said_elsewhere(item.credit, elsewhere[item.file])) if item.file in elsewhere else item
        for item in library.candidates
    ]
    library.rejected.sort(key=lambda item: item.file)
    named = [is_a_name(item.credit.class_name) for item in library.candidates]
    if counts["without words"] == len(named) and all(named):
        del counts["without words"]  # a folder of named folders needs no captions
    library.notes += words.unused() + _sentences(counts, examples)
    if listing.passed_over:
        rows = ", ".join(f"{number} x {what}" for what, number in sorted(listing.passed_over.items()))
        library.notes.append(f"Passed over: {rows}.")
    library.notes = [printable(note) for note in library.notes]
    return library


def _said_elsewhere(credit: Credit, others: list[Credit]) -> Credit:
    """A photo that lies in several folders, as one of two characters does, with the names and captions that it has in each."""
    folders = dict.fromkeys(other.class_name for other in others if is_a_name(other.class_name))
    own = credit.class_name if is_a_name(credit.class_name) else next(iter(folders), credit.class_name)
    names = [spoken(name) for name in folders if name != own]
    texts = dict.fromkeys([credit.caption, *names, *(other.caption for other in others)])
    return replace(credit, class_name=own, caption=clean("; ".join(filter(None, texts))))


_C2PA = "; `pip install c2pa-python` keeps the maker and generator that they name"
_SENTENCES = {
    "without words": ("photo has no caption of its own", "photos have no captions of their own"),
    "several": ("file holds several pictures, of which the first is used", "files hold several pictures, of which the first is used"),
    "generated": ("photo carries a generator's mark and may not be real", "photos carry a generator's mark and may not be real"),
    "not read": (f"photo carries content credentials, which are not read{_C2PA}", f"photos carry content credentials, which are not read{_C2PA}"),
    "other name": ("file is of another format than its name says, and was read", "files are of another format than their names say, and were read"),
}  # fmt: skip


def _sentences(counts: Counter[str], examples: dict[str, str]) -> list[str]:
    return [
        f"{counts[what]} {one if counts[what] == 1 else many} (first: {examples[what]})."
        for what, (one, many) in _SENTENCES.items()
        if counts[what]
    ]
