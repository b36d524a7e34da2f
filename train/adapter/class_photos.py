"""Photos by class, and the part of each: training, or measuring on seen and on held-out classes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from realrag.errors import RealRAGError

from ..small_encoder.captioned_photos import Group, Photo, read_folders, read_grocery, read_subjects, sample_text
from .recipe import DataConfig

TRAIN, SEEN, HELD_OUT = "train", "seen", "held out"
MEASURED = 12  # photos per class to measure on, at most


@dataclass(frozen=True)
class ClassPhotos:
    """groups: the classes. photos: of `part` only, each with its row in `groups`; classes with one photo are left out,
    since a photo is never its own reference."""

    part: str
    groups: tuple[Group, ...]
    photos: tuple[Photo, ...]
    rows: tuple[int, ...]

    def of(self) -> dict[int, list[int]]:
        """Row of a group -> its photos, as positions in `photos`."""
        found: dict[int, list[int]] = {}
        for place, row in enumerate(self.rows):
            found.setdefault(row, []).append(place)
        return found

    def sentences(self, count: int, kinds: float, seed: int) -> list[list[str]]:
        """For each group, `count` sentences with its name, or for a fraction `kinds` with its kind."""
        rng = [random.Random(f"{seed}/{group.key}") for group in self.groups]
        return [
            [sample_text(group, d, kinds, 0.0)[0] for _ in range(count)]
            for group, d in zip(self.groups, rng, strict=True)
        ]


def read_class_photos(config: DataConfig) -> dict[str, ClassPhotos]:
    """Part -> its photos. RealRAGError where there is nothing to train on, or a held-out name has no class."""
    groups: dict[str, Group] = {}
    parts: dict[str, list[Photo]] = {TRAIN: [], SEEN: [], HELD_OUT: []}
    for group, photos in _sources(config):
        groups[group.key] = group
        if group.name in config.held_out:
            parts[HELD_OUT] += _some(photos[TRAIN] + photos[SEEN])
        else:
            parts[TRAIN] += photos[TRAIN]
            parts[SEEN] += _some(photos[SEEN])
    if strange := sorted(set(config.held_out) - {group.name for group in groups.values()}):
        raise RealRAGError(f"No class is called {strange[0]!r}, which `held_out` names. Names are lower-case words.")
    order = tuple(groups.values())
    place = {key: i for i, key in enumerate(groups)}
    found = {}
    for part, photos in parts.items():
        counts: dict[str, int] = {}
        for photo in photos:
            counts[photo.group] = counts.get(photo.group, 0) + 1
        kept = tuple(photo for photo in photos if counts[photo.group] > 1)
        found[part] = ClassPhotos(part, order, kept, tuple(place[photo.group] for photo in kept))
    if len(set(found[TRAIN].rows)) < 2:
        raise RealRAGError("An adapter needs at least two classes with two photos each. Give `photos` in [data].")
    return found


def _some(photos: list[Photo]) -> list[Photo]:
    """At most MEASURED of them, evenly spread: neighbors are often shots of the same shelf."""
    return photos[:: -(-len(photos) // MEASURED) or 1]


def _sources(config: DataConfig):
    """(group, {TRAIN: photos, SEEN: photos}) of every given folder."""
    if config.grocery:
        splits = [read_grocery(Path(config.grocery), split) for split in ("train", "val", "test")]
        for group in splits[0].groups:
            own = [[photo for photo in split.photos if photo.group == group.key] for split in splits]
            yield group, {TRAIN: own[0], SEEN: own[1] + own[2]}
    readers = {
        "photos": lambda p: read_folders(p, "photos/"),
        "clothing": lambda p: read_folders(p, "clothing/"),
        "subjects": read_subjects,
    }
    for name, read in readers.items():
        if folder := getattr(config, name):
            found = read(Path(folder))
            for group in found.groups:
                own = [photo for photo in found.photos if photo.group == group.key]
                first = len(own) - int(len(own) * config.aside)
                yield group, {TRAIN: own[:first], SEEN: own[first:]}
