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
_DTYPES = {"U64": np.uint64, "I64": np.int64, "U32": np.uint32}
FILE, FACTS = "words.safetensors", "words.json"
COMMON = 0.2  # share of the photos above which a word is dropped, in a library of up to COMMON_ROWS / COMMON photos
COMMON_ROWS = 20_000  # in a larger one, so many photos; in a very large one COMMON_LARGE of all
COMMON_LARGE = 0.02
FEW = 2_000  # a word in so few photos is always kept
BUDGET = 30_000  # rows that one question looks at; words beyond it, the commonest, are left aside
CHUNK = 20_000  # photos whose words are turned into numbers at once


class Hits(NamedTuple):
    """rows (M,) int64 ascending. matched (M,) float32: how much of the question's weight each row's words carry, 0..1."""

    rows: np.ndarray
    matched: np.ndarray


NONE = Hits(np.empty(0, np.int64), np.empty(0, np.float32))


class Postings:
    """hashes (V,) uint64 ascending, of each word. starts (V + 1,) int64: where its rows begin. rows (P,) uint32.
    dropped (C,) uint64: hashes of the words that were too common. count: photos."""

    def __init__(self, hashes, starts, rows, dropped, count: int):
        self.hashes, self.starts, self.rows, self.count = hashes, starts, rows, count
        self.dropped = set(dropped.tolist())
        self._shift = _row_bits(count)

    def _find(self, word: str) -> tuple[list[np.ndarray], bool]:
        """The rows of a word in singular and plural, a list for each, and whether one of them was too common to keep."""
        lists, common = [], False
        for form in forms(word):
            key = hash_of(form) >> self._shift
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
        taken = 0
        keys: list[np.ndarray] = []
        weights: list[float] = []
        for rows, _, weight, some in sorted(found, key=lambda each: each[:2]):
            if keys and taken + rows > BUDGET:
                break
            taken += rows
            keys += [part.astype(np.uint64) << np.uint64(16) | np.uint64(len(weights)) for part in some]
            weights.append(weight / total)
        if not keys:
            return NONE
        # Sorted by row, then by word: a photo with both numbers of a word has it once.
        every = np.sort(np.concatenate(keys))
        every = every[np.concatenate([[True], every[1:] != every[:-1]])]
        rows = (every >> np.uint64(16)).astype(np.int64)
        begins = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
        matched = np.add.reduceat(np.array(weights)[(every & np.uint64(0xFFFF)).astype(np.int64)], begins)
        rows, matched = rows[begins], np.minimum(matched, 1).astype(np.float32)
        if allowed is not None:
            rows, matched = rows[allowed[rows]], matched[allowed[rows]]
        return Hits(rows, matched)


# A word's hash is the sum of its UTF-8 bytes, each times a random number for its place, so that the words of many
# captions are hashed at once. Two words of ten million collide with a chance of 1 in 300,000 where 64 bits are kept.
_PLACES = np.random.Generator(np.random.PCG64(20_260)).integers(1, 1 << 64, 256, np.uint64) | np.uint64(1)
_PLACES_AS_INTS = _PLACES.tolist()
_MIX = 0x9E3779B97F4A7C15
_LETTER = np.zeros(256, bool)
_LETTER[[*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1)]] = True


def hash_of(word: str) -> int:
    data = word.encode("utf-8", "surrogatepass")[: len(_PLACES)]
    total = sum([(byte + 1) * place for byte, place in zip(data, _PLACES_AS_INTS, strict=False)]) % (1 << 64)
    return (total ^ (total >> 29)) * _MIX % (1 << 64)


