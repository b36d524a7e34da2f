"""Mugs, teapots, lamps, chairs, clocks, bottles, umbrellas and backpacks of the procedural world."""

from __future__ import annotations

import math

from .pen import CREAM, DARK, METAL, WOOD, Color, Look, Pen, arc, rounded, shaded, spokes


def mug(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    if look["handle"] == "square":
        pen.stroke([(0.45, -0.35), (0.9, -0.35), (0.9, 0.35), (0.45, 0.35)], 0.13, shaded(paint, 0.8))
    else:
        pen.stroke(arc(0.45, 0, 0.42, 0.38, -90, 90), 0.13, shaded(paint, 0.8))
        if look["handle"] == "double":
            pen.stroke(arc(-0.5, 0, 0.42, 0.38, 90, 270), 0.13, shaded(paint, 0.8))
    body = [(-0.55, -0.65), (0.55, -0.65), (0.48, 0.65), *arc(0, 0.65, 0.48, 0.12, 0, 180), (-0.48, 0.65)]
    pen.polygon(body, paint)
    pen.pattern(body, look["pattern"], accent, 0.28)
    pen.box(-0.49, 0.5, 0.49, 0.64, accent)
    pen.oval(0, -0.65, 0.55, 0.15, shaded(paint, 1.3))
    pen.oval(0, -0.64, 0.46, 0.1, (70, 44, 28))


def teapot(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    dark = shaded(paint, 0.85)
    spout = [(-0.4, 0.3), (-0.75, 0.05), (-0.98, -0.4), (-0.8, -0.4), (-0.45, -0.1)]
    if look["spout"] == "straight":
        spout = [(-0.4, 0.4), (-0.98, -0.28), (-0.86, -0.42), (-0.4, -0.05)]
    pen.polygon(spout, dark)
    pen.stroke(arc(0.5, 0.02, 0.42, 0.36, -100, 100), 0.11, dark)
    body = arc(0, 0.12, 0.62, 0.55) if look["body"] == "round" else rounded(-0.55, -0.4, 0.55, 0.66, 0.12)
    pen.polygon(body, paint)
    pen.pattern(body, look["pattern"], accent, 0.32)
    pen.polygon(arc(0, -0.36, 0.36, 0.16, 180, 360), accent)
    pen.oval(0, -0.6, 0.1, 0.1, accent)


def lamp(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    pen.stroke([(0, -0.1), (0, 0.8)], 0.08, METAL)
    if look["base"] == "tripod":
        for x in (-0.42, 0, 0.42):
            pen.stroke([(0, 0.3), (x, 0.9)], 0.07, WOOD)
    elif look["base"] == "ball":
        pen.oval(0, 0.5, 0.32, 0.34, shaded(paint, 0.8))
        pen.box(-0.25, 0.8, 0.25, 0.9, DARK)
    else:
        pen.oval(0, 0.85, 0.42, 0.1, DARK)
    shade = {"cone": [(-0.25, -0.85), (0.25, -0.85), (0.62, -0.05), (-0.62, -0.05)],
             "drum": [(-0.5, -0.8), (0.5, -0.8), (0.5, -0.1), (-0.5, -0.1)],
             "dome": [*arc(0, -0.05, 0.6, 0.75, 180, 360)]}[look["shade"]]  # fmt: skip
    pen.polygon(shade, CREAM)
    pen.pattern(shade, look["pattern"], accent, 0.25)
    pen.box(-0.62 if look["shade"] != "drum" else -0.5, -0.14, 0.62 if look["shade"] != "drum" else 0.5, -0.03, accent)


def chair(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    splay = 0.18 if look["legs"] == "splayed" else 0.0
    for side in (-1, 1):
        pen.stroke([(side * 0.42, 0.2), (side * (0.42 + splay), 0.92)], 0.1, paint)
        pen.stroke([(side * 0.3, 0.15), (side * (0.3 + splay / 2), 0.75)], 0.08, shaded(paint, 0.7))
        pen.stroke([(side * 0.42, 0.15), (side * 0.42, -0.9)], 0.1, paint)
        if look["arms"] == "with arms":
            pen.stroke([(side * 0.42, -0.2), (side * 0.68, -0.18), (side * 0.66, 0.2)], 0.09, paint)
    if look["back"] == "slatted":
        for y in (-0.85, -0.6, -0.35):
            pen.box(-0.42, y, 0.42, y + 0.13, paint)
    elif look["back"] == "solid":
        pen.box(-0.42, -0.9, 0.42, -0.25, paint, 0.1)
    else:
        pen.oval(0, -0.58, 0.46, 0.34, paint)
    pen.box(-0.56, 0.08, 0.56, 0.22, paint)
    pen.box(-0.52, -0.06, 0.52, 0.1, accent, 0.08)


def clock(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    if look["top"] == "two bells":
        for x in (-0.36, 0.36):
            pen.polygon(arc(x, -0.6, 0.26, 0.24, 180, 360), METAL)
        pen.stroke([(-0.1, -0.8), (0.1, -0.8)], 0.06, DARK)
        for side in (-1, 1):
            pen.stroke([(side * 0.4, 0.5), (side * 0.55, 0.9)], 0.1, DARK)
    sides = {"octagonal": 8, "round": 40, "square": 4}[look["case"]]

    def rim(r):
        return [b for _, b in spokes(0, 0.05, 0, r, sides, math.pi / sides)]

    grow = 1.2 if sides == 4 else 1.0
    pen.polygon(rim(0.72 * grow), paint)
    pen.polygon(rim(0.58 * grow), CREAM)
    for a, b in spokes(0, 0.05, 0.42, 0.5, 12 if look["marks"] == "twelve marks" else 4):
        pen.stroke([a, b], 0.06, DARK)
    pen.stroke([(0, 0.05), (0.02, -0.33)], 0.07, accent)
    pen.stroke([(0, 0.05), (0.27, 0.18)], 0.08, accent)
    pen.oval(0, 0.05, 0.07, 0.07, accent)


def bottle(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    body = {"slim": [(-0.12, -0.6), (0.12, -0.6), (0.14, -0.3), (0.3, -0.05), (0.3, 0.9), (-0.3, 0.9), (-0.3, -0.05), (-0.14, -0.3)],
            "broad": [(-0.15, -0.6), (0.15, -0.6), (0.15, -0.35), (0.55, -0.2), (0.55, 0.9), (-0.55, 0.9), (-0.55, -0.2), (-0.15, -0.35)],
            "pear-shaped": [(-0.12, -0.6), (0.12, -0.6), *arc(0, 0.4, 0.55, 0.52, -65, 245)]}[look["body"]]  # fmt: skip
    pen.polygon(body, paint)
    cap = {"corked": (WOOD, 0.1, -0.78), "capped": (accent, 0.17, -0.76), "sprayed": (accent, 0.12, -0.82)}[look["top"]]
    pen.box(-cap[1], cap[2], cap[1], -0.58, cap[0])
    if look["top"] == "sprayed":
        pen.polygon([(-0.34, -0.95), (0.16, -0.95), (0.16, -0.78), (-0.1, -0.78)], accent)
    label = {"square": rounded(-0.25, 0.2, 0.25, 0.65), "oval": arc(0, 0.42, 0.25, 0.3),
             "diamond": [(0, 0.1), (0.26, 0.42), (0, 0.74), (-0.26, 0.42)]}[look["label"]]  # fmt: skip
    pen.polygon(label, CREAM)
    pen.polygon([(x * 0.5, 0.42 + (y - 0.42) * 0.5) for x, y in label], accent)


def umbrella(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    foot = arc(0.14, 0.75, 0.14, 0.16, 180, 0) if look["handle"] == "curved" else [(0, 0.7), (0, 0.9)]
    pen.stroke([(0, -0.7), (0, 0.7), *foot], 0.07, WOOD)
    count = {"four": 4, "six": 6}[look["panels"]]
    top = arc(0, 0.1, 0.92, 0.85, 180, 360)
    edge = [p for i in range(count) for p in arc(0.92 - (2 * i + 1) * 0.92 / count, 0.1, 0.92 / count, 0.16, 0, -180)]
    canopy = top + edge
    pen.polygon(canopy, paint)
    if look["pattern"] == "panelled":
        for i in range(0, count, 2):
            left = -0.92 + i * 1.84 / count
            pen.polygon([(0, -0.74), (left + 1.84 / count, 0.06), (left, 0.06)], accent)
    else:
        pen.pattern(canopy, look["pattern"], accent, 0.3)
    pen.stroke([(0, -0.9), (0, -0.74)], 0.06, accent)


def backpack(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    for side in (-1, 1):
        pen.stroke([(side * 0.3, -0.75), (side * 0.72, -0.3), (side * 0.62, 0.6)], 0.12, shaded(paint, 0.7))
    pen.stroke(arc(0, -0.75, 0.18, 0.18, 180, 360), 0.08, DARK)
    pen.polygon(rounded(-0.6, -0.75, 0.6, 0.85, 0.35 if look["shape"] == "round" else 0.1), paint)
    flap = {"straight": rounded(-0.58, -0.72, 0.58, -0.2, 0.2), "pointed": [(-0.58, -0.6), (0.58, -0.6), (0.5, -0.3), (0, 0.0), (-0.5, -0.3)],
            "curved": [(-0.58, -0.62), (0.58, -0.62), *arc(0, -0.45, 0.56, 0.4, 0, 180)]}[look["flap"]]  # fmt: skip
    pen.polygon(flap, accent)
    for x in (-0.26, 0.26) if look["pockets"] == "two pockets" else (0,):
        pen.box(x - 0.22, 0.25, x + 0.22, 0.7, shaded(paint, 0.85), 0.08)
        pen.stroke([(x - 0.16, 0.36), (x + 0.16, 0.36)], 0.05, CREAM)
