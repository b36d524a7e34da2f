"""What is said about each photo of a folder: by tables, files beside it, the photo's own file, and its folder's name."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..errors import PhotoError, RealRAGError
from ..prompts.words import is_a_name, names_something
from .archives import ARCHIVE_SUFFIXES
from .credit import COLUMNS, Credit, clean, credit_of, file_of, listed_captions, lowered, spoken
from .match import EXACT, Matcher, folded
from .metadata import xmp_credit
from .other_names import FILE as OTHER_NAMES
from .tables import SUFFIXES, Table, read_text
from .tables import read_table as read_any_table
from .walk import Entry, Listing, walk

# Tables that are read wherever they lie; another has to be given with --captions. Of two the first counts.
TABLE_STEMS = ("captions", "metadata", "meta_cap", "meta_clean", "results", "flickr8k.token", "credits")
MAX_SIDECAR = 1 << 20
KNOWN = frozenset(name for names in COLUMNS.values() for name in names)
# A JSON file with one of these is an export of a phone or a photo service: of it only the caption is taken.
PRIVATE = frozenset(
    (
        "geodata", "geodataexif", "phototakentime", "creationtime", "photolastmodifiedtime", "people", "imageviews",
        "googlephotosorigin", "gps", "latitude", "longitude", "location", "faces", "exif", "exifdata", "media_metadata",
        "creation_timestamp", "devicetype", "albumdata",
    )
)  # fmt: skip
_YEAR = re.compile(r"(?:^|\D)(?:19|20)\d\d(?:\D|$)")
_IMG2DATASET = frozenset(("key", "status", "url"))


def read_table(path: Path) -> list[tuple[str, Credit]]:
    """(file, credit) per row of a table. RealRAGError names the line that cannot be read."""
    path = Path(path)
    return [(file, credit) for _, file, credit, _ in _rows(read_any_table(path, known=KNOWN))]


def _rows(table: Table) -> list[tuple[int, str, Credit, list[str]]]:
    """(line, file, credit, further captions) of each row that names a photo."""
    # Flickr8k numbers the captions of a photo: a.jpg#0, a.jpg#1.
    rows = [
        (number, re.sub(r"(\.\w+)#\d+$", r"\1", file_of(row)), credit_of(row), listed_captions(row)[1:])
        for number, row in table.rows
    ]
    if rows and not any(file for _, file, _, _ in rows):
        seen = ", ".join(repr(name[:40]) for name in table.header[:8]) or "none"
        raise RealRAGError(
            f"{table.name} has no column that names the photo; its columns are {seen}. Call it one of: "
            f"{', '.join(COLUMNS['file'][:8])}."
        )
    return [row for row in rows if row[1]]


class Captions:
    """Looks up the Credit of each photo in a folder. First said wins: the given table, tables in the folder, a JSON
    file beside the photo, a text file, an XMP file, the photo's own file, the folder's name."""

    def __init__(
        self, folder: Path, table: Path | None = None, default: Credit = Credit(), listing: Listing | None = None
    ):
        self._folder, self._default = Path(folder), default
        self._listing = listing or walk(self._folder)
        self._words = {folded(file): entry for file, entry in self._listing.words.items()}
        self._used: set[str] = set()
        self._table: dict[str, Credit] = {}
        self._further: dict[str, list[str]] = {}
        self.notes: list[str] = []
        matcher = Matcher((entry.file for entry in self._listing.photos), self._folder)
        for path, entry in self._tables(table):
            self._take(path, entry, matcher, required=entry is None)

    def _tables(self, given: Path | None) -> list[tuple[Path, Entry | None]]:
        """The given table, then those of the folder: by the order of TABLE_STEMS, upper folders first."""
        found: list[tuple[int, int, str]] = []
        others: list[str] = []
        photos = {folded(str(PurePosixPath(entry.file).with_suffix(""))) for entry in self._listing.photos}
        above = os.path.abspath(given) if given else None
        for file, entry in self._listing.words.items():
            pure = PurePosixPath(folded(file))
            if pure.suffix not in SUFFIXES or (above and os.path.abspath(entry.path) == above):
                continue
            if pure.stem in TABLE_STEMS and str(pure.with_suffix("")) not in photos and not _is_plain_text(pure):
                found.append((TABLE_STEMS.index(pure.stem), file.count("/"), file))
            elif pure.suffix in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet") and pure.stem != "names":
                others.append(file)
        for _, _, file in found:
            self._used.add(folded(file))
        if others and not given:
            self.notes.append(
                f"{_counted(len(others), 'table was', 'tables were')} not read, as only {', '.join(TABLE_STEMS[:2])} and "
                f"credits are (first: {others[0]}). Give one with --captions."
            )
        self._used.update(map(folded, others))
        tables: list[tuple[Path, Entry | None]] = [(Path(given), None)] if given else []
        return tables + [(self._listing.words[file].path, self._listing.words[file]) for _, _, file in sorted(found)]

    def _take(self, path: Path, entry: Entry | None, matcher: Matcher, required: bool) -> None:
        """Merge a table's rows into what is known; a table that lies in the folder and cannot be read is an error too,
        unless only a package is missing."""
        name = entry.file if entry else str(path)
        if entry is None:
            table = read_any_table(path, known=KNOWN)
        else:
            try:
                table = read_any_table(entry.read(), name, KNOWN)
            except PhotoError as error:
                raise RealRAGError(f"The table {error}") from None
            except RealRAGError as error:
                if "pip install" not in str(error):
                    raise
                self.notes.append(str(error))
                return
        rows = _rows(table)
        self.notes += table.notes
        beside = os.path.relpath(os.path.dirname(os.path.abspath(path)), os.path.abspath(self._folder))
        if entry is not None and entry.member:
            beside = os.path.dirname(entry.file)
        # Of rows that fit a photo by a part of its path, the ones that fit best count, if they agree on a path.
        claims: dict[str, list[tuple[int, str, Credit, list[str]]]] = {}
        unmatched = []
        for number, file, credit, more in rows:
            if found := matcher.find(file, "" if beside == "." else beside):
                claims.setdefault(found[0], []).append((found[1], file, credit, more))
            else:
                unmatched.append((number, file))
        further = 0
        for photo, claimed in claims.items():
            best = max(score for score, *_ in claimed)
            named = {folded(file) for score, file, *_ in claimed if score == best}
            if best < EXACT and len(named) > 1:
                unmatched += [(0, file) for _, file, *_ in claimed]
                continue
            same = [credit for score, _, credit, _ in claimed if score == best]
            unmatched += [(0, file) for score, file, *_ in claimed if score < best]
            further += sum(bool(credit.caption) for credit in same[1:])
            for credit in same:
                self._table[photo] = self._table.get(photo, Credit()).or_else(credit)
            texts = [text for score, _, credit, more in claimed if score == best for text in (credit.caption, *more)]
            if more := [text for text in texts if text and text != self._table[photo].caption]:
                self._further.setdefault(photo, []).extend(more)
        if unmatched:
            self.notes.append(
                f"{name}: {len(rows) - len(unmatched)} of {len(rows)} rows name a photo here; without one: {len(unmatched)} "
                f"(first: {clean(unmatched[0][1])[:200]})."
            )
        if further:
            self.notes.append(
                f"{name}: {_counted(further, 'row repeats', 'rows repeat')} a photo; its first caption is kept."
            )

    def of(self, file: str, inside: Credit = Credit()) -> Credit:
        """`file`: path relative to the photo folder, with '/'. inside: what the photo's own file says. PhotoError
        `bad_sidecar` when the words beside it cannot be read."""
        return self.named(self.own(file).or_else(inside).joined(), file)

    def own(self, file: str) -> Credit:
        """What tables and files beside it say of a photo. PhotoError `bad_sidecar`."""
        file = os.path.normpath(file).replace("\\", "/")
        return self._table.get(file, Credit()).or_else(self._sidecar(file))

    def further(self, file: str) -> list[str]:
        """The captions that tables, or the JSON beside it, have of a photo beside its first one, in their order."""
        file = os.path.normpath(file).replace("\\", "/")
        if file in self._further:
            return self._further[file]
        entry = self._words.get(folded(str(PurePosixPath(file).with_suffix(".json"))))
        try:
            row = json.loads(read_text(entry.read(MAX_SIDECAR))[0]) if entry else None
        except (PhotoError, ValueError, RecursionError):
            return []  # said where the photo's own words are read
        return listed_captions(row)[1:] if isinstance(row, dict) else []

    def named(self, credit: Credit, file: str) -> Credit:
        """A photo's own words, filled up from the name of its folder or file, and from what holds for all photos."""
        parent = PurePosixPath(file).parent.name
        if not credit.class_name and parent and not parent.lower().endswith(ARCHIVE_SUFFIXES):
            credit = replace(credit, class_name=clean(parent))
        credit = credit.or_else(self._default)
        if not credit.caption:
            stem, folder = PurePosixPath(file).stem, credit.class_name
            # A folder that says when its photos were taken, such as 2023/08, says less than their own names.
            own = not is_a_name(folder) and (names_something(stem) or _YEAR.search(f"{PurePosixPath(file).parent}"))
            credit = replace(credit, caption=of_file_name(stem) if own else spoken(folder) or of_file_name(stem))
        return credit

    def unused(self) -> list[str]:
        """Sentences on files of words that belong to no photo; after all photos have been asked for."""
        left: Counter[str] = Counter()
        first: dict[str, str] = {}
        for file in sorted(self._listing.words):
            suffix = PurePosixPath(folded(file)).suffix
            if folded(file) not in self._used and file != OTHER_NAMES:
                left[suffix] += 1
                first.setdefault(suffix, file)
        return [
            f"{_counted(count, f'{suffix} file belongs', f'{suffix} files belong')} to no photo (first: {clean(first[suffix])})."
            for suffix, count in sorted(left.items())
        ]

    def _sidecar(self, file: str) -> Credit:
        credit = Credit()
        stem = str(PurePosixPath(file).with_suffix(""))
        for kind, read in (
            (".json", _json), (".caption", _text), (".txt", _text), (".cls", _class), (".xmp", _xmp)
        ):  # fmt: skip
            for name in (
                stem + kind,
                file + kind,
                *([f"{file}.supplemental-metadata.json"] if kind == ".json" else ()),
            ):
                if (entry := self._words.get(folded(name))) is None:
                    continue
                self._used.add(folded(name))
                try:
                    credit = credit.or_else(read(entry.read(MAX_SIDECAR)))
                except PhotoError as error:
                    if error.reason != "empty":
                        raise PhotoError("bad_sidecar", f"{PurePosixPath(file).name}: its words in {error}") from None
                except (ValueError, RecursionError):
                    what = "JSON" if kind == ".json" else "text in UTF-8, UTF-16 or Windows-1252"
                    raise PhotoError(
                        "bad_sidecar",
                        f"{PurePosixPath(file).name}: {PurePosixPath(entry.file).name} is not {what}. Mend it or remove it.",
                    ) from None
        return credit


