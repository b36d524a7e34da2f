"""Which photos hold the words of a text in their class, caption or file name: sorted lists of rows, one a word, mapped.

Rare words count for more (inverse document frequency) and are looked at first; a word that a large part of the photos
has tells nothing and is dropped when the lists are made. The words themselves are not kept, only 64-bit hashes.
"""

from __future__ import annotations

import math
import re
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ..prompts.words import forms, function_words, grams, unspaced, words
from .word_hashes import hash_of

_MAY = re.compile(r"\bmay,? (?:19|20)\d\d\b", re.IGNORECASE)  # the month, no word of grammar
BUDGET = 30_000  # rows that one question looks at; words beyond it, the commonest, are left aside
DIGITS, ROUNDING = 6, 1e-6  # of a sum of weights
MOST_TIED = 64  # rows that match equally well, of which the caller keeps those that look best
FIRST = 1_000  # rows of the rarest words that are put together before the common ones are looked at


class Hits(NamedTuple):
    """rows (M,) int64 ascending. matched (M,) float32: how much of the question's weight each row's words carry, 0..1."""

    rows: np.ndarray
    matched: np.ndarray

    def where(self, kept: np.ndarray) -> Hits:
        """The hits at places (K,), or of a mask (M,) bool."""
        return Hits(self.rows[kept], self.matched[kept])


NO_ROWS = np.empty(0, np.int64)


class Word(NamedTuple):
    """A word of a question. weight: its part of the whole question's. lists: rows (M,) uint32 ascending, of each form."""

    weight: float
    lists: list[np.ndarray]

    def __len__(self) -> int:
        return sum(map(len, self.lists))

    def photos(self, allowed: np.ndarray | None) -> int:
        """At least so many allowed photos have the word."""
        return max(len(rows) if allowed is None else int(allowed[rows].sum()) for rows in self.lists)


class Postings:
    """hashes (V,) uint64 ascending, of each word. starts (V + 1,) int64: where its rows begin. rows (P,) uint32.
    dropped (C,) uint64: hashes of the words that were too common. count: photos."""

    def __init__(self, hashes, starts, rows, dropped, count: int):
        self.hashes, self.starts, self.rows, self.count = hashes, starts, rows, count
        self.dropped = set(dropped.tolist())
        self._shift = row_bits(count)

    def _find(self, asked: list[str]) -> list[tuple[list[np.ndarray], bool]]:
        """For each word its rows in singular and plural, a list for each, and whether one was too common to keep."""
        every = [[hash_of(form) >> self._shift for form in forms(word)] for word in asked]
        keys = np.array([key for keys in every for key in keys], np.uint64)
        places = self.hashes.searchsorted(keys)
        there = self.hashes.take(places, mode="clip") == keys if len(self.hashes) else places < 0
        # Lists: at these sizes a step through numpy costs more than what it does.
        lists = [
            self.rows[self.starts[place] : self.starts[place + 1]] if known else None
            for place, known in zip(places.tolist(), there.tolist(), strict=True)
        ]
        found, at = [], 0
        for word in every:
            own = [rows for rows in lists[at : at + len(word)] if rows is not None]
            at += len(word)
            found.append((own, bool(self.dropped) and not self.dropped.isdisjoint(word)))
        return found

    def knows(self, word: str) -> bool:
        """Whether a photo has this normalized word, in singular or plural."""
        return self._find([word]) != [([], False)]

    def ask(self, text: str) -> AskedWords:
        """The words of `text` and their rows. A word that no photo has weighs as much as the rarest; words of grammar
        weigh nothing."""
        said = dict.fromkeys(words(text))
        month = {"may"} if "may" in said and _MAY.search(text) else set()
        asked = [
            part
            for word in said
            if word not in function_words() or word in month
            for part in (grams(word) if unspaced(word) else [word])
        ]
        found = [lists for lists, common in self._find(asked) if not common]
        weights = [math.log(1 + self.count / max(1, sum(map(len, lists)))) for lists in found]
        total = sum(weights)
        ordered = sorted(
            (Word(weight / total, lists) for weight, lists in zip(weights, found, strict=True) if lists), key=len
        )
        taken = 0
        kept: list[Word] = []
        for word in ordered:
            taken += len(word)
            if kept and taken > BUDGET:
                break
            kept.append(word)
        return AskedWords(kept)


