"""What the words beside the photos are good for: the classes a text names, and the photos whose captions share its words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ..prompts.words import words
from .names import Named, NameTable
from .postings import AskedWords
from .postings_file import open_postings


class Lexicon:
    """classes: name of each class code, "" for none; class_codes (N,) int: of each row. others: (code, language, other name).

    texts(): the words beside each photo in row order; read once, when the lists are built. source: the hash of what they
    come from. folder: where the derived lists are kept, None for memory.
    """

    def __init__(
        self,
        classes: Sequence[str],
        class_codes: np.ndarray,
        texts: Callable[[], Iterable[str]],
        source: str,
        folder: Path | None = None,
        others: Iterable[tuple[int, str, str]] = (),
        progress: Callable[[int, int], None] | None = None,
    ):
        self.names = NameTable(classes, others)
        self.classes, self.class_codes = classes, class_codes
        self.postings = open_postings(folder, source, texts, len(class_codes), progress)
        self._by_class = np.argsort(class_codes, kind="stable")
        counts = (
            np.bincount(class_codes, minlength=len(classes)) if len(class_codes) else np.zeros(len(classes), np.int64)
        )
        self._starts = np.concatenate([[0], counts.cumsum()])

    def rows_of(self, codes: Iterable[int]) -> np.ndarray:
        """(M,) int64, ascending: the rows of these classes."""
        lists = [self._by_class[self._starts[code] : self._starts[code + 1]] for code in codes]
        return np.sort(np.concatenate(lists)) if len(lists) > 1 else np.asarray(lists[0])

    def named(self, text: str) -> list[tuple[int, ...]]:
        """The classes that `text` names, the first first. Of names side by side ("orange juice") the last counts first."""
        groups: list[list[Named]] = []
        for hit in self.names.find(text):
            if groups and not text[groups[-1][-1].end : hit.start].strip(" -_"):
                groups[-1].append(hit)
            else:
                groups.append([hit])
        ordered = [hit.codes for group in groups for hit in reversed(group)]
        return list(dict.fromkeys(ordered))

    def mended(self, text: str) -> tuple[str, list[str]]:
        """`text` with typos in names put right and names in other languages in the class's own words, and a sentence for each."""
        notes, at, parts = [], 0, []
        for hit in self.names.find(text):
            if "".join(words(hit.text)) != "".join(words(hit.meant)):
                notes.append(f"Read {hit.text!r} as {hit.meant!r}.")
                parts += [text[at : hit.start], hit.meant]
                at = hit.end
        parts.append(text[at:])
        return re.sub(r" +", " ", " ".join(parts)).strip(" ") if notes else text, notes

    def ask(self, text: str) -> AskedWords:
        """The words of `text` that stand in the class, caption or file name of a photo."""
        return self.postings.ask(text)

    def knows(self, word: str) -> bool:
        """Whether a normalized word stands beside a photo."""
        return word in self.names or self.postings.knows(word)
