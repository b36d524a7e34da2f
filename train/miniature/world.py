"""The world of the miniature models: photos of 65 groceries, ten kinds of clothes and thirty objects, in squares of 128
pixels. Sixteen more groceries are held out: only a reference can show a model what they look like."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from realrag.files import canonical_json, sha256_bytes, write_atomic

from ..small_encoder.captioned_photos import Group, PhotoSet, choose_left_out, read_grocery, read_train
from ..small_encoder.views import open_photo

SIZE = 128
HELD_OUT, HELD_OUT_SEED = 16, 5  # nine kinds of fruit and vegetables, and seven packages
LEAST_CROP = 0.8  # of the side
PACKED = {
    "juice",
    "milk",
    "oat milk",
    "oatghurt",
    "sour cream",
    "sour milk",
    "soy milk",
    "soyghurt",
    "yoghurt",
}  # with words on
Progress = Callable[[int, int], None]


def held_out(grocery: Path) -> tuple[str, ...]:
    """Names of the classes that no generator and no adapter sees; held_out.txt lists them too."""
    return choose_left_out(grocery, HELD_OUT, HELD_OUT_SEED)


def square(image: Image.Image, size: int) -> Image.Image:
    """The largest square in the middle, which a generator learns to draw."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def view_of(image: Image.Image, size: int, view: int, mirrored: bool, rng: random.Random) -> Image.Image:
    """View 0 is the plain square; every other one a random crop of 80 to 100 % of its side."""
    if view:
        side = min(image.size) * rng.uniform(LEAST_CROP, 1.0)
        left, top = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
        image = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    else:
        image = square(image, size)
    return ImageOps.mirror(image) if mirrored else image


@dataclass(frozen=True)
class World:
    """Photos with their groups, and a folder that caches what is computed from them."""

    photos: PhotoSet
    scratch: Path
    size: int = SIZE
    seed: int = 0

    @property
    def key(self) -> str:
        """A hash of the photos and their crops: equal keys, equal pixels."""
        about = [self.size, self.seed, LEAST_CROP, sorted(PACKED)] + [
            [p.group, p.path.name, p.path.stat().st_size] for p in self.photos.photos
        ]
        return sha256_bytes(canonical_json(about))[:12]

    def pixels(self, view: int, progress: Progress = lambda done, total: None) -> np.ndarray:
        """(N, 3, S, S) uint8 of one view of every photo, memory-mapped from a cached file. Odd views are mirrored, except
        packages, whose print would be unreadable."""
        path = self.scratch / f"pixels-{self.key}-{view}.npy"
        if not path.exists():
            self.scratch.mkdir(parents=True, exist_ok=True)
            photos, packed = self.photos.photos, {group.key for group in self.groups if group.coarse in PACKED}
            made = np.empty((len(photos), 3, self.size, self.size), np.uint8)
            for row, photo in enumerate(photos):
                rng = random.Random(f"{self.seed}/{photo.group}/{photo.path.name}/{view}")
                mirrored = view % 2 == 1 and photo.group not in packed
                image = view_of(open_photo(photo.path, self.size), self.size, view, mirrored, rng)
                made[row] = np.asarray(image).transpose(2, 0, 1)
                progress(row + 1, len(photos))
            write_atomic(path, lambda file: np.save(file, made))
        return np.load(path, mmap_mode="r")

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.photos.groups


def add_world_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("grocery", "clothing", "subjects"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--scratch", type=Path, required=True, metavar="DIR", help="caches pixels, features and latents"
    )


def read_world(arguments: argparse.Namespace) -> World:
    names = held_out(arguments.grocery)
    return World(read_train(arguments.grocery, arguments.clothing, arguments.subjects, names), arguments.scratch)


def read_photos(arguments: argparse.Namespace, split: str) -> World:
    """All 81 groceries of one split, for measuring."""
    return World(read_grocery(arguments.grocery, split), arguments.scratch)
