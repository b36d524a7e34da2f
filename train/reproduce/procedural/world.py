"""The procedural world as photos on disk: sets that share none, and which classes are held out from whom.

DIR/library/known/CLASS and DIR/library/novel/CLASS, DIR/judge/CLASS, DIR/evaluation/CLASS, DIR/validation/CLASS, where
asked for DIR/generator/NAME, by the names that a generator knows the classes by, labels.csv and world.json. `known` is
what the retriever learns from; `novel` is only ever searched."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from realrag.errors import RealRAGError
from realrag.files import sha256_bytes, write_atomic
from realrag.photos.decode import encode_jpeg

from .classes import FAMILIES, ClassOf, classes_of
from .scene import picture

SETS = ("library", "judge", "evaluation", "validation", "generator")
SPLITS = ("G-seen", "U1", "U2")
LABELS, FACTS = "labels.csv", "world.json"
COLUMNS = ("file", "class", "family", "set", "split")
APART = 1_000_000  # between the seeds of two sets, so that no photo is in both


@dataclass(frozen=True)
class World:
    """What a procedural world holds: counts of classes, and of photos a class in each set."""

    families: int = 20
    siblings: int = 12  # classes a family
    unseen: int = 3  # of them U1: the generator never saw them, the retriever's training did (the paper's setting)
    novel: int = 2  # of them U2: seen by neither, only in the library
    seed: int = 0
    size: int = 128  # pixels a side
    library: int = 60
    judge: int = 40
    evaluation: int = 20
    validation: int = 6  # known classes alone: on them the starting encoder's headroom is found
    generator: int = 0  # G-seen classes alone: to train a generator and its adapter on

    def __post_init__(self) -> None:
        counts = self.library, self.judge, self.evaluation, self.validation, self.size
        if (
            not 1 <= self.families <= len(FAMILIES)
            or min(counts) < 1
            or min(self.unseen, self.novel, self.generator) < 0
        ):
            raise RealRAGError(f"{self}: families goes from 1 to {len(FAMILIES)}, photos and size from 1.")
        if self.unseen + self.novel >= self.siblings:
            raise RealRAGError(
                f"{self.unseen} unseen and {self.novel} novel of {self.siblings} siblings leave the generator none to know. "
                "Raise `siblings`."
            )


def split_classes(world: World) -> list[tuple[ClassOf, str]]:
    """Each class and its split, in order. In every family the values of all attributes but the accent are among the
    G-seen classes', so that a held-out class is a new whole of known parts. RealRAGError where that cannot be."""
    found = []
    for family in FAMILIES[: world.families]:
        classes = classes_of(family, world.siblings, world.seed)
        values = {(key, value) for each in classes for key, value in each.look.items() if key != "accent"}
        dice = random.Random(f"{world.seed}/{family.name}/held out")
        for _ in range(1000):
            held = dice.sample(range(len(classes)), world.unseen + world.novel)
            seen = {item for at, each in enumerate(classes) if at not in held for item in each.look.items()}
            if values <= seen:
                break
        else:
            raise RealRAGError(
                f"The family {family.name} cannot hold out {len(held)} of {len(classes)}. Raise `siblings`."
            )
        for at, each in enumerate(classes):
            found.append((each, "G-seen" if at not in held else "U1" if at in held[: world.unseen] else "U2"))
    return found


def photos_of(world: World) -> list[tuple[str, ClassOf, int, str, str]]:
    """(file, class, seed, set, split) of every photo; a file's name is its seed."""
    rows = []
    for each, split in split_classes(world):
        for number, name in enumerate(SETS):
            if (name == "validation" and split == "U2") or (name == "generator" and split != "G-seen"):
                continue
            folder = f"library/{'novel' if split == 'U2' else 'known'}" if name == "library" else name
            own = each.proper.replace(" ", "-") if name == "generator" else each.folder
            for at in range(getattr(world, name)):
                seed = number * APART + at
                rows.append((f"{folder}/{own}/{seed:07d}.jpg", each, seed, name, split))
    return rows


def write_world(world: World, out: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> dict:
    """The photos that are not there yet, then labels.csv and world.json, whose facts are returned. RealRAGError when
    `out` holds another world."""
    facts = {"kind": "procedural: drawn by a program, no photographs", "world": asdict(world), "classes": {}}
    for each, split in split_classes(world):
        facts["classes"][each.folder] = {
            "name": each.name,
            "proper": each.proper,
            "family": each.family.name,
            "split": split,
            "look": each.look,
        }
    facts["sha256"] = sha256_bytes(json.dumps(facts, sort_keys=True).encode())
    begun = out / FACTS
    if begun.is_file() and json.loads(begun.read_bytes()).get("sha256") != facts["sha256"]:
        raise RealRAGError(f"{out} holds another world. Name another folder, or delete it.")
    write_atomic(_made(out, FACTS), (json.dumps(facts, indent=1) + "\n").encode())
    rows = photos_of(world)
    for done, (file, each, seed, *_) in enumerate(rows, 1):
        if not (out / file).is_file():
            write_atomic(_made(out, file), encode_jpeg(picture(each, seed, world.size)))
        progress(done, len(rows))
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    table.writerows((file, each.folder, each.family.name, name, split) for file, each, _, name, split in rows)
    write_atomic(out / LABELS, text.getvalue().encode())
    return facts


def read_proper_names(world: Path) -> dict[str, str]:
    """{class: the name that a generator knows it by} of a world whose classes have one; {} of another. RealRAGError
    when its world.json is damaged."""
    if not (world / FACTS).is_file():
        return {}
    try:
        classes = json.loads((world / FACTS).read_bytes())["classes"]
        return {name: each["proper"] for name, each in classes.items() if "proper" in each}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RealRAGError(
            f"{world / FACTS} cannot be read ({type(error).__name__} {error}). Delete it and make the world again."
        ) from None


def _made(out: Path, file: str) -> Path:
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    return out / file


def read_splits(world: Path) -> dict[str, tuple[str, str]]:
    """{class: (family, split)} of a world's labels.csv, in its order. RealRAGError says what it lacks."""
    try:
        with open(world / LABELS, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {row["class"]: (row["family"], row["split"]) for row in rows}
        strange = sorted({split for _, split in found.values()} - set(SPLITS))
    except (OSError, KeyError, csv.Error) as error:
        raise RealRAGError(
            f"{world / LABELS} cannot be read ({type(error).__name__} {error}). It needs the columns {', '.join(COLUMNS)}."
        ) from None
    if strange or not found:
        raise RealRAGError(
            f"{world / LABELS} has the split {strange or 'of no class'}; splits are {', '.join(SPLITS)}."
        )
    return found
