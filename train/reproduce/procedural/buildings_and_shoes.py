"""Shoes, houses and lighthouses of the procedural world."""

from __future__ import annotations

from .pen import CREAM, DARK, GLASS, WOOD, Color, Look, Pen, arc, rounded, shaded


def shoe(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    top = {"high": -0.85, "middling": -0.45, "low": -0.15}[
        {"boot": "high", "trainer": "middling", "slipper": "low"}[look["cut"]]
    ]
    upper = [(0.3, top), (0.85, top), (0.88, 0.45), (-0.9, 0.45), *arc(-0.55, 0.4, 0.4, 0.36, 190, 270), (0.05, -0.02)]
    pen.polygon(upper, paint)
    pen.oval(0.58, top, 0.28, 0.07, shaded(paint, 0.5))
    if look["closing"] == "laced":
        for i in range(4):
            x, y = -0.35 + i * 0.15, 0.08 - i * 0.06
            pen.stroke([(x, y), (x + 0.14, y + 0.1)], 0.05, CREAM)
    else:
        pen.polygon([(-0.3, 0.05), (0.0, -0.02), (0.1, 0.4), (-0.15, 0.42)], shaded(paint, 0.6))
    for i in range({"one": 1, "two": 2, "three": 3}[look["stripes"]]):
        x = 0.25 + i * 0.17
        pen.polygon([(x, 0.0), (x + 0.09, 0.0), (x - 0.01, 0.42), (x - 0.1, 0.42)], accent, False)
    pen.box(-0.95, 0.44, 0.92, 0.6, accent, 0.07)


def house(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    if look["chimney"] == "with a chimney":
        pen.box(0.35, -0.95, 0.55, -0.3, (140, 80, 64))
    pen.box(-0.7, -0.2, 0.7, 0.85, paint)
    roof = {"gabled": [(-0.85, -0.15), (0, -0.85), (0.85, -0.15)], "flat": rounded(-0.82, -0.32, 0.82, -0.14),
            "hipped": [(-0.85, -0.15), (-0.4, -0.7), (0.4, -0.7), (0.85, -0.15)]}[look["roof"]]  # fmt: skip
    pen.polygon(roof, accent)
    pen.box(-0.15, 0.35, 0.15, 0.85, WOOD)
    for x in (-0.45, 0.45) if look["windows"] == "two" else (-0.45, 0, 0.45):
        if look["panes"] == "arched":
            pen.polygon([(x - 0.14, 0.26), *arc(x, 0.06, 0.14, 0.14, 180, 360), (x + 0.14, 0.26)], GLASS)
        else:
            pen.box(x - 0.14, -0.04, x + 0.14, 0.24, GLASS)
            pen.stroke([(x, -0.04), (x, 0.24)], 0.03, CREAM)


def lighthouse(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    tower = [(-0.26, -0.4), (0.26, -0.4), (0.42, 0.85), (-0.42, 0.85)]
    pen.polygon(tower, CREAM)
    pen.pattern(tower, look["pattern"], accent, 0.42 if look["pattern"] == "banded" else 0.28)
    pen.box(-0.36, -0.48, 0.36, -0.38, DARK)
    pen.box(-0.2, -0.72, 0.2, -0.48, (250, 226, 120))
    top = {"domed": arc(0, -0.7, 0.26, 0.24, 180, 360), "pointed": [(-0.28, -0.7), (0, -1.0), (0.28, -0.7)],
           "flat": rounded(-0.28, -0.8, 0.28, -0.7)}[look["top"]]  # fmt: skip
    pen.polygon(top, shaded(paint, 0.8))
    for y in (-0.15, 0.3) if look["windows"] == "two windows" else (0.05,):
        pen.box(-0.07, y, 0.07, y + 0.18, DARK)
    if look["annex"] == "with a cottage":
        pen.box(0.3, 0.5, 0.95, 0.85, paint)
        pen.polygon([(0.25, 0.52), (0.62, 0.22), (1.0, 0.52)], accent)
