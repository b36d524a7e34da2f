"""Which photo a row of a table means: by its exact path, else by the one path that fits it."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from .kinds import PHOTO_SUFFIXES

EXACT = 1 << 30


def folded(path: str) -> str:
    """A path for comparing: NFC, small letters, '/' between folders."""
    return unicodedata.normalize("NFC", path).casefold().replace("\\", "/")


def _without_suffix(path: str) -> str:
    pure = PurePosixPath(path)
    return str(pure.with_suffix("")) if pure.suffix.lower() in PHOTO_SUFFIXES else path


class _Ends:
    """Files by what their paths end with, so that a name that many folders have, such as 1.jpg, is looked up once."""

    def __init__(self) -> None:
        self._whole: dict[str, list[str]] = defaultdict(list)
        self._inside: dict[str, list[str]] = defaultdict(
            list
        )  # two files are as good as many: no row means one of them
        self._deepest = 0

    def add(self, path: str, file: str) -> None:
        self._whole[path].append(file)
        parts = path.split("/")
        self._deepest = max(self._deepest, len(parts))
        for start in range(1, len(parts)):
            if len(files := self._inside["/".join(parts[start:])]) < 2:
                files.append(file)

    def best(self, wanted: tuple[str, ...], above: tuple[str, ...]) -> tuple[str, int] | None:
        """The file whose path ends as `wanted` does, further back than any other's, so that one contains the other."""
        fits = [(len(wanted), file) for file in self._inside.get("/".join(wanted), ())]
        for count in range(1, min(self._deepest, len(wanted)) + 1):
            for file in self._whole.get("/".join(wanted[-count:]), ()):
                outside = zip(reversed(above), reversed(wanted[:-count]), strict=False)
                fits.append((count + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], outside)), file))
        fits.sort(reverse=True)
        if not fits or (len(fits) > 1 and fits[1][0] == fits[0][0]):
            return None
        return fits[0][1], fits[0][0]


class Matcher:
    """The photos of a folder, found by what people and programs write for their paths."""

    def __init__(self, files: Iterable[str], folder: Path):
        self._exact: dict[str, str] = {}
        self._ends, self._stems = _Ends(), _Ends()
        # The parts of the folder's own path count too: a table may name photos from above it.
        self._above = tuple(folded(part) for part in Path(os.path.abspath(folder)).parts)
        for file in files:
            self._exact[file] = file
            self._ends.add(folded(file), file)
            self._stems.add(_without_suffix(folded(file)), file)

    def find(self, named: str, beside: str) -> tuple[str, int] | None:
        """(file, how much of its path fits) of the one photo that a row names; None for none, or for several.

        beside: the table's own folder, relative to the photos' folder ("" for the same). EXACT is the path itself."""
        named = named.strip().replace("\\", "/").removeprefix("file://")
        spellings = [named] + ([unquote(named)] if "%" in named else [])
        for spelling in spellings:
            for path in (os.path.join(beside, spelling), spelling):
                if (file := self._exact.get(os.path.normpath(path).replace("\\", "/"))) is not None:
                    return file, EXACT
        for spelling in spellings:
            parts = tuple(part for part in folded(os.path.normpath(spelling)).split("/") if part not in ("", ".", ".."))
            for ends, wanted in ((self._ends, parts), (self._stems, self._stem_of(parts))):
                if wanted and (found := ends.best(wanted, self._above)):
                    return found
        return None

    @staticmethod
    def _stem_of(parts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_without_suffix("/".join(parts)).split("/")) if parts else ()
