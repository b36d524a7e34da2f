"""One picture of a class by seed: the object in a pose and light of its own, before a background with clutter.

What varies so (pose, paint, light, background, clutter, crop) tells nothing of the class. numpy and Pillow alone; every
number comes from the class's name and the seed, so that a picture can be asked for again on any machine."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageFilter

from .classes import ACCENTS, ClassOf
from .pen import OVER, Colour, Pen, Pose, arc, shaded

PAINTS: tuple[Colour, ...] = (
    (196, 190, 180), (120, 124, 134), (150, 130, 112), (96, 112, 122), (172, 178, 160), (140, 116, 140), (206, 186, 156),
    (110, 130, 116), (88, 84, 96),
)  # fmt: skip
GROUNDS: tuple[tuple[Colour, Colour], ...] = (
    ((190, 214, 232), (116, 146, 92)), ((226, 220, 208), (150, 112, 78)), ((204, 208, 214), (122, 124, 128)),
    ((176, 200, 196), (206, 192, 160)), ((222, 206, 214), (132, 108, 120)), ((96, 104, 122), (58, 60, 72)),
)  # fmt: skip


def picture(of: ClassOf, seed: int, size: int = 128) -> Image.Image:
    """The RGB picture of a class with this seed, size x size. The same look at another size is the same scene."""
    dice = random.Random(f"{of.name}/{seed}")
    pose = Pose(
        dice.uniform(0.43, 0.57), dice.uniform(0.43, 0.57), dice.uniform(0.29, 0.46), dice.uniform(-0.22, 0.22),
        dice.uniform(0.78, 1.0), dice.uniform(-0.12, 0.12), dice.random() < 0.5,
    )  # fmt: skip
    canvas = _background(dice, size)
    pen = Pen(size, pose)
    paint = shaded(dice.choice(PAINTS), dice.uniform(0.85, 1.15))
    of.family.draw(pen, of.look, paint, shaded(ACCENTS[of.look["accent"]], dice.uniform(0.85, 1.12)))
    light = dice.uniform(0.72, 1.2), dice.uniform(-0.3, 0.3), dice.uniform(-0.25, 0.25)
    _shadow(canvas, pen.image, dice)
    canvas.paste(_lit(pen.image, light), (0, 0), pen.image.getchannel("A"))
    if dice.random() < 0.35:
        _clutter(canvas, dice, size, 1, near=True)
    return _photographed(canvas, dice, size)


def _background(dice: random.Random, size: int) -> Image.Image:
    """Wall or sky above a floor, with a faint texture and things standing about."""
    side = size * OVER
    above, below = dice.choice(GROUNDS)
    light = dice.uniform(0.85, 1.15)
    above, below, horizon = shaded(above, light), shaded(below, light), dice.uniform(0.45, 0.8)
    y, x = np.mgrid[0:side, 0:side] / side
    level = np.where(y < horizon, 0.92 + 0.16 * y, 1.06 - 0.2 * (y - horizon))[..., None]
    rows = np.where((y < horizon)[..., None], np.array(above, float), np.array(below, float)) * level
    kind, pitch = dice.choice(("none", "planks", "tiles", "grain")), dice.uniform(0.06, 0.14)
    if kind == "planks":
        rows *= np.where((x / pitch % 1 < 0.06) & (y >= horizon), 0.8, 1.0)[..., None]
    elif kind == "tiles":
        rows *= np.where(((x / pitch % 1 < 0.05) | (y / pitch % 1 < 0.05)) & (y < horizon), 0.88, 1.0)[..., None]
    elif kind == "grain":
        grains = np.random.default_rng(dice.getrandbits(32)).integers(-14, 15, (16, 16)).astype(np.float32)
        coarse = Image.fromarray(grains).resize((side, side), Image.Resampling.BILINEAR)
        rows += np.asarray(coarse)[..., None]
    canvas = Image.fromarray(np.clip(rows, 0, 255).astype(np.uint8))
    _clutter(canvas, dice, size, dice.randint(0, 4))
    return canvas.filter(ImageFilter.BoxBlur(dice.uniform(0, 2.5) * size / 128))


def _clutter(canvas: Image.Image, dice: random.Random, size: int, count: int, near: bool = False) -> None:
    """Balls, boxes and posts in dull colours; a near one cuts into a corner in front of the object."""
    for _ in range(count):
        if near:
            pose = Pose(dice.choice((0.02, 0.98)), dice.uniform(0.7, 1.0), dice.uniform(0.1, 0.17))
        else:
            pose = Pose(dice.uniform(0, 1), dice.uniform(0.3, 0.95), dice.uniform(0.05, 0.16), dice.uniform(-0.4, 0.4))
        pen, colour = Pen(size, pose), shaded(dice.choice((*PAINTS, *ACCENTS.values())), dice.uniform(0.6, 1.1))
        kind = dice.choice(("ball", "box", "post", "bush"))
        if kind == "ball":
            pen.polygon(arc(0, 0, 1, 1), colour)
        elif kind == "box":
            pen.box(-1, -0.8, 1, 0.8, colour)
        elif kind == "post":
            pen.box(-0.25, -2.2, 0.25, 1, colour)
        else:
            for x, y in ((-0.5, 0.1), (0.5, 0.1), (0, -0.4)):
                pen.oval(x, y, 0.6, 0.6, (84, 116, 76), False)
        canvas.paste(pen.image, (0, 0), pen.image.getchannel("A"))


def _shadow(canvas: Image.Image, thing: Image.Image, dice: random.Random) -> None:
    side = canvas.width
    alpha = thing.getchannel("A").filter(ImageFilter.BoxBlur(side * 0.02)).point(lambda a: a * 2 // 5)
    offset = round(dice.uniform(-0.06, 0.06) * side), round(dice.uniform(0.01, 0.05) * side)
    canvas.paste((28, 28, 34), offset, alpha)


def _lit(thing: Image.Image, light: tuple[float, float, float]) -> Image.Image:
    """Light over the object: its strength, and how it falls off across and down."""
    strength, across, down = light
    side = thing.width
    ramp = (np.arange(side) / side - 0.5).astype(np.float32)
    rows = np.asarray(thing.convert("RGB"), np.float32)
    rows = rows * (strength * (1 + across * ramp[None, :] + down * ramp[:, None]))[..., None]
    return Image.fromarray(np.clip(rows, 0, 255).astype(np.uint8))


def _photographed(canvas: Image.Image, dice: random.Random, size: int) -> Image.Image:
    """A camera's share: a crop, a tint, a little blur and noise."""
    side, keep = canvas.width, dice.uniform(0.86, 1.0)
    left, top = dice.uniform(0, 1 - keep) * side, dice.uniform(0, 1 - keep) * side
    box = (left, top, left + keep * side, top + keep * side)
    image = canvas.resize(
        (size, size), Image.Resampling.BOX if keep == 1 else Image.Resampling.BILINEAR, box, reducing_gap=2.0
    )
    if dice.random() < 0.4:
        image = image.filter(ImageFilter.BoxBlur(dice.uniform(0.2, 0.7) * size / 128))
    tint = np.array([dice.uniform(0.92, 1.08) for _ in range(3)], np.float32)
    grain = np.random.default_rng(dice.getrandbits(32)).integers(-7, 8, (size, size, 1))
    return Image.fromarray(np.clip(np.asarray(image, np.float32) * tint + grain, 0, 255).astype(np.uint8))