class AskedWords:
    """The words of a question that photos have, rarest first."""

    def __init__(self, words: list[Word]):
        self.words = words

    def hits(self, allowed: np.ndarray | None = None) -> Hits:
        """Every row with one of the words. allowed (N,) bool."""
        return _hits(*self._merged(self.words, allowed))

    def best(self, count: int, allowed: np.ndarray | None = None) -> Hits:
        """The `count` rows that match most; of those that match as much as the last of them, up to MOST_TIED evenly spaced.

        Once so many rows are known that those with only the remaining, commoner words must come behind them, these words
        are only looked up for the rows that can still be among the best (MaxScore, Turtle and Flood 1995).
        """
        rest = list(accumulate((word.weight for word in reversed(self.words)), initial=0.0))[
            ::-1
        ]  # from the i-th word on
        edge = max([word.weight for word in self.words if word.photos(allowed) >= count], default=0.0)
        at, rows, sums = 0, NO_ROWS, np.empty(0)
        while at < len(self.words) and (len(rows) < count or rest[at] >= edge - ROUNDING):
            size, limit = 0, max(FIRST, 2 * sum(map(len, self.words[:at])))
            while at < len(self.words) and (not size or size + len(self.words[at]) <= limit):
                size, at = size + len(self.words[at]), at + 1
            rows, sums = self._merged(self.words[:at], allowed)
            edge = _edge(sums, count, edge) if at < len(self.words) else edge
        for place in range(at, len(self.words)):
            if len(rows) > FIRST:  # fewer are looked up sooner than parted
                edge = _edge(sums, count, edge)
                rows, sums = _chosen(sums + rest[place] >= edge - ROUNDING, rows, sums)
            sums = sums + self.words[place].weight * _has(self.words[place], rows.astype(np.uint32))
        return _hits(rows, sums) if len(rows) <= count else _hits(*_most(rows, sums, count, _edge(sums, count, edge)))

    def within(self, rows: np.ndarray) -> Hits:
        """Those of `rows` (M,) that have one of the words."""
        hits = Hits(rows, self.matched(rows))
        return hits.where(hits.matched > 0)

    def matched(self, rows: np.ndarray) -> np.ndarray:
        """(M,) float32: how much these rows (M,) match."""
        numbers = rows.astype(np.uint32)
        return _hits(rows, sum((word.weight * _has(word, numbers) for word in self.words), np.zeros(len(rows)))).matched

    def _merged(self, words: list[Word], allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """rows (M,) int64 ascending that have one of `words`, and the sums (M,) of the words' weights."""
        if not words:
            return NO_ROWS, np.empty(0)
        if len(words) == len(words[0].lists) == 1:  # the commonest question: nothing to sort
            rows = words[0].lists[0].astype(np.int64)
            rows = rows if allowed is None else rows[allowed[rows]]
            return rows, np.full(len(rows), words[0].weight)
        keys = [
            part.astype(np.uint64) << np.uint64(16) | np.uint64(number)
            for number, word in enumerate(words)
            for part in word.lists
        ]
        # Sorted by row, then by word: a photo with singular and plural of a word has it once.
        every = distinct(np.concatenate(keys))
        rows = (every >> np.uint64(16)).astype(np.int64)
        begins = np.flatnonzero(_changes(rows))
        weights = np.array([word.weight for word in words])
        sums = np.add.reduceat(weights[(every & np.uint64(0xFFFF)).astype(np.int64)], begins)
        rows = rows[begins]
        return (rows, sums) if allowed is None else _chosen(allowed[rows], rows, sums)


def _hits(rows: np.ndarray, sums: np.ndarray) -> Hits:
    """Rounded, so that photos with the same words match equally, in whatever order their weights were added."""
    return Hits(rows, sums.round(DIGITS).astype(np.float32))


def _most(rows: np.ndarray, sums: np.ndarray, count: int, edge: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows with more than `edge`, which the `count`th best has, and of those with as much up to MOST_TIED evenly
    spaced."""
    kept = np.flatnonzero(sums >= edge - ROUNDING)
    if len(kept) > count + MOST_TIED:
        more = sums[kept] > edge + ROUNDING
        above, tied = kept[more], kept[~more]
        tied = tied[:: max(1, len(tied) // max(MOST_TIED, count - len(above)))]
        kept = np.sort(np.concatenate([above, tied]))
    return _chosen(kept, rows, sums)


def _chosen(kept: np.ndarray, rows: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows[kept], sums[kept]


def distinct(values: np.ndarray) -> np.ndarray:
    """The values, ascending, each once (np.unique does more, in three times the time)."""
    ascending = np.sort(values)
    return ascending[_changes(ascending)]


def _changes(ascending: np.ndarray) -> np.ndarray:
    """(M,) bool: where another value begins."""
    first = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return first


def _edge(sums: np.ndarray, count: int, bound: float) -> float:
    """What the `count`th best has, if it is more than `bound`, which at least so many reach. Most rows have just that:
    without them, which are equal, there is little to part."""
    above = sums[sums > bound + ROUNDING]
    return bound if len(above) < count else float(np.partition(above, -count)[-count])


def _has(word: Word, rows: np.ndarray) -> np.ndarray:
    """(M,) bool: which rows (M,) uint32 have the word in one of its forms."""
    found = [each.take(each.searchsorted(rows), mode="clip") == rows for each in word.lists]
    return found[0] if len(found) == 1 else np.logical_or.reduce(found)


def row_bits(count: int) -> int:
    """Of 64 bits, those that number the rows while the lists are sorted; the others are of the word's hash."""
    return max(1, (count - 1).bit_length())
