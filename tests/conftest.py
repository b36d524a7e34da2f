"""Shared fixtures: folders of small photos made here, and the fake encoder."""

import io

import numpy as np
import pytest
from fake_encoder import ColourEncoder
from PIL import Image

COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


def photo_bytes(colour, seed=0, size=(48, 36), format="JPEG", **options) -> bytes:
    """A picture of one colour, with patches of other light and noise that depend on the seed."""
    random = np.random.default_rng(seed)
    light = random.integers(-70, 70, (2, 2, 3)).repeat(size[1] // 2 + 1, 0).repeat(size[0] // 2 + 1, 1)
    noise = random.integers(-20, 20, (size[1], size[0], 3))
    pixels = np.clip(np.array(colour) + light[: size[1], : size[0]] + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
    """photos/{red,green,blue}/0..4.jpg"""
    folder = tmp_path / "photos"
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for seed in range(5):
            (folder / name / f"{seed}.jpg").write_bytes(photo_bytes(colour, seed))
    return folder


@pytest.fixture
def encoder():
    return ColourEncoder()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test touches the user's cache."""
    monkeypatch.setenv("REALRAG_CACHE", str(tmp_path / "cache"))
