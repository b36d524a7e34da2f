"""Which photos hold the words of a text in their class, caption or file name: sorted lists of rows, one a word, mapped.

Rare words count for more (inverse document frequency) and are looked at first; a word that a large part of the photos
has tells nothing and is dropped when the lists are made. The words themselves are not kept, only 64-bit hashes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files import Verdicts, canonical_json, write_atomic
from ..prompts.words import VERSION as WORDS_VERSION
from ..prompts.words import forms, function_words, grams, unspaced, words

log = logging.getLogger(__name__)

VERSION = 1  # of the layout below
FILE, FACTS = "words.safetensors", "words.json"
COMMON = 0.2  # share of the photos above which a word is dropped, in a library of up to COMMON_ROWS / COMMON photos
COMMON_ROWS = 20_000  # in a larger one, so many photos; in a very large one COMMON_LARGE of all
COMMON_LARGE = 0.02
FEW = 2_000  # a word in so few photos is always kept
BUDGET = 200_000  # rows that one question looks at; words beyond it, the commonest, are left aside
CHUNK = 100_000  # photos whose words are turned into numbers at once


class Hits(NamedTuple):
    """rows (M,) int64 ascending. matched (M,) float32: how much of the question's weight each row's words carry, 0..1."""

    rows: np.ndarray
    matched: np.ndarray


NONE = Hits(np.empty(0, np.int64), np.empty(0, np.float32))


class Postings:
    """hashes (V,) uint64 ascending, of each word. starts (V + 1,) int64: where its rows begin. rows (P,) uint32.
    dropped (C,) uint64: hashes of the words that were too common. count: photos."""

    def __init__(self, hashes, starts, rows, dropped, count: int):
        self.hashes, self.starts, self.rows, self.dropped, self.count = (
            hashes,
            starts,
            rows,
            set(dropped.tolist()),
            count,
        )

    def _find(self, word: str) -> tuple[list[np.ndarray], bool]:
        """The rows of a word in singular and plural, a list for each, and whether one of them was too common to keep."""
        lists, common = [], False
        for form in forms(word):
            key = hash_of(form)
            common = common or key in self.dropped
            at = int(np.searchsorted(self.hashes, np.uint64(key)))
            if at < len(self.hashes) and self.hashes[at] == key:
                lists.append(self.rows[self.starts[at] : self.starts[at + 1]])
        return lists, common

    def knows(self, word: str) -> bool:
        """Whether a photo has this normalized word, in singular or plural."""
        return self._find(word) != ([], False)

    def search(self, text: str, allowed: np.ndarray | None = None) -> Hits:
        """The rows that share words with `text`, and how much of it they match, weighing each word by its rarity. A
        word that no photo has weighs as much as the rarest; words of grammar weigh nothing."""
        asked = [
            part
            for word in dict.fromkeys(words(text))
            if word not in function_words()
            for part in (grams(word) if unspaced(word) else [word])
        ]
        total, found = 0.0, []
        for number, word in enumerate(asked):
            lists, common = self._find(word)
            if common:
                continue
            rows = sum(map(len, lists))
            weight = math.log(1 + self.count / max(1, rows))
            total += weight
            if rows:
                found.append((rows, number, weight, lists))
        taken, lists, weights = 0, [], []
        for rows, _, weight, some in sorted(found, key=lambda each: each[:2]):
            if lists and taken + rows > BUDGET:
                break
            taken += rows
            # a photo with both numbers of a word has it once
            lists.append(np.unique(np.concatenate(some)) if len(some) > 1 else np.asarray(some[0]))
            weights.append(np.full(len(lists[-1]), weight / total, np.float32))
        if not lists:
            return NONE
        photos, place = np.unique(np.concatenate(lists), return_inverse=True)
        matched = np.bincount(place, np.concatenate(weights)).astype(np.float32)
        if allowed is not None:
            photos, matched = photos[allowed[photos]], matched[allowed[photos]]
        return Hits(photos.astype(np.int64), np.minimum(matched, 1))


def hash_of(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def build_postings(texts: Iterable[str], count: int, progress: Callable[[int, int], None] | None = None) -> Postings:
    """texts: one for each of `count` photos, in row order."""
    numbers: dict[str, int] = {}
    pairs: list[np.ndarray] = []
    for start, chunk in _chunks(texts):
        if progress:
            progress(start, count)
        ids, lengths = [], []
        number = numbers.setdefault
        for text in chunk:
            found = words(text)
            if not text.isascii():
                found = [part for word in found for part in (grams(word) if unspaced(word) else [word])]
            ids += [number(word, len(numbers)) for word in found]
            lengths.append(len(found))
        rows = np.repeat(np.arange(start, start + len(lengths), dtype=np.uint64), lengths)
        pairs.append(np.unique(np.array(ids, np.uint64) << np.uint64(32) | rows))
    if progress:
        progress(count, count)
    every = np.concatenate(pairs) if pairs else np.empty(0, np.uint64)
    del pairs
    every.sort(kind="stable")
    ids = (every >> np.uint64(32)).astype(np.int64)
    rows = (every & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    del every
    counts = np.bincount(ids, minlength=len(numbers))
    starts = np.concatenate([[0], counts.cumsum()])
    hashes = np.fromiter((hash_of(word) for word in numbers), np.uint64, len(numbers))
    common = counts > max(FEW, min(COMMON * count, COMMON_ROWS), COMMON_LARGE * count)
    kept = np.flatnonzero(~common)
    kept = kept[np.argsort(hashes[kept], kind="stable")]
    sizes = counts[kept]
    order = np.repeat(starts[kept] - np.concatenate([[0], sizes.cumsum()[:-1]]), sizes) + np.arange(sizes.sum())
    return Postings(
        hashes[kept],
        np.concatenate([[0], sizes.cumsum()]).astype(np.int64),
        rows[order],
        np.sort(hashes[common]),
        count,
    )


def _chunks(texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    start, chunk = 0, []
    for text in texts:
        chunk.append(text)
        if len(chunk) == CHUNK:
            yield start, chunk
            start, chunk = start + len(chunk), []
    if chunk:
        yield start, chunk


def open_postings(
    folder: Path | None, source: str, texts: Callable[[], Iterable[str]], count: int, progress=None
) -> Postings:
    """The lists kept in `folder`, mapped; built and kept there where they are missing, damaged or of another `source`
    (the hash of the records) or version. Without a folder, or one that cannot be written, they live in memory."""
    recipe = {"version": VERSION, "words": WORDS_VERSION, "records": source, "count": count}
    if folder is not None and (kept := _read(folder, recipe)) is not None:
        return kept
    made = build_postings(texts(), count, progress)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, recipe, made)
        except OSError as error:
            log.warning("The word lists cannot be kept: %s", error)
            return made
        return _read(folder, recipe) or made
    return made


def _write(folder: Path, recipe: dict, made: Postings) -> None:
    from safetensors.numpy import save

    dropped = np.array(sorted(made.dropped), np.uint64)
    arrays = {"hashes": made.hashes, "starts": made.starts, "rows": made.rows, "dropped": dropped}
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    write_atomic(folder / FILE, data)
    write_atomic(folder / FACTS, canonical_json({"recipe": recipe, "sha256": hashlib.sha256(data).hexdigest()}))


def _read(folder: Path, recipe: dict) -> Postings | None:
    from safetensors import SafetensorError, safe_open

    try:
        facts = json.loads((folder / FACTS).read_bytes())
        if facts["recipe"] != recipe or Verdicts(folder).sha256(folder / FILE) != facts["sha256"]:
            return None
        with safe_open(folder / FILE, "np") as file:
            arrays = {name: file.get_tensor(name) for name in ("hashes", "starts", "rows", "dropped")}
    except (OSError, ValueError, LookupError, TypeError, SafetensorError):
        return None
    return Postings(**arrays, count=recipe["count"])
