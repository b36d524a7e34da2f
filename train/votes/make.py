"""Blinded pairs of pictures to vote on, and the key that names the arm on each side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from realrag.bundle.bundle import Bundle
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, write_atomic, write_json

from ..dataset import class_key, photo_classes
from ..pictures.arms import Picture
from .page import VERSION, html_page, jpeg_url

KEY = "realrag-votes-key"


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt and seed, under an id that reveals neither arm."""

    id: str
    prompt: str
    class_name: str
    seed: int
    left: str  # arm
    right: str
    files: tuple[Path, Path]


def make_pairs(arms: dict[str, list[Picture]], most: int, seed: int = 0) -> list[Pair]:
    """At most `most` pairs in random order. Every two arms meet equally often, and each of them is on the left half of
    the time, give or take one. Every prompt comes once before any comes again. RealRAGError for fewer than two arms."""
    if len(arms) < 2:
        raise RealRAGError("A vote needs two arms or more. Give --arm NAME=FOLDER twice.")
    rng, couples = np.random.default_rng(seed), list(combinations(sorted(arms), 2))
    count = len(next(iter(arms.values())))
    each = min(count, max(1, most // len(couples)))
    pairs = []
    for a, b in couples:
        turned = rng.permutation(np.arange(each) % 2)
        for at, turn in zip(_spread(arms[a], rng)[:each], turned, strict=False):
            (left, right), picture = ((b, a) if turn else (a, b)), arms[a][at]
            files = arms[left][at].file, arms[right][at].file
            pairs.append(Pair(rng.bytes(8).hex(), picture.prompt, picture.class_name, picture.seed, left, right, files))
    return [pairs[i] for i in rng.permutation(len(pairs))]


def _spread(pictures: Sequence[Picture], rng: np.random.Generator) -> list[int]:
    """Indices of the pictures in random order: one of every prompt before a second one of any."""
    rounds, came = [], {}
    for at in rng.permutation(len(pictures)):
        came[pictures[at].prompt] = came.get(pictures[at].prompt, 0) + 1
        rounds.append((came[pictures[at].prompt], int(at)))
    return [at for _, at in sorted(rounds, key=lambda each: each[0])]


def write_votes_page(folder: Path, pairs: Sequence[Pair], question: str, real: Bundle | None, size: int) -> str:
    """Writes folder/vote.html for the voters and folder/key.json, which they must not see. Returns the page's id. With
    `real`, a photo of the class is shown beside each pair."""
    photos: dict[str, int] = {}
    for row, name in enumerate(photo_classes(real)) if real else ():
        photos.setdefault(class_key(name), row)
    shown = []
    for pair in pairs:
        entry = {
            "id": pair.id,
            "prompt": pair.prompt,
            "left": jpeg_url(pair.files[0], size),
            "right": jpeg_url(pair.files[1], size),
        }
        if (row := photos.get(class_key(pair.class_name))) is not None:
            entry["real"] = jpeg_url(real.image(real.records[row]), size)
        shown.append(entry)
    page = sha256_bytes(canonical_json([question, shown]))[:16]
    metadata = {
        p.id: {"left": p.left, "right": p.right, "prompt": p.prompt, "class": p.class_name, "seed": p.seed}
        for p in pairs
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "vote.html", html_page(page, question, shown))
    key = {"format": KEY, "version": VERSION, "page": page, "question": question, "pairs": metadata}
    write_json(folder / "key.json", key)
    return page
