"""Augmentations that change color and shape alike for all photos of a class, so that one class serves as several.

The appearance of the target can then only be taken from the reference, not from the words or the generator's memory.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

REC_601 = np.array((0.299, 0.587, 0.114))


@dataclass(frozen=True)
class Augmentation:
    """turn: of the hue, in radians around the gray axis. saturation: 1 is unchanged. corners: of the visible part, four
    pairs of fractions of width and height: upper left, lower left, lower right, upper right."""

    turn: float = 0.0
    saturation: float = 1.0
    mirrored: bool = False
    corners: tuple[float, ...] = (0, 0, 0, 1, 1, 1, 1, 0)


PLAIN = Augmentation()
MOST_INSET = 0.14  # of a corner, so that no border becomes visible
FAR, NEAR = (0.15, 0.85), (-0.1, 0.1)  # turns of the hue, in whole turns


def augmentation_of(class_key: str, number: int, seed: int) -> Augmentation:
    """Number 0 leaves photos unchanged; every other depends on class, number and seed only. Odd ones shift the hue far
    (unlike any known object), even ones slightly (like a similar class)."""
    if not number:
        return PLAIN
    rng = random.Random(f"{seed}/{class_key}/{number}")
    inset = [rng.uniform(0, MOST_INSET) for _ in range(8)]
    corners = tuple(at + d if not at else at - d for at, d in zip(PLAIN.corners, inset, strict=True))
    turn = rng.uniform(*(FAR if number % 2 else NEAR)) * 2 * math.pi
    return Augmentation(turn, rng.uniform(0.7, 1.4), rng.random() < 0.5, corners)


def color_matrix(augmentation: Augmentation) -> np.ndarray:
    """(3, 3): a rotation around the gray axis, which leaves grays unchanged, then a saturation."""
    cos, sin, third = math.cos(augmentation.turn), math.sin(augmentation.turn), 1 / 3
    turn = np.full((3, 3), third * (1 - cos)) + cos * np.eye(3)
    turn += math.sqrt(third) * sin * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    gray = np.tile(REC_601, (3, 1))
    return (gray + augmentation.saturation * (np.eye(3) - gray)) @ turn


def augment(image: Image.Image, augmentation: Augmentation) -> Image.Image:
    """The RGB picture, augmented, at its own size."""
    if augmentation == PLAIN:
        return image
    size = (image.width, image.height)
    corners = tuple(fraction * size[place % 2] for place, fraction in enumerate(augmentation.corners))
    image = image.transform(size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)
    image = image.convert("RGB", tuple(np.hstack((color_matrix(augmentation), np.zeros((3, 1)))).ravel().tolist()))
    return ImageOps.mirror(image) if augmentation.mirrored else image
