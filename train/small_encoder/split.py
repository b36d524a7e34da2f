"""Splits a folder of captioned photos into three that share none: library, validation and gallery."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import shutil
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, write_atomic
from realrag.photos.credit import COLUMNS
from realrag.photos.scan import Candidate, scan

from ..tables import read_csv

NAMES = ("library", "validation", "gallery")
VALUES = {"train": "library", "val": "validation", "test": "gallery", **{name: name for name in NAMES}}  # of a column
METADATA = "split.json"


def part_photos(photos: Sequence[Candidate], shares: Sequence[float], seed: int) -> list[list[Candidate]]:
    """Split each class at the fractions `shares`, shuffled by (seed, its name), so that no class depends on another's
    photos. Cuts are rounded: a class of one or two photos is not in every part."""
    if len(shares) != len(NAMES) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise RealRAGError(
            f"parts is {list(shares)}; it needs one fraction above 0 for each of {', '.join(NAMES)}, together 1."
        )
    classes: dict[str, list[Candidate]] = {}
    for photo in sorted(photos, key=lambda photo: photo.sha256):
        classes.setdefault(photo.credit.class_name, []).append(photo)
    parts: list[list[Candidate]] = [[] for _ in shares]
    for name, members in sorted(classes.items()):
        random.Random(f"{seed}/{name}").shuffle(members)
        cuts = [0, *(round(share * len(members)) for share in accumulate(shares))]
        for part, (start, end) in zip(parts, pairwise(cuts), strict=True):
            part += members[start:end]
    return parts


def part_by_column(photos: Sequence[Candidate], captions: Path, column: str, folder: Path) -> list[list[Candidate]]:
    """Split by the `column` of a CSV: train, val and test, or the names of the parts. Photos of another value are left
    out."""
    part_of: dict[str, str] = {}
    for row in read_csv(captions):
        name = next((row[key] for key in COLUMNS["file"] if row.get(key)), "")
        for home in (captions.parent, folder):  # a table names photos relative to itself, or to their folder
            part_of.setdefault(os.path.abspath(home / name), VALUES.get((row.get(column) or "").strip().lower(), ""))
    parts = [[photo for photo in photos if part_of.get(os.path.abspath(photo.path)) == name] for name in NAMES]
    if not any(parts):
        raise RealRAGError(
            f"No photo of {captions} has one of {', '.join(VALUES)} in a column {column!r}. Name the right one."
        )
    return parts


def split(photos: Path, captions: Path | None, out: Path, shares: Sequence[float], seed: int, column: str = "") -> dict:
    """Write OUT/library, OUT/validation and OUT/gallery, each with a captions.csv, and OUT/split.json, which is returned.

    Photos are hard links where the disk allows it, else copies. An existing split stays as it is; RealRAGError when it
    was made from other photos or settings."""
    candidates = scan(photos, captions).candidates
    listed = sorted([photo.sha256, photo.credit.class_name, photo.credit.caption] for photo in candidates)
    how = {"column": column} if column else {"seed": seed, "shares": list(shares)}
    asked = {**how, "photos_sha256": sha256_bytes(canonical_json(listed))}
    if (out / METADATA).is_file():
        metadata = json.loads((out / METADATA).read_bytes())
        if {name: metadata.get(name) for name in asked} != asked:
            raise RealRAGError(f"{out} holds another split ({metadata}). Delete it, or name another folder.")
        return metadata
    if column and not captions:
        raise RealRAGError("--column needs a table: give --captions FILE, a CSV.")
    parts = part_by_column(candidates, captions, column, photos) if column else part_photos(candidates, shares, seed)
    made = out.with_name(out.name + ".part")
    shutil.rmtree(made, ignore_errors=True)
    for name, members in zip(NAMES, parts, strict=True):
        if not members:
            raise RealRAGError(
                f"{len(candidates)} photos in {photos} leave none for {name}. Give more photos, or other --parts."
            )
        for photo in members:
            (made / name / photo.file).parent.mkdir(parents=True, exist_ok=True)
            link(photo.path, made / name / photo.file)
        write_atomic(made / name / "captions.csv", _table(members))
    metadata = asked | {"photos": {name: len(members) for name, members in zip(NAMES, parts, strict=True)}}
    write_atomic(made / METADATA, (json.dumps(metadata, indent=1) + "\n").encode())
    made.rename(out)
    return metadata


def link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a disk without links
        shutil.copy2(source, target)


def _table(photos: Sequence[Candidate]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(("file", "caption", "class", "author", "licence", "source"))
    for photo in sorted(photos, key=lambda photo: photo.file):
        credit = photo.credit
        table.writerow((photo.file, credit.caption, credit.class_name, credit.author, credit.licence, credit.source))
    return text.getvalue().encode()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="CSV or JSONL with file, class, caption")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=f"gets {', '.join(NAMES)}")
    parser.add_argument(
        "--parts", type=float, nargs=3, default=[0.6, 0.15, 0.25], metavar="FRACTION", help="of each class"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--column", default="", metavar="NAME", help="of the CSV, with train, val or test; replaces --parts and --seed"
    )


def run(arguments: argparse.Namespace) -> None:
    metadata = split(
        arguments.photos, arguments.captions, arguments.out, arguments.parts, arguments.seed, arguments.column
    )
    print(f"{arguments.out}: " + ", ".join(f"{count} {name}" for name, count in metadata["photos"].items()))
