"""Looks: another colour and shape for all photos of a thing alike, so that one thing serves as several. What a
reference shows must then be looked up in it, since neither the words nor the habits of the generator tell."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

REC_601 = np.array((0.299, 0.587, 0.114))


@dataclass(frozen=True)
class Look:
    """turn: of the hue, in radians round the axis of greys. saturation: 1 as it is. mirrored; corners: of the part that
    is shown, four pairs of shares of width and height, upper left, lower left, lower right, upper right."""

    turn: float = 0.0
    saturation: float = 1.0
    mirrored: bool = False
    corners: tuple[float, ...] = (0, 0, 0, 1, 1, 1, 1, 0)


PLAIN = Look()
MOST_INSET = 0.14  # of a corner, so that no border comes into view
FAR, NEAR = (0.15, 0.85), (-0.1, 0.1)  # turns of the hue, in whole turns


def look_of(thing: str, number: int, seed: int) -> Look:
    """Look 0 is the photo as it is; every other depends on the thing, its number and the seed alone. Odd ones have
    colours that tell the reference from everything known; even ones have colours that the thing's own cousins might
    have."""
    if not number:
        return PLAIN
    dice = random.Random(f"{seed}/{thing}/{number}")
    inset = [dice.uniform(0, MOST_INSET) for _ in range(8)]
    corners = tuple(at + d if not at else at - d for at, d in zip(PLAIN.corners, inset, strict=True))
    turn = dice.uniform(*(FAR if number % 2 else NEAR)) * 2 * math.pi
    return Look(turn, dice.uniform(0.7, 1.4), dice.random() < 0.5, corners)


def colour_matrix(look: Look) -> np.ndarray:
    """(3, 3): a rotation round the axis of greys, which stay as they are, then a saturation."""
    cos, sin, third = math.cos(look.turn), math.sin(look.turn), 1 / 3
    turn = np.full((3, 3), third * (1 - cos)) + cos * np.eye(3)
    turn += math.sqrt(third) * sin * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    grey = np.tile(REC_601, (3, 1))
    return (grey + look.saturation * (np.eye(3) - grey)) @ turn


def with_look(image: Image.Image, look: Look) -> Image.Image:
    """An RGB picture in this look, at its own size."""
    if look == PLAIN:
        return image
    size = (image.width, image.height)
    corners = tuple(share * size[place % 2] for place, share in enumerate(look.corners))
    image = image.transform(size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)
    image = image.convert("RGB", tuple(np.hstack((colour_matrix(look), np.zeros((3, 1)))).ravel().tolist()))
    return ImageOps.mirror(image) if look.mirrored else image
