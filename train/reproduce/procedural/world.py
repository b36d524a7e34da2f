"""The procedural world on disk: disjoint sets of photos, and which classes are held out from the generator and the
retriever.

The folders are library/known/CLASS, library/novel/CLASS, judge/CLASS, evaluation/CLASS, validation/CLASS and, on
request, generator/NAME with the made-up names. labels.csv and world.json lie beside them. The retriever learns from
`known` only; `novel` is only searched."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from realrag.errors import RealRAGError
from realrag.files import sha256_bytes, write_atomic, write_json
from realrag.photos.keep import encode_jpeg

from .classes import FAMILIES, ClassOf, classes_of
from .scene import picture

SETS = ("library", "judge", "evaluation", "validation", "generator")
SPLITS = ("G-seen", "U1", "U2")
LABELS, METADATA = "labels.csv", "world.json"
COLUMNS = ("file", "class", "family", "set", "split")
APART = 1_000_000  # offset between the seeds of two sets, so that no photo is in both


@dataclass(frozen=True)
class World:
    """The size of a procedural world: counts of classes, and of photos per class in each set."""

    families: int = 20
    siblings: int = 12  # classes per family
    unseen: int = 3  # of them U1: unseen by the generator, in the retriever's training photos (the paper's setting)
    novel: int = 2  # of them U2: seen by neither, only in the library
    seed: int = 0
    size: int = 128  # pixels per side
    library: int = 60
    judge: int = 40
    evaluation: int = 20
    validation: int = 6  # of known classes only: the starting encoder's headroom is tuned on them
    generator: int = 0  # of G-seen classes only: for training a generator and its adapter
    extra: int = 0  # further U1 classes per family; all others, and so what a generator is taught, stay as they are

    def __post_init__(self) -> None:
        counts = self.library, self.judge, self.evaluation, self.validation, self.size
        if (
            not 1 <= self.families <= len(FAMILIES)
            or min(counts) < 1
            or min(self.unseen, self.novel, self.generator, self.extra) < 0
        ):
            raise RealRAGError(f"{self}: families goes from 1 to {len(FAMILIES)}, photos and size from 1.")
        if self.unseen + self.novel >= self.siblings:
            raise RealRAGError(
                f"{self.unseen} unseen and {self.novel} novel of {self.siblings} siblings leave the generator none to know. "
                "Raise `siblings`."
            )


def split_classes(world: World) -> list[tuple[ClassOf, str]]:
    """Each class and its split, in order. Every attribute value except the accent also occurs in a G-seen class of the
    family, so a held-out class is a new combination of known parts. RealRAGError if that is impossible."""
    found = []
    for family in FAMILIES[: world.families]:
        every = classes_of(family, world.siblings + world.extra, world.seed)
        classes, extra = every[: world.siblings], every[world.siblings :]
        values = {(key, value) for each in classes for key, value in each.look.items() if key != "accent"}
        rng = random.Random(f"{world.seed}/{family.name}/held out")
        for _ in range(1000):
            held = rng.sample(range(len(classes)), world.unseen + world.novel)
            seen = {item for at, each in enumerate(classes) if at not in held for item in each.look.items()}
            if values <= seen:
                break
        else:
            raise RealRAGError(
                f"The family {family.name} cannot hold out {len(held)} of {len(classes)}. Raise `siblings`."
            )
        for at, each in enumerate(classes):
            found.append((each, "G-seen" if at not in held else "U1" if at in held[: world.unseen] else "U2"))
        for each in extra:
            if strange := {item for item in each.look.items() if item[0] != "accent"} - seen:
                raise RealRAGError(f"{each.name} has {sorted(strange)[0]}, which no G-seen class has. Lower `extra`.")
            found.append((each, "U1"))
    return found


def photos_of(world: World) -> list[tuple[str, ClassOf, int, str, str]]:
    """(file, class, seed, set, split) of every photo. The file name is the seed."""
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
    """Draws the missing photos, then writes labels.csv and world.json. Returns the content of world.json. RealRAGError
    if `out` holds another world."""
    metadata = {"kind": "procedural: drawn by a program, no photographs", "world": _stated(world), "classes": {}}
    for each, split in split_classes(world):
        metadata["classes"][each.folder] = {
            "name": each.name,
            "proper": each.proper,
            "family": each.family.name,
            "split": split,
            "look": each.look,
        }
    metadata["sha256"] = sha256_bytes(json.dumps(metadata, sort_keys=True).encode())
    begun = out / METADATA
    if begun.is_file() and json.loads(begun.read_bytes()).get("sha256") != metadata["sha256"]:
        raise RealRAGError(f"{out} holds another world. Name another folder, or delete it.")
    write_json(_made(out, METADATA), metadata)
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
    return metadata


def _stated(world: World) -> dict:
    """Its fields; `extra` only where there are such classes, so that worlds drawn before there was that field stay whole."""
    return {name: value for name, value in asdict(world).items() if value or name != "extra"}


def read_proper_names(world: Path) -> dict[str, str]:
    """{class: the name that the generator learns}, empty for a world without such names. RealRAGError if world.json is
    damaged."""
    if not (world / METADATA).is_file():
        return {}
    try:
        classes = json.loads((world / METADATA).read_bytes())["classes"]
        return {name: each["proper"] for name, each in classes.items() if "proper" in each}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RealRAGError(
            f"{world / METADATA} cannot be read ({type(error).__name__} {error}). Delete it and make the world again."
        ) from None


def _made(out: Path, file: str) -> Path:
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    return out / file


def read_splits(world: Path) -> dict[str, tuple[str, str]]:
    """{class: (family, split)} in the order of labels.csv. RealRAGError if a column or the split is wrong."""
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