def of_file_name(stem: str) -> str:
    """A file's name as words, its number apart: `robot2` -> `robot 2`."""
    return spoken(re.sub(r"(?<=[^\W\d_]{3})(\d+)$", r" \1", stem))


def _is_plain_text(path: PurePosixPath) -> bool:
    """A .txt is a table only where a known data set calls it so."""
    return path.suffix == ".txt" and path.stem not in ("captions", "flickr8k.token")


def _text(data: bytes) -> Credit:
    return Credit(caption=clean(read_text(data)[0]))


def _class(data: bytes) -> Credit:
    return Credit(class_name=clean(read_text(data)[0]))


def _xmp(data: bytes) -> Credit:
    return xmp_credit(data)


def _json(data: bytes) -> Credit:
    """A JSON object beside a photo. Of a stranger's export only the caption is taken: its links are private."""
    row = json.loads(read_text(data)[0])
    if isinstance(row, str):
        return Credit(caption=clean(row))
    if isinstance(row, list):
        row = {"caption": row}
    if not isinstance(row, dict):
        return Credit()
    keys = set(lowered(row))
    if keys & PRIVATE and not keys >= _IMG2DATASET:
        titled = dict(row)
        titled.pop("title", None)  # the file's name in Google's export
        return credit_of(titled, ("caption",))
    credit = credit_of(row)
    if not (keys >= _IMG2DATASET or keys & {"source", "source_url", "origin"} or keys <= KNOWN):
        credit = replace(credit, source="")
    return credit


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
