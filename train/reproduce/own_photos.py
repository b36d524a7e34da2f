"""A world of real photos from any captioned folder. Classes are split into seen, unseen and novel ones, and the photos
of each class into disjoint sets. The folders are those of a procedural world (`procedural/world.py`)."""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, write_atomic, write_json
from realrag.photos.scan import Candidate, scan

from ..small_encoder.split import link
from .procedural.world import COLUMNS, LABELS, METADATA, SETS

FRACTIONS = {"library": 0.35, "generator": 0.35, "judge": 0.15, "evaluation": 0.10, "validation": 0.05}


def families_of(classes: Sequence[str], groups: Path | None, words: int) -> dict[str, str]:
    """{class: family}, from the column coarse_class of a CSV, or the first words of the name. RealRAGError if a class
    is missing."""
    if groups is None:
        return {name: " ".join(re.split(r"[ _-]+", name)[: max(1, words)]) for name in classes}
    try:
        with open(groups, encoding="utf-8-sig", newline="") as file:
            found = {row["class"]: row["coarse_class"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise RealRAGError(
            f"{groups} cannot be read ({error}). It is a UTF-8 CSV with the columns class, coarse_class."
        ) from None
    if missing := sorted(set(classes) - set(found)):
        raise RealRAGError(f"{groups} has no coarse_class for {missing[0]!r}. Add a line for it.")
    return {name: found[name] for name in classes}


def last_word(name: str) -> str:
    """The last word of a name that is not a number. For a car this is its body."""
    return next((word for word in reversed(re.split(r"[ _-]+", name)) if not word.isdigit()), name)


def split_names(families: dict[str, str], unseen: int, novel: int, seed: int) -> dict[str, str]:
    """{class: G-seen, U1 or U2}, drawn by seed.

    Each held-out class keeps a seen class of its family and, unless its last word is unique, a seen class with that
    word. So its parts were seen and the class was not. RealRAGError if that is impossible."""
    names, held = sorted(families), []
    random.Random(f"{seed}/held out").shuffle(names)
    words = {name: last_word(name) for name in names}
    kept, spoken = Counter(families.values()), Counter(words.values())
    alone = {word for word, count in spoken.items() if count == 1}
    for name in names:
        if (
            len(held) < unseen + novel
            and kept[families[name]] > 1
            and (words[name] in alone or spoken[words[name]] > 1)
        ):
            held.append(name)
            kept[families[name]] -= 1
            spoken[words[name]] -= 1
    if unseen < 1 or novel < 0 or len(held) < unseen + novel:
        raise RealRAGError(
            f"{unseen} unseen and {novel} novel of {len(names)} classes: at least one is unseen, and {len(held)} can be held out "
            "so that each has a seen sibling."
        )
    return {name: "U1" if name in held[:unseen] else "U2" if name in held else "G-seen" for name in sorted(names)}


def write_photos(
    photos: Path, out: Path, captions: Path | None, groups: Path | None, words: int, unseen: int, novel: int, seed: int
) -> dict:
    """Links or copies the photos to `out` and writes labels.csv and world.json. Returns the content of world.json.
    RealRAGError if `out` holds another world."""
    candidates = [photo for photo in scan(photos, captions).candidates if photo.credit.class_name]
    by_class: dict[str, list[Candidate]] = {}
    for photo in sorted(candidates, key=lambda photo: photo.sha256):
        by_class.setdefault(folder_of(photo.credit.class_name), []).append(photo)
    of_name = {folder_of(photo.credit.class_name): photo.credit.class_name for photo in candidates}
    families = families_of(list(of_name.values()), groups, words)
    splits = split_names({folder: families[name] for folder, name in of_name.items()}, unseen, novel, seed)
    rows = []
    for folder, members in sorted(by_class.items()):
        random.Random(f"{seed}/{folder}").shuffle(members)
        for name, part in parts_of(members, splits[folder]).items():
            where = f"library/{'novel' if splits[folder] == 'U2' else 'known'}" if name == "library" else name
            rows += [
                (f"{where}/{folder}/{photo.sha256[:16]}{Path(photo.file).suffix.lower()}", photo, folder, name)
                for photo in part
            ]
    metadata = {
        "kind": "photos",
        "seed": seed,
        "classes": {f: {"family": families[of_name[f]], "split": splits[f]} for f in splits},
    }
    metadata["photos"] = {name: sum(row[3] == name for row in rows) for name in SETS}
    metadata["sha256"] = sha256_bytes(canonical_json([metadata, [[row[0], row[1].sha256] for row in rows]]))
    if (out / METADATA).is_file():
        if json.loads((out / METADATA).read_bytes()).get("sha256") != metadata["sha256"]:
            raise RealRAGError(f"{out} holds another world. Name another folder, or delete it.")
        return metadata
    made = out.with_name(out.name + ".part")
    shutil.rmtree(made, ignore_errors=True)
    for file, photo, *_ in rows:
        (made / file).parent.mkdir(parents=True, exist_ok=True)
        link(photo.path, made / file)
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    table.writerows((file, folder, families[of_name[folder]], name, splits[folder]) for file, _, folder, name in rows)
    write_atomic(made / LABELS, text.getvalue().encode())
    write_json(made / METADATA, metadata)
    made.rename(out)
    return metadata


def folder_of(name: str) -> str:
    """The name of a class as a folder name, which prompts are made from."""
    return re.sub(r"[^\w. -]+", "-", name).strip(". -")


def parts_of(members: list[Candidate], split: str) -> dict[str, list[Candidate]]:
    """{set: photos} of one class. The photos that the generator and validation get of seen classes go into the library
    for the other classes. RealRAGError if a set stays empty."""
    lost = {"generator"} if split == "U1" else {"generator", "validation"} if split == "U2" else set()
    fractions = {name: 0.0 if name in lost else fraction for name, fraction in FRACTIONS.items()}
    fractions["library"] += sum(FRACTIONS[name] for name in lost)
    found, at = {}, 0.0
    for name, fraction in fractions.items():
        start, at = round(at * len(members)), at + fraction
        found[name] = members[start : round(at * len(members))]
    if empty := [name for name, part in found.items() if fractions[name] and not part]:
        raise RealRAGError(f"{len(members)} photos of one class leave none for {empty[0]}. Give each class 20 or more.")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="CSV or JSONL with file and class")
    parser.add_argument("--groups", type=Path, metavar="FILE", help="CSV with class, coarse_class: the families")
    parser.add_argument(
        "--group-words", type=int, default=1, help="without it: as many first words of a name are its family"
    )
    parser.add_argument("--unseen", type=int, default=60, help="classes that the generator does not see (U1)")
    parser.add_argument("--novel", type=int, default=0, help="classes that neither it nor the retriever sees (U2)")
    parser.add_argument("--seed", type=int, default=0)
