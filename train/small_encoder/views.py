"""Photos as pixels, plain or augmented, and the cached outputs of the image tower's frozen front."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from realrag.encoders.small_net import MobileNet
from realrag.native_bf16 import bf16_autocast

from .captioned_photos import Photo

RELU6_STEP = 6 / 255  # the front ends in ReLU6, so a byte resolves its output nearly as finely as bf16


def open_photo(path: Path, size: int) -> Image.Image:
    image = Image.open(path)
    image.draft("RGB", (2 * size, 2 * size))
    return ImageOps.exif_transpose(image).convert("RGB")


def plain_view(image: Image.Image, size: int) -> Image.Image:
    """The shipped preprocessing ("squash"): the whole photo, each side scaled on its own."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def augmented_view(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """A random crop of 30..100 % of the area, mirrored half the time, with other brightness, contrast, color, sharpness."""
    area, stretch = rng.uniform(0.3, 1.0), rng.uniform(-0.3, 0.3)
    width = image.width * min(1.0, (area * 2.0**stretch) ** 0.5)
    height = image.height * min(1.0, (area * 2.0**-stretch) ** 0.5)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    image = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    for enhance, reach in (
        (ImageEnhance.Brightness, 0.4),
        (ImageEnhance.Contrast, 0.4),
        (ImageEnhance.Color, 0.4),
        (ImageEnhance.Sharpness, 0.8),
    ):
        image = enhance(image).enhance(rng.uniform(1 - reach, 1 + reach))
    return image


def pixels(images: list[Image.Image], mean: float, std: float) -> Tensor:
    """(B, 3, S, S) float, normalized."""
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    return (stacked.float() / 255 - mean) / std


def views_of(photos: list[Photo], view: int, size: int, seed: int) -> list[Image.Image]:
    """View 0 is the plain one. Randomness depends on photo and view only, so order and batches change nothing."""
    opened = [(photo, open_photo(photo.path, size)) for photo in photos]
    if view == 0:
        return [plain_view(image, size) for _, image in opened]
    return [
        augmented_view(image, size, random.Random(f"{seed}/{view}/{photo.group}/{photo.path.name}"))
        for photo, image in opened
    ]


@dataclass(frozen=True)
class FrontSettings:
    """All that decides the front's outputs for a photo. cut: how many blocks belong to the front. size: pixels of a side.
    mean and std: the tower's normalization. seed: of the augmentations."""

    cut: int
    size: int
    seed: int
    mean: float
    std: float
    bf16: bool = True


@torch.no_grad()
def front_outputs(tower: MobileNet, photos: list[Photo], view: int, settings: FrontSettings) -> np.ndarray:
    """(N, h, w, C) uint8 in steps of RELU6_STEP: channels last, as the tower computes."""
    chunks = []
    for start in range(0, len(photos), 64):
        seen = views_of(photos[start : start + 64], view, settings.size, settings.seed)
        with bf16_autocast("cpu", settings.bf16):
            output = tower.front(pixels(seen, settings.mean, settings.std), settings.cut).float()
        chunks.append((output / RELU6_STEP).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(chunks)


def to_features(stored: np.ndarray) -> Tensor:
    """(B, h, w, C) uint8 -> (B, C, h, w) float, in channels-last memory."""
    return (torch.from_numpy(np.array(stored)) * RELU6_STEP).permute(0, 3, 1, 2)


class FrontCache:
    """One .npy file per view, in a folder whose name is a hash of all inputs; a finished view is never computed again."""

    def __init__(self, folder: Path, tower: MobileNet, photos: tuple[Photo, ...], settings: FrontSettings):
        digest = hashlib.sha256(" ".join(map(str, astuple(settings))).encode())
        for weight in (*tower.stem.parameters(), *tower.blocks[: settings.cut].parameters()):
            digest.update(weight.detach().numpy().tobytes())
        for photo in photos:
            stat = photo.path.stat()  # a new photo may have the name of an old one
            digest.update(f"{photo.group}/{photo.path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        self.folder = folder / digest.hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.compute = lambda view: front_outputs(tower, list(photos), view, settings)

    def view(self, number: int) -> np.ndarray:
        """(N, h, w, C) uint8, mapped from the file."""
        path = self.folder / f"{number:03d}.npy"
        if not path.exists():
            part = path.with_suffix(".part")
            with open(part, "wb") as file:
                np.save(file, self.compute(number), allow_pickle=False)
            part.replace(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def views(self, count: int, progress: Callable[[int, int], None] | None = None) -> list[np.ndarray]:
        found = []
        for number in range(count):
            found.append(self.view(number))
            if progress:
                progress(number + 1, count)
        return found
