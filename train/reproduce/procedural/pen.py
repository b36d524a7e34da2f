"""A pen that draws filled shapes in an object's own plane and shows them in a pose. Objects are vectors, so they are
sharp at any size.

The plane is [-1, 1] x [-1, 1] with y pointing down. Everything is a polygon and no font is used, so that machines
agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Look = dict[str, str]  # attribute -> value: what a class looks like
Point = tuple[float, float]
GLASS, METAL, DARK = (176, 208, 222), (188, 192, 198), (60, 60, 66)
WOOD, CREAM = (150, 104, 62), (245, 240, 226)
OVER = 2  # supersampling: pixels drawn per pixel shown, along each side
OUTLINE = 0.62  # brightness of an outline relative to its shape


@dataclass(frozen=True)
class Pose:
    """Where the object's plane lies in the picture, as fractions of the picture's side, and how it is rotated."""

    x: float = 0.5
    y: float = 0.5
    scale: float = 0.4
    turn: float = 0.0  # rotation in the picture plane, in radians
    yaw: float = 1.0  # fraction of the width that remains after turning away from the viewer
    shear: float = 0.0
    mirrored: bool = False

    def place(self, point: Point) -> Point:
        """Maps a point of the object's plane to fractions of the picture's side."""
        x, y = (-point[0] if self.mirrored else point[0]) * self.yaw, point[1]
        y += self.shear * x
        c, s = math.cos(self.turn), math.sin(self.turn)
        return self.x + self.scale * (c * x - s * y), self.y + self.scale * (s * x + c * y)


def shaded(color: Color, light: float) -> Color:
    """A color under `light`: 1 keeps it, less darkens it, more moves it toward white."""
    if light <= 1:
        return tuple(round(c * light) for c in color)
    return tuple(round(c + (255 - c) * min(1.0, light - 1)) for c in color)


class Pen:
    """Draws shapes on a transparent picture of `size` x `size` pixels."""

    def __init__(self, size: int, pose: Pose = Pose()):
        self.side, self.pose = size * OVER, pose
        self.image = Image.new("RGBA", (self.side, self.side), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)
        self._edge = max(1, round(self.side * pose.scale * 0.022))

    def _pixels(self, points: Sequence[Point]) -> list[tuple[int, int]]:
        return [tuple(round(v * self.side) for v in self.pose.place(point)) for point in points]

    def polygon(self, points: Sequence[Point], color: Color, outline: bool = True) -> None:
        dots = self._pixels(points)
        self._draw.polygon(dots, (*color, 255))
        if outline:
            self._draw.line([*dots, dots[0]], (*shaded(color, OUTLINE), 255), self._edge, joint="curve")

    def box(
        self, left: float, top: float, right: float, bottom: float, color: Color, corner: float = 0.0, outline=True
    ):
        self.polygon(rounded(left, top, right, bottom, corner), color, outline)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color, outline: bool = True) -> None:
        self.polygon(arc(x, y, rx, ry), color, outline)

    def stroke(self, points: Sequence[Point], width: float, color: Color) -> None:
        """A line with round ends. `width` is in units of the object's plane."""
        wide = max(1, round(width * self.side * self.pose.scale))
        dots = self._pixels(points)
        self._draw.line(dots, (*color, 255), wide, joint="curve")
        r = wide / 2 - 0.5
        for x, y in (dots[0], dots[-1]):
            self._draw.ellipse((x - r, y - r, x + r, y + r), (*color, 255))

    def pattern(self, inside: Sequence[Point], kind: str, color: Color, pitch: float = 0.3) -> None:
        """Fills a shape with a pattern: `striped`, `banded` (horizontal), `dotted` or `chequered`. Any other kind draws
        nothing."""
        layer = Pen(self.side // OVER, self.pose)
        xs, ys = [p[0] for p in inside], [p[1] for p in inside]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        for row in range(math.ceil((bottom - top) / pitch) + 1):
            for column in range(math.ceil((right - left) / pitch) + 1):
                x, y = left + column * pitch, top + row * pitch
                if kind == "striped" and row == 0:
                    layer.box(x, top, x + pitch * 0.45, bottom, color, outline=False)
                elif kind == "banded" and column == 0:
                    layer.box(left, y, right, y + pitch * 0.45, color, outline=False)
                elif kind == "dotted":
                    layer.oval(
                        x + pitch / 2 * (row % 2), y + pitch / 2, pitch * 0.26, pitch * 0.26, color, outline=False
                    )
                elif kind == "chequered" and (row + column) % 2:
                    layer.box(x, y, x + pitch, y + pitch, color, outline=False)
        mask = Image.new("L", self.image.size, 0)
        ImageDraw.Draw(mask).polygon(self._pixels(inside), 255)
        alpha = np.minimum(np.asarray(mask), np.asarray(layer.image.getchannel("A")))
        self.image.paste(layer.image, (0, 0), Image.fromarray(alpha))
        self._draw = ImageDraw.Draw(self.image)


def arc(x: float, y: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0) -> list[Point]:
    """Points of an ellipse between two angles in degrees. 0 is right and 90 is down."""
    steps = max(6, math.ceil(abs(end - start) / 10))
    angles = (math.radians(start + (end - start) * i / steps) for i in range(steps + 1))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def rounded(left: float, top: float, right: float, bottom: float, corner: float = 0.0) -> list[Point]:
    """A box whose corners are rounded with the radius `corner`."""
    if corner <= 0:
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    c = min(corner, (right - left) / 2, (bottom - top) / 2)
    return (arc(right - c, top + c, c, c, -90, 0) + arc(right - c, bottom - c, c, c, 0, 90)
            + arc(left + c, bottom - c, c, c, 90, 180) + arc(left + c, top + c, c, c, 180, 270))  # fmt: skip


def spokes(x: float, y: float, inner: float, outer: float, count: int, start: float = 0.0) -> list[tuple[Point, Point]]:
    """End points of `count` evenly spaced spokes between two radii."""
    turns = (start + 2 * math.pi * i / count for i in range(count))
    return [((x + inner * math.cos(a), y + inner * math.sin(a)), (x + outer * math.cos(a), y + outer * math.sin(a)))
            for a in turns]  # fmt: skip
