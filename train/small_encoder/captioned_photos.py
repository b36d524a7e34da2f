"""Captioned photos, or the three small photo sets: photos by group, and the phrases that are true of a group."""

from __future__ import annotations

import csv
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes
from realrag.photos.credit import spoken
from realrag.photos.scan import scan

TEMPLATES = (
    "{}", "{}", "a photo of {}", "a photo of a {}", "a photo of an {}", "a photo of {}s", "a photo of the {}",
    "a picture of {}", "an image of {}", "a close-up of {}", "a hand holding {}", "{} on a table",
    "a photo of {} on a table", "{} in a shop", "{} on a shelf", "a pile of {}s", "some {}", "fresh {}",
    "a photo of my {}", "a {} in the snow", "a {} on the beach", "a {} with a city in the background",
    "{} on top of a wooden floor", "a {} in a kitchen", "a product photo of {}", "{}, real photo",
)  # fmt: skip
DESCRIPTION_WORDS = 12
QUERY = "a photo of {}"  # the one template of every measurement


@dataclass(frozen=True)
class Group:
    """The photos that one name describes. Names are lower-case words."""

    key: str
    name: str
    coarse: str
    description: str = ""


@dataclass(frozen=True)
class Photo:
    path: Path
    group: str  # Group.key


@dataclass(frozen=True)
class PhotoSet:
    groups: tuple[Group, ...]
    photos: tuple[Photo, ...]

    def group_rows(self) -> list[int]:
        """For each photo the row of its group."""
        row = {group.key: i for i, group in enumerate(self.groups)}
        return [row[photo.group] for photo in self.photos]


def plain_name(label: str) -> str:
    return label.replace("-", " ").replace("_", " ").lower()


def read_captioned(folder: Path, captions: Path | None = None) -> PhotoSet:
    """Any folder that `realrag index` accepts, each content once; one group per class, or per caption where a photo has
    no class.

    RealRAGError when the folder holds no photo with words."""
    groups, photos = {}, []
    for photo in scan(folder, captions).candidates:
        name = spoken(photo.credit.class_name or photo.credit.caption)
        if name:
            key = name.casefold()
            groups.setdefault(key, Group(key, plain_name(name), plain_name(name)))
            photos.append(Photo(photo.path, key))
    if not photos:
        raise RealRAGError(
            f"{folder} holds no photo with a class or caption. Sort them into folders, or give captions."
        )
    return PhotoSet(tuple(groups[key] for key in sorted(groups)), tuple(photos))


def photo_set_metadata(data: PhotoSet, folder: Path) -> dict[str, str | int]:
    """The metadata of a trained file about the photos that it was trained or measured on."""
    listed = [[photo.path.relative_to(folder).as_posix(), photo.group] for photo in data.photos]
    return {
        "folder": folder.name, "photos": len(data.photos), "groups": len(data.groups),
        "sha256": sha256_bytes(canonical_json(listed)),
    }  # fmt: skip


def with_noise(data: PhotoSet, fraction: float, seed: int) -> PhotoSet:
    """The data with the caption of each photo replaced by that of another group, with probability `fraction`.

    Randomness depends on the photo, so that with one seed the photos wrong at a smaller fraction stay wrong at a larger."""
    if not 0 <= fraction <= 1 or (fraction and len(data.groups) < 2):
        raise RealRAGError(
            f"noise is {fraction} with {len(data.groups)} groups; it lies from 0 to 1 and needs two groups."
        )
    keys, photos = [group.key for group in data.groups], []
    for photo in data.photos:
        rng = random.Random(f"{seed}/{photo.group}/{photo.path.name}")
        wrong = rng.random() < fraction
        other = rng.choice([key for key in keys if key != photo.group]) if fraction else ""
        photos.append(replace(photo, group=other) if wrong else photo)
    return replace(data, photos=tuple(photos))


def read_grocery(folder: Path, split: str) -> PhotoSet:
    """`split` is train, val or test of labels.csv; the groups are all 81 classes in the order of classes.csv."""
    with open(folder / "classes.csv", encoding="utf-8", newline="") as file:
        groups = tuple(
            Group(
                "grocery/" + row["class"], plain_name(row["class"]), plain_name(row["coarse_class"]), row["description"]
            )
            for row in csv.DictReader(file)
        )
    with open(folder / "labels.csv", encoding="utf-8", newline="") as file:
        photos = tuple(
            Photo(folder / row["path"], "grocery/" + row["class"])
            for row in csv.DictReader(file)
            if row["split"] == split
        )
    return PhotoSet(groups, photos)


def read_folders(folder: Path, prefix: str, coarse: dict[str, str] | None = None) -> PhotoSet:
    """One group per sub-folder; "dog2" is another "dog". coarse: the kind of each sub-folder."""
    groups, photos = [], []
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        name = plain_name(child.name.rstrip("0123456789"))
        groups.append(Group(prefix + child.name, name, plain_name((coarse or {}).get(child.name, name))))
        files = sorted(path for path in child.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        photos += [Photo(path, prefix + child.name) for path in files]
    return PhotoSet(tuple(groups), tuple(photos))


def read_subjects(folder: Path) -> PhotoSet:
    text = (folder / "prompts_and_classes.txt").read_text(encoding="utf-8")
    kinds = dict(re.findall(r"^([a-z0-9_]+),([a-z ]+)$", text, re.MULTILINE))
    return read_folders(folder, "subjects/", kinds)


def read_train(grocery: Path, clothing: Path, subjects: Path, left_out: tuple[str, ...] = ()) -> PhotoSet:
    """The training photos, without those and the descriptions of the grocery groups named in `left_out`."""
    sets = read_grocery(grocery, "train"), read_folders(clothing, "clothing/"), read_subjects(subjects)
    groups = [group for each in sets for group in each.groups if group.name not in left_out]
    keys = {group.key for group in groups}
    return PhotoSet(tuple(groups), tuple(photo for each in sets for photo in each.photos if photo.group in keys))


def choose_left_out(grocery: Path, count: int, seed: int) -> tuple[str, ...]:
    names = sorted(group.name for group in read_grocery(grocery, "train").groups)
    return tuple(sorted(random.Random(seed).sample(names, count)))


def sample_text(group: Group, rng: random.Random, coarse_rate: float, description_rate: float) -> tuple[str, str]:
    """A sentence about a group, and the phrase that makes it true: its name, coarse name, or "" for a description."""
    roll = rng.random()
    if group.description and roll < description_rate:
        words = group.description.split()
        start = rng.randrange(max(1, len(words) - DESCRIPTION_WORDS + 1))
        return " ".join(words[start : start + DESCRIPTION_WORDS]), ""
    phrase = group.coarse if roll > 1 - coarse_rate else group.name
    return rng.choice(TEMPLATES).format(phrase), phrase


def every_text(groups: tuple[Group, ...]) -> list[str]:
    """Every text that `sample_text` draws from."""
    names = {name for group in groups for name in (group.name, group.coarse)}
    return sorted(
        {template.format(name) for template in TEMPLATES for name in names}
        | {part for group in groups for part in group.description.split(". ")}
    )


def is_true(phrase: str, own: Group, other: Group) -> bool:
    """Whether a sentence sampled for `own` with this phrase also describes `other`, as "apple" does all kinds of apple."""
    return own.key == other.key or phrase in (other.name, other.coarse)
