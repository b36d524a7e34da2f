"""Draws filled shapes in an object's own plane, seen through a pose: an object is vectors, so any size is sharp.

The plane is [-1, 1] x [-1, 1], y down. Only polygons are drawn, without fonts, so that machines agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
OVER = 2  # pixels drawn for one pixel shown, a side
OUTLINE = 0.62  # brightness of an edge beside its shape's


@dataclass(frozen=True)
class Pose:
    """Where the object's plane lies in the picture: a centre and half-width as shares of its side, and how it is
    turned."""

    x: float = 0.5
    y: float = 0.5
    scale: float = 0.4
    turn: float = 0.0  # radians
    yaw: float = 1.0  # width left by turning away
    shear: float = 0.0
    mirrored: bool = False

    def place(self, point: Point) -> Point:
        """A point of the object's plane, in shares of the picture's side."""
        x, y = (-point[0] if self.mirrored else point[0]) * self.yaw, point[1]
        y += self.shear * x
        c, s = math.cos(self.turn), math.sin(self.turn)
        return self.x + self.scale * (c * x - s * y), self.y + self.scale * (s * x + c * y)


def shaded(colour: Colour, light: float) -> Colour:
    """light: 1 leaves it, below is darker, above goes towards white."""
    if light <= 1:
        return tuple(round(c * light) for c in colour)
    return tuple(round(c + (255 - c) * min(1.0, light - 1)) for c in colour)


class Pen:
    """Shapes on a transparent picture of `size` pixels a side."""

    def __init__(self, size: int, pose: Pose = Pose()):
        self.side, self.pose = size * OVER, pose
        self.image = Image.new("RGBA", (self.side, self.side), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)
        self._edge = max(1, round(self.side * pose.scale * 0.022))

    def _pixels(self, points: Sequence[Point]) -> list[tuple[int, int]]:
        return [tuple(round(v * self.side) for v in self.pose.place(point)) for point in points]

    def polygon(self, points: Sequence[Point], colour: Colour, outline: bool = True) -> None:
        dots = self._pixels(points)
        self._draw.polygon(dots, (*colour, 255))
        if outline:
            self._draw.line([*dots, dots[0]], (*shaded(colour, OUTLINE), 255), self._edge, joint="curve")

    def box(
        self, left: float, top: float, right: float, bottom: float, colour: Colour, corner: float = 0.0, outline=True
    ):
        self.polygon(rounded(left, top, right, bottom, corner), colour, outline)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour, outline: bool = True) -> None:
        self.polygon(arc(x, y, rx, ry), colour, outline)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line of a width in the object's plane, with round ends."""
        wide = max(1, round(width * self.side * self.pose.scale))
        dots = self._pixels(points)
        self._draw.line(dots, (*colour, 255), wide, joint="curve")
        r = wide / 2 - 0.5
        for x, y in (dots[0], dots[-1]):
            self._draw.ellipse((x - r, y - r, x + r, y + r), (*colour, 255))

    def pattern(self, inside: Sequence[Point], kind: str, colour: Colour, pitch: float = 0.3) -> None:
        """`striped`, `banded` (level), `dotted` or `chequered` in a colour, within a shape; any other kind is plain."""
        layer = Pen(self.side // OVER, self.pose)
        xs, ys = [p[0] for p in inside], [p[1] for p in inside]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        for row in range(math.ceil((bottom - top) / pitch) + 1):
            for column in range(math.ceil((right - left) / pitch) + 1):
                x, y = left + column * pitch, top + row * pitch
                if kind == "striped" and row == 0:
                    layer.box(x, top, x + pitch * 0.45, bottom, colour, outline=False)
                elif kind == "banded" and column == 0:
                    layer.box(left, y, right, y + pitch * 0.45, colour, outline=False)
                elif kind == "dotted":
                    layer.oval(
                        x + pitch / 2 * (row % 2), y + pitch / 2, pitch * 0.26, pitch * 0.26, colour, outline=False
                    )
                elif kind == "chequered" and (row + column) % 2:
                    layer.box(x, y, x + pitch, y + pitch, colour, outline=False)
        mask = Image.new("L", self.image.size, 0)
        ImageDraw.Draw(mask).polygon(self._pixels(inside), 255)
        alpha = np.minimum(np.asarray(mask), np.asarray(layer.image.getchannel("A")))
        self.image.paste(layer.image, (0, 0), Image.fromarray(alpha))
        self._draw = ImageDraw.Draw(self.image)


def arc(x: float, y: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0) -> list[Point]:
    """Points of an ellipse between two angles in degrees: 0 is right, 90 down."""
    steps = max(6, math.ceil(abs(end - start) / 10))
    angles = (math.radians(start + (end - start) * i / steps) for i in range(steps + 1))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def rounded(left: float, top: float, right: float, bottom: float, corner: float = 0.0) -> list[Point]:
    """A box, its corners rounded by a radius."""
    if corner <= 0:
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    c = min(corner, (right - left) / 2, (bottom - top) / 2)
    return (arc(right - c, top + c, c, c, -90, 0) + arc(right - c, bottom - c, c, c, 0, 90)
            + arc(left + c, bottom - c, c, c, 90, 180) + arc(left + c, top + c, c, c, 180, 270))  # fmt: skip


def spokes(x: float, y: float, inner: float, outer: float, count: int, start: float = 0.0) -> list[tuple[Point, Point]]:
    """Ends of `count` even spokes between two radii."""
    turns = (start + 2 * math.pi * i / count for i in range(count))
    return [((x + inner * math.cos(a), y + inner * math.sin(a)), (x + outer * math.cos(a), y + outer * math.sin(a)))
            for a in turns]  # fmt: skip
