"""Draws one picture of a class: the object in a random pose and light, in front of a cluttered background.

Pose, paint, light, background, clutter and crop are independent of the class. Every number comes from the class's name
and the seed, so a picture can be drawn again on any machine. Needs only numpy and Pillow."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageFilter

from .classes import ACCENTS, ClassOf
from .pen import OVER, Color, Pen, Pose, arc, shaded

PAINTS: tuple[Color, ...] = (
    (196, 190, 180), (120, 124, 134), (150, 130, 112), (96, 112, 122), (172, 178, 160), (140, 116, 140), (206, 186, 156),
    (110, 130, 116), (88, 84, 96),
)  # fmt: skip
GROUNDS: tuple[tuple[Color, Color], ...] = (
    ((190, 214, 232), (116, 146, 92)), ((226, 220, 208), (150, 112, 78)), ((204, 208, 214), (122, 124, 128)),
    ((176, 200, 196), (206, 192, 160)), ((222, 206, 214), (132, 108, 120)), ((96, 104, 122), (58, 60, 72)),
)  # fmt: skip


def picture(of: ClassOf, seed: int, size: int = 128) -> Image.Image:
    """The RGB picture of a class for a seed, `size` x `size` pixels. Another size shows the same scene."""
    rng = random.Random(f"{of.name}/{seed}")
    pose = Pose(
        rng.uniform(0.43, 0.57), rng.uniform(0.43, 0.57), rng.uniform(0.29, 0.46), rng.uniform(-0.22, 0.22),
        rng.uniform(0.78, 1.0), rng.uniform(-0.12, 0.12), rng.random() < 0.5,
    )  # fmt: skip
    canvas = _background(rng, size)
    pen = Pen(size, pose)
    paint = shaded(rng.choice(PAINTS), rng.uniform(0.85, 1.15))
    of.family.draw(pen, of.look, paint, shaded(ACCENTS[of.look["accent"]], rng.uniform(0.85, 1.12)))
    light = rng.uniform(0.72, 1.2), rng.uniform(-0.3, 0.3), rng.uniform(-0.25, 0.25)
    _shadow(canvas, pen.image, rng)
    canvas.paste(_lit(pen.image, light), (0, 0), pen.image.getchannel("A"))
    if rng.random() < 0.35:
        _clutter(canvas, rng, size, 1, near=True)
    return _photographed(canvas, rng, size)


def _background(rng: random.Random, size: int) -> Image.Image:
    """A wall or sky above a floor, with a faint texture and a few objects."""
    side = size * OVER
    above, below = rng.choice(GROUNDS)
    light = rng.uniform(0.85, 1.15)
    above, below, horizon = shaded(above, light), shaded(below, light), rng.uniform(0.45, 0.8)
    y, x = np.mgrid[0:side, 0:side] / side
    level = np.where(y < horizon, 0.92 + 0.16 * y, 1.06 - 0.2 * (y - horizon))[..., None]
    rows = np.where((y < horizon)[..., None], np.array(above, float), np.array(below, float)) * level
    kind, pitch = rng.choice(("none", "planks", "tiles", "grain")), rng.uniform(0.06, 0.14)
    if kind == "planks":
        rows *= np.where((x / pitch % 1 < 0.06) & (y >= horizon), 0.8, 1.0)[..., None]
    elif kind == "tiles":
        rows *= np.where(((x / pitch % 1 < 0.05) | (y / pitch % 1 < 0.05)) & (y < horizon), 0.88, 1.0)[..., None]
    elif kind == "grain":
        grains = np.random.default_rng(rng.getrandbits(32)).integers(-14, 15, (16, 16)).astype(np.float32)
        coarse = Image.fromarray(grains).resize((side, side), Image.Resampling.BILINEAR)
        rows += np.asarray(coarse)[..., None]
    canvas = Image.fromarray(np.clip(rows, 0, 255).astype(np.uint8))
    _clutter(canvas, rng, size, rng.randint(0, 4))
    return canvas.filter(ImageFilter.BoxBlur(rng.uniform(0, 2.5) * size / 128))


def _clutter(canvas: Image.Image, rng: random.Random, size: int, count: int, near: bool = False) -> None:
    """Balls, boxes, posts and bushes. With `near`, one covers a corner in front of the object."""
    for _ in range(count):
        if near:
            pose = Pose(rng.choice((0.02, 0.98)), rng.uniform(0.7, 1.0), rng.uniform(0.1, 0.17))
        else:
            pose = Pose(rng.uniform(0, 1), rng.uniform(0.3, 0.95), rng.uniform(0.05, 0.16), rng.uniform(-0.4, 0.4))
        pen, color = Pen(size, pose), shaded(rng.choice((*PAINTS, *ACCENTS.values())), rng.uniform(0.6, 1.1))
        kind = rng.choice(("ball", "box", "post", "bush"))
        if kind == "ball":
            pen.polygon(arc(0, 0, 1, 1), color)
        elif kind == "box":
            pen.box(-1, -0.8, 1, 0.8, color)
        elif kind == "post":
            pen.box(-0.25, -2.2, 0.25, 1, color)
        else:
            for x, y in ((-0.5, 0.1), (0.5, 0.1), (0, -0.4)):
                pen.oval(x, y, 0.6, 0.6, (84, 116, 76), False)
        canvas.paste(pen.image, (0, 0), pen.image.getchannel("A"))


def _shadow(canvas: Image.Image, thing: Image.Image, rng: random.Random) -> None:
    side = canvas.width
    alpha = thing.getchannel("A").filter(ImageFilter.BoxBlur(side * 0.02)).point(lambda a: a * 2 // 5)
    offset = round(rng.uniform(-0.06, 0.06) * side), round(rng.uniform(0.01, 0.05) * side)
    canvas.paste((28, 28, 34), offset, alpha)


def _lit(thing: Image.Image, light: tuple[float, float, float]) -> Image.Image:
    """The object under a light (strength, horizontal gradient, vertical gradient)."""
    strength, across, down = light
    side = thing.width
    ramp = (np.arange(side) / side - 0.5).astype(np.float32)
    rows = np.asarray(thing.convert("RGB"), np.float32)
    rows = rows * (strength * (1 + across * ramp[None, :] + down * ramp[:, None]))[..., None]
    return Image.fromarray(np.clip(rows, 0, 255).astype(np.uint8))


def _photographed(canvas: Image.Image, rng: random.Random, size: int) -> Image.Image:
    """What a camera adds: a crop, a tint, a little blur and noise."""
    side, keep = canvas.width, rng.uniform(0.86, 1.0)
    left, top = rng.uniform(0, 1 - keep) * side, rng.uniform(0, 1 - keep) * side
    box = (left, top, left + keep * side, top + keep * side)
    image = canvas.resize(
        (size, size), Image.Resampling.BOX if keep == 1 else Image.Resampling.BILINEAR, box, reducing_gap=2.0
    )
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 0.7) * size / 128))
    tint = np.array([rng.uniform(0.92, 1.08) for _ in range(3)], np.float32)
    grain = np.random.default_rng(rng.getrandbits(32)).integers(-7, 8, (size, size, 1))
    return Image.fromarray(np.clip(np.asarray(image, np.float32) * tint + grain, 0, 255).astype(np.uint8))