def _hashes(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Plain ASCII texts, one a line -> the hash of each word (CamelCase is several) and the line that it stands on."""
    data = np.frombuffer(text, np.uint8)
    upper = (data >= ord("A")) & (data <= ord("Z"))
    small = np.where(upper, data | 32, data)
    inside = _LETTER[small]
    if not inside.any():
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    before, lower = _moved(inside, 1), inside & ~upper & (data > ord("9"))
    # "redCar": a capital after a small letter; "HTMLPage": the last capital before a small letter
    camel = upper & (_moved(lower, 1) | (_moved(upper, 1) & _moved(lower, -1)))
    begins = np.flatnonzero(inside & (~before | camel))
    ends = np.flatnonzero(inside & (~_moved(inside, -1) | _moved(camel, -1))) + 1
    lines = np.searchsorted(np.flatnonzero(data == ord("\n")), begins)
    lengths = ends - begins
    firsts = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum())) - np.repeat(firsts, lengths)
    values = small[inside].astype(np.uint64) + np.uint64(1)
    values *= np.where(places < len(_PLACES), _PLACES[np.minimum(places, len(_PLACES) - 1)], np.uint64(0))
    total = np.add.reduceat(values, firsts)
    return (total ^ (total >> np.uint64(29))) * np.uint64(_MIX), lines


def _moved(mask: np.ndarray, by: int) -> np.ndarray:
    """A mask shifted to the right (by 1) or to the left (by -1)."""
    out = np.zeros_like(mask)
    if by > 0:
        out[1:] = mask[:-1]
    else:
        out[:-1] = mask[1:]
    return out


def _row_bits(count: int) -> int:
    """Of 64 bits, those that number the rows while the lists are sorted; the others are of the word's hash."""
    return max(1, (count - 1).bit_length())


def build_postings(texts: Iterable[str], count: int, progress: Callable[[int, int], None] | None = None) -> Postings:
    """texts: one for each of `count` photos, in row order."""
    shift, keys = np.uint64(_row_bits(count)), []
    for start, chunk in _chunks(texts):
        if progress:
            progress(start, count)
        simple = [i for i, text in enumerate(chunk) if text.isascii() and not ("'" in text or "`" in text)]
        hashes, lines = _hashes("\n".join([chunk[i].replace("\n", " ") for i in simple]).encode())
        rows = start + np.array(simple, np.int64)[lines]
        others = sorted(set(range(len(chunk))) - set(simple))
        found = [
            (hash_of(part), start + i)
            for i in others
            for word in words(chunk[i])
            for part in (grams(word) if unspaced(word) else [word])
        ]
        hashes = np.concatenate([hashes, np.array([each for each, _ in found], np.uint64)])
        rows = np.concatenate([rows, np.array([row for _, row in found], np.int64)])
        keys.append(hashes >> shift << shift | rows.astype(np.uint64))
    if progress:
        progress(count, count)
    every = np.concatenate(keys) if keys else np.empty(0, np.uint64)
    del keys
    every.sort()
    every = every[np.concatenate([[True], every[1:] != every[:-1]])] if len(every) else every
    fresh = np.ones(len(every), bool)
    fresh[1:] = every[1:] >> shift != every[:-1] >> shift
    begins = np.flatnonzero(fresh)
    hashes, counts = every[begins] >> shift, np.diff(np.concatenate([begins, [len(every)]]))
    rows = (every & ((np.uint64(1) << shift) - np.uint64(1))).astype(np.uint32)
    del every
    common = counts > max(FEW, min(COMMON * count, COMMON_ROWS), COMMON_LARGE * count)
    starts = np.concatenate([[0], counts[~common].cumsum()]).astype(np.int64)
    return Postings(hashes[~common], starts, rows[np.repeat(~common, counts)], hashes[common], count)


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
    """The kept lists, mapped. Their hash was written down when they were made, so the header is ours."""
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        path = folder / FILE
        if facts["recipe"] != recipe or Verdicts(folder).sha256(path) != facts["sha256"]:
            return None
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        arrays = {name: _mapped(path, 8 + length, header[name]) for name in ("hashes", "starts", "rows", "dropped")}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return Postings(**arrays, count=recipe["count"])


def _mapped(path: Path, begin: int, entry: dict) -> np.ndarray:
    dtype, shape, (first, last) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if first == last:  # nothing can be mapped of no bytes
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", offset=begin + first, shape=shape))
