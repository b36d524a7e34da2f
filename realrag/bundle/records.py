"""What is known of each photo of a bundle: one JSON object a line, checked field by field, found by row, id or filter."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from .. import artifact
from ..errors import BundleError, RealRAGError
from ..files import canonical_json, open_regular
from ..photos.credit import MAX_FIELD, SAYS, clean, is_generated, spoken
from ..photos.licenses import NOT_STATED, normal
from ..prompts.words import camera_words, fold
from ..validation import is_count, is_hex, strict_json

MAX_LINE = 1 << 16
_NO_WORD = re.compile(
    r"[0-9a-fA-F]{8,}|\d{5,}|\b(?:IMG|DSC|DSCF|DSCN|PXL|MVIMG|GOPR|VID|P)[ _-]?\d+\b"
)  # hashes, dates, IMG_0001
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_./ ]?(0[1-9]|1[0-2])(?:[-_. ]?(?:0[1-9]|[12]\d|3[01]))?(?!\d)")
MONTHS = "january february march april may june july august september october november december".split()
# Folders that say how photos are filed and not what they show: "a train" asks for no photo of train/cat.
_NO_SUBJECT = (
    frozenset(
        "train training test testing val valid validation split splits data dataset datasets images pictures thing things misc".split()
    )
    | camera_words()
)
MOST_SAME = 1000  # photos of one file name
MAX_PICTURE = 256 << 20  # bytes of one stored picture
COLUMNS = "2"  # version of the cached columns
_TEXTS = ("caption", "class", "licence", "author", "source", "file")
_KEYS = {"id", "sha256", "width", "height", "picture", "thumbnail", *_TEXTS}


@dataclass(frozen=True)
class Record:
    """One photo. width and height: the original's, upright, in pixels. picture and thumbnail: (part, offset, bytes) of
    a JPEG inside the bundle's numbered pack files; no thumbnail where the picture is as small as one."""

    id: str
    sha256: str
    caption: str
    class_name: str
    licence: str
    author: str
    source: str
    file: str
    width: int
    height: int
    picture: tuple[int, int, int]
    thumbnail: tuple[int, int, int] | None

    def line(self) -> bytes:
        fields = asdict(self)
        fields["class"] = fields.pop("class_name")
        return canonical_json(fields) + b"\n"


@dataclass(frozen=True)
class Filters:
    """Which photos may answer. Empty tuples allow all. Classes compare without case, '-' and '_' as spaces; licenses by
    their normal form, so that "CC BY 4.0" finds "CC-BY-4.0" and the license's URL."""

    classes: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    include_ids: tuple[str, ...] = ()
    exclude_ids: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.classes, self.licences, self.include_ids, self.exclude_ids))


def class_key(name: str) -> str:
    """Equal for two spellings of one class: without case, "-" and "_" as spaces."""
    return spoken(name).casefold()


def _licence_key(words: str) -> str:
    return spoken(normal(words).id).casefold()


def _month(file: str) -> tuple[str, ...]:
    """The year and the name of the month that a path begins a date with."""
    date = _DATE.search(file)
    return (date[1], MONTHS[int(date[2]) - 1]) if date else ()


def record_id(sha256: str) -> str:
    """The short name of a photo: the first 16 hex digits of its content hash."""
    return sha256[:16]


def parse_record(line: bytes, number: int) -> Record:
    """One line -> Record. BundleError names the line and the field."""

    def bad(what: str) -> BundleError:
        return BundleError(f"records line {number}: {what}. The bundle is damaged; get it again from its author.")

    try:
        row = strict_json(line)
    except (ValueError, UnicodeDecodeError) as error:
        raise bad(f"not valid JSON ({error})") from None
    if not isinstance(row, dict) or set(row) != _KEYS:
        raise bad(f"has not exactly the fields {', '.join(sorted(_KEYS))}")
    for key in _TEXTS:
        if not isinstance(row[key], str) or len(row[key]) > MAX_FIELD:
            raise bad(f"{key!r} is not a text of at most {MAX_FIELD} characters")
        if not row[key].isprintable():  # as `realrag index` cleans it: no control characters, no halves of characters
            row[key] = clean(row[key])
    if not is_hex(row["sha256"], 64) or row["id"] != record_id(row["sha256"]):
        raise bad("'sha256' or 'id' is not a content hash and its first 16 digits")
    if not all(is_count(row[key], 1 << 20) and row[key] for key in ("width", "height")):
        raise bad("'width' or 'height' is not a number of pixels")
    for key in ("picture", "thumbnail"):
        if key == "thumbnail" and row[key] is None:
            continue
        if not (isinstance(row[key], list) and len(row[key]) == 3 and all(map(is_count, row[key]))):
            raise bad(f"{key!r} is not [part, offset, bytes]")
        if row[key][2] > MAX_PICTURE:
            raise bad(f"{key!r} has {row[key][2]} bytes, more than {MAX_PICTURE}")
        row[key] = tuple(row[key])
    row["class_name"] = row.pop("class")
    return Record(**row)


