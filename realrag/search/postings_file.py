"""Word lists of a library: made of what stands beside its photos, kept in a file, and mapped again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from .. import artifact
from ..files import Verdicts, canonical_json, write_atomic
from ..prompts.words import VERSION as WORDS_VERSION
from ..prompts.words import grams, unspaced, words
from .postings import Postings, row_bits
from .word_hashes import hash_of, line_hashes

log = logging.getLogger(__name__)

VERSION = 4  # of the layout below and of which words stand beside a photo
_DTYPES = {"U64": np.uint64, "I64": np.int64, "U32": np.uint32}
FILE, METADATA = "words.safetensors", "words.json"
COMMON = 0.2  # fraction of the photos above which a word is dropped, in a library of up to COMMON_ROWS / COMMON photos
COMMON_ROWS = 20_000  # in a larger one, so many photos; in a very large one COMMON_LARGE of all
COMMON_LARGE = 0.02
FEW = 2_000  # a word in so few photos is always kept
CHUNK = 20_000  # photos whose words are turned into numbers at once


def build_postings(texts: Iterable[str], count: int, progress: Callable[[int, int], None] | None = None) -> Postings:
    """texts: one for each of `count` photos, in row order."""
    shift, keys = np.uint64(row_bits(count)), []
    for start, chunk in _chunks(texts):
        if progress:
            progress(start, count)
        simple = [i for i, text in enumerate(chunk) if text.isascii() and not ("'" in text or "`" in text)]
        hashes, lines = line_hashes("\n".join([chunk[i].replace("\n", " ") for i in simple]).encode())
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
    dropped = np.array(sorted(made.dropped), np.uint64)
    arrays = {"hashes": made.hashes, "starts": made.starts, "rows": made.rows, "dropped": dropped}
    data = artifact.to_bytes({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    write_atomic(folder / FILE, data)
    write_atomic(folder / METADATA, canonical_json({"recipe": recipe, "sha256": hashlib.sha256(data).hexdigest()}))


def _read(folder: Path, recipe: dict) -> Postings | None:
    """The kept lists, mapped. `artifact.read_arrays` would load them whole; their hash was written down when they were made,
    so the header is ours."""
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
        path = folder / FILE
        if metadata["recipe"] != recipe or Verdicts(folder).sha256(path) != metadata["sha256"]:
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
