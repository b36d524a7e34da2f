"""Small generated photos."""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


def photo_bytes(color, seed=0, size=(48, 36), format="JPEG", cells=2, **options) -> bytes:
    """A picture of one color, with uneven lighting in `cells` x `cells` fields, and noise; both depend on the seed. From 6
    cells on, two seeds look like two photos and not like copies."""
    if options:
        return _encoded(_pixels(color, seed, size, cells), format, options)
    return _plain(color, seed, size, format, cells)


@lru_cache(4096)
def _plain(color, seed, size, format, cells) -> bytes:
    return _encoded(_pixels(color, seed, size, cells), format, {})


def _pixels(color, seed, size, cells) -> np.ndarray:
    rng = np.random.default_rng(seed)
    light = rng.integers(-70, 70, (cells, cells, 3)).repeat(size[1] // cells + 1, 0).repeat(size[0] // cells + 1, 1)
    noise = rng.integers(-20, 20, (size[1], size[0], 3))
    return np.clip(np.array(color) + light[: size[1], : size[0]] + noise, 0, 255).astype(np.uint8)


def _encoded(pixels: np.ndarray, format: str, options: dict) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def write_photos(folder: Path) -> None:
    """folder/{red,green,blue}/0..4.jpg"""
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for seed in range(5):
            (folder / name / f"{seed}.jpg").write_bytes(photo_bytes(color, seed))