class RecordTable:
    """The rows of a `records` file, read through a list of line offsets, with columns for filters.

    classes: names of the classes; class_codes (N,) int32: of each row, its place in `classes`. licences and licence_codes:
    the same of the licenses. ids: (N,) uint64, the photos' ids as numbers. lost: makes the error of a
    file that cannot be read any more.

    Parsing every line takes a few seconds per million; the columns are kept in `cache`, with a hash of them, so that
    this happens once.
    """

    def __init__(
        self,
        path: Path,
        count: int,
        cache: Path | None = None,
        lost: Callable[[Path, OSError], BundleError] = lambda path, error: BundleError(f"{path}: {error.strerror}"),
    ):
        self._path, self.count, self._lost = Path(path), count, lost
        columns = self._cached(cache)
        if columns is None:
            columns = self._parse()
            self._keep(cache, columns)
        self._offsets, self.ids, self.class_codes, self.licence_codes, self.classes, self.licences = columns

    def _parse(self):
        offsets, at = [0], 0
        ids: list[int] = []
        classes: dict[str, int] = {}
        licences: dict[str, int] = {}
        class_codes, licence_codes = [], []
        with open_regular(self._path) as file:
            while line := file.readline(MAX_LINE + 1):
                number = len(ids) + 1
                if len(line) > MAX_LINE or not line.endswith(b"\n") or number > self.count:
                    raise BundleError(
                        f"records line {number}: too long, unfinished, or beyond the {self.count} photos of the manifest. "
                        "The bundle is damaged; get it again from its author."
                    )
                record = parse_record(line[:-1], number)
                at += len(line)
                offsets.append(at)
                ids.append(int(record.id, 16))
                class_codes.append(classes.setdefault(record.class_name, len(classes)))
                licence_codes.append(licences.setdefault(record.licence, len(licences)))
        if len(ids) != self.count or len(set(ids)) != len(ids):
            raise BundleError(
                f"records: {len(set(ids))} different photos in {len(ids)} lines, the manifest says {self.count}. "
                "The bundle is damaged; get it again from its author."
            )
        return (
            np.array(offsets, np.int64), np.array(ids, np.uint64), np.array(class_codes, np.int32),
            np.array(licence_codes, np.int32), tuple(classes), tuple(licences),
        )  # fmt: skip

    def _cached(self, cache: Path | None):
        """The kept columns, or None when there are none, they are damaged, or they do not fit this file."""
        if cache is None:
            return None
        try:
            arrays, metadata = artifact.read_arrays(cache / "rows.safetensors")
            size = os.stat(self._path).st_size
            names = json.loads(metadata["words"])
            columns = [arrays[name] for name in ("offsets", "ids", "classes", "licences")]
            right = (COLUMNS, _sum_of(columns, metadata["words"])) == (metadata["version"], metadata["sha256"])
        except (RealRAGError, OSError, ValueError, LookupError, TypeError):
            return None
        lengths = [self.count + 1] + 3 * [self.count]
        if not right or [len(column) for column in columns] != lengths or int(columns[0][-1]) != size:
            return None
        return (*columns, tuple(names["classes"]), tuple(names["licences"]))

    def _keep(self, cache: Path | None, columns) -> None:
        if cache is None:
            return
        offsets, ids, classes, licences, class_names, licence_names = columns
        words = json.dumps({"classes": class_names, "licences": licence_names})
        digest = _sum_of((offsets, ids, classes, licences), words)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            artifact.write(
                cache / "rows.safetensors",
                {"offsets": offsets, "ids": ids, "classes": classes, "licences": licences},
                {"words": words, "version": COLUMNS, "sha256": digest},
            )
        except OSError:
            pass  # a read-only cache only costs a second parse

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Record:
        if not 0 <= row < self.count:
            raise IndexError(row)
        start, end = int(self._offsets[row]), int(self._offsets[row + 1])
        try:
            with open_regular(self._path) as file:
                file.seek(start)
                line = file.read(end - start)
        except OSError as error:
            raise self._lost(self._path, error) from None
        return parse_record(line.removesuffix(b"\n"), row + 1)

    def __iter__(self):
        try:
            with open_regular(self._path) as file:
                for number in range(1, self.count + 1):
                    yield parse_record(file.readline(MAX_LINE + 1).removesuffix(b"\n"), number)
        except OSError as error:
            raise self._lost(self._path, error) from None

    def rows_of_file(self, name: str) -> list[int]:
        """The rows whose file is called so, with or without its suffix, in the case given, in capitals or small; at most
        MOST_SAME. The records are looked through as bytes, as a number that stands in one name only is in no list of words."""
        found: dict[int, None] = {}
        stem = re.sub(r"\.\w{2,5}$", "", name)
        ways = {way.encode() for way in (stem, stem.upper(), stem.lower()) if stem.isascii() and stem}
        with open_regular(self._path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for way in sorted(before + way for way in ways for before in (b"/", b'"')):
                at = data.find(way)
                while at >= 0 and len(found) < MOST_SAME:
                    if data[at + len(way) : at + len(way) + 1] in (b".", b'"'):
                        row = int(np.searchsorted(self._offsets, at, side="right")) - 1
                        path = PurePosixPath(self[row].file)
                        if stem.lower() in (path.name.lower(), path.stem.lower()):
                            found[row] = None
                    at = data.find(way, at + 1)
        return sorted(found)

    def words_beside(self) -> Iterator[str]:
        """The words that stand beside each photo, in row order: class, caption, file name and the folders around its own,
        without what only a camera or a program reads. The file was checked line by line when it was opened."""
        with open_regular(self._path) as file:
            for line in file:
                row = json.loads(line)
                texts = (row[key] for key in ("class", "caption", "file"))
                name, caption, file_name = (text if text.isprintable() else clean(text) for text in texts)
                stem = file_name[file_name.rfind("/") + 1 :].rpartition(".")[0]
                if not stem.isalpha():
                    stem = _NO_WORD.sub(" ", stem)
                said = f"{name} {caption} {stem}" if caption != name else f"{name} {stem}"
                # Its own folder too, where a table says another class.
                folders = (folder for folder in file_name.split("/")[:-1] if folder != name)
                around = [folder for folder in folders if fold(folder) not in _NO_SUBJECT]
                # "a dog" finds what lies in dogs/Bello, "July 2023" what lies in 2023/07 or is called IMG_20230714
                yield " ".join([said, *around, *_month(file_name)])

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.ids, kind="stable")

    def row_of(self, id: str) -> int | None:
        """The row of a photo's id (or full content hash), or None."""
        if not (is_hex(id, 16) or is_hex(id, 64)) or not self.count:
            return None
        key = np.uint64(int(id[:16], 16))
        at = int(np.searchsorted(self.ids, key, sorter=self._order))
        row = int(self._order[min(at, self.count - 1)])
        return row if self.ids[row] == key else None

    def mask(self, filters: Filters) -> tuple[np.ndarray | None, str]:
        """(N,) bool of the rows that `filters` allow (None: all), and a sentence on names that match nothing."""
        if not filters:
            return None, ""
        allowed, unknown = np.ones(self.count, bool), []
        for wanted, names, codes, key in (
            (filters.classes, self.classes, self.class_codes, class_key),
            (filters.licences, self.licences, self.licence_codes, _licence_key),
        ):
            if wanted:
                keys = {key(name) for name in wanted}
                good = [code for code, name in enumerate(names) if key(name) in keys]
                unknown += sorted(keys - {key(names[code]) for code in good})
                allowed &= np.isin(codes, good)
        for ids, inside in ((filters.include_ids, True), (filters.exclude_ids, False)):
            if ids:
                rows = [self.row_of(id) for id in ids]
                unknown += [id for id, row in zip(ids, rows, strict=True) if row is None]
                chosen = np.zeros(self.count, bool)
                chosen[[row for row in rows if row is not None]] = True
                allowed &= chosen if inside else ~chosen
        return allowed, f"Nothing here is called {', '.join(map(repr, unknown[:5]))}." if unknown else ""

    def licence_counts(self) -> dict[str, int]:
        counts = np.bincount(self.licence_codes, minlength=len(self.licences))
        return {name or NOT_STATED: int(count) for name, count in zip(self.licences, counts, strict=True)}

    def generated(self) -> int:
        """How many photos carry a generator's mark, by their source."""
        with open_regular(self._path) as file:
            return sum(is_generated(json.loads(line)["source"]) for line in file if SAYS.encode() in line)

    def class_counts(self) -> dict[str, int]:
        counts = np.bincount(self.class_codes, minlength=len(self.classes))
        return {name or NOT_STATED: int(count) for name, count in zip(self.classes, counts, strict=True)}


def _sum_of(columns, words: str) -> str:
    """One hash over the cached columns and the names that their codes stand for."""
    digest = hashlib.sha256(words.encode())
    for column in columns:
        digest.update(f"|{column.dtype}|{column.shape}|".encode())
        digest.update(column.tobytes())
    return digest.hexdigest()
