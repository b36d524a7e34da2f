"""Which photo a row of a table means: by its exact path, else by the one path that fits it."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
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


class Matcher:
    """The photos of a folder, found by what people and programs write for their paths."""

    def __init__(self, files: Iterable[str], folder: Path):
        self._exact: dict[str, str] = {}
        self._ends: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        self._stems: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        # The parts of the folder's own path count too: a table may name photos from above it.
        above = tuple(folded(part) for part in Path(os.path.abspath(folder)).parts)
        self._depth = len(above)
        for file in files:
            self._exact[file] = file
            parts = above + tuple(folded(file).split("/"))
            self._ends[parts[-1]].append((parts, file))
            stem = above + tuple(_without_suffix(folded(file)).split("/"))
            self._stems[stem[-1]].append((stem, file))

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
            for index, wanted in ((self._ends, parts), (self._stems, self._stem_of(parts))):
                if wanted and (found := self._best(index, wanted)):
                    return found
        return None

    @staticmethod
    def _stem_of(parts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_without_suffix("/".join(parts)).split("/")) if parts else ()

    def _best(self, index: dict, wanted: tuple[str, ...]) -> tuple[str, int] | None:
        """The file whose path ends as `wanted` does, further back than any other's, so that one contains the other."""
        fits: list[tuple[int, str]] = []
        for parts, file in index.get(wanted[-1], ()):
            same = 0
            while same < min(len(parts), len(wanted)) and parts[-1 - same] == wanted[-1 - same]:
                same += 1
            if same >= min(len(wanted), len(parts) - self._depth):
                fits.append((same, file))
        fits.sort(reverse=True)
        if not fits or (len(fits) > 1 and fits[1][0] == fits[0][0]):
            return None
        return fits[0][1], fits[0][0]
