"""Birds, fish, butterflies and flowers of the procedural world."""

from __future__ import annotations

import math

from .pen import CREAM, DARK, Color, Look, Pen, arc, shaded, spokes

LEAF = (70, 130, 60)


def bird(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    tail = {"forked": [(0.4, 0.1), (1.0, -0.1), (0.75, 0.18), (1.0, 0.42)],
            "fanned": [(0.4, 0.1), *arc(0.5, 0.15, 0.48, 0.4, -50, 50)],
            "long": [(0.4, 0.0), (1.0, 0.5), (0.9, 0.62), (0.3, 0.25)]}[look["tail"]]  # fmt: skip
    pen.polygon(tail, shaded(paint, 0.7))
    for x in (-0.1, 0.12):
        pen.stroke([(x, 0.5), (x, 0.85), (x - 0.14, 0.9)], 0.05, (190, 130, 50))
    pen.polygon(arc(0.05, 0.15, 0.6, 0.42), paint)
    pen.polygon(arc(-0.25, 0.22, 0.3, 0.28), accent, False)
    beak = {"short": [(-0.72, -0.42), (-0.92, -0.34), (-0.7, -0.26)], "long": [(-0.7, -0.42), (-1.0, -0.1), (-0.66, -0.26)],
            "hooked": [(-0.7, -0.46), (-0.98, -0.42), (-0.95, -0.16), (-0.7, -0.24)]}[look["beak"]]  # fmt: skip
    pen.polygon(beak, (225, 160, 40))
    if look["head"] == "crested":
        pen.polygon([(-0.5, -0.6), (-0.35, -1.0), (-0.25, -0.7), (-0.05, -0.9), (-0.25, -0.45)], accent)
    pen.oval(-0.46, -0.36, 0.3, 0.28, paint)
    pen.oval(-0.56, -0.42, 0.07, 0.07, CREAM)
    pen.oval(-0.57, -0.42, 0.035, 0.035, DARK, False)
    pen.polygon(arc(0.2, 0.1, 0.34, 0.22), shaded(paint, 0.75))


def fish(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    deep = 0.55 if look["body"] == "deep-bodied" else 0.3
    tail = {
        "forked": [(0.5, 0), (1.0, -0.5), (0.78, 0), (1.0, 0.5)],
        "rounded": [(0.5, 0), *arc(0.75, 0, 0.24, 0.4, -90, 90)],
    }
    pen.polygon(tail[look["tail"]], accent)
    pen.polygon([(-0.3, -deep * 0.8), (0.1, -deep - 0.3), (0.35, -deep * 0.6)], accent)
    body = arc(-0.12, 0, 0.76, deep)
    pen.polygon(body, paint)
    count = {"plain": 0, "two-striped": 2, "four-striped": 4}[look["stripes"]]
    for i in range(count):
        x = -0.3 + (i + 0.5) * 0.76 / count
        half = deep * math.sqrt(max(0.0, 1 - ((x + 0.12) / 0.76) ** 2)) * 0.94
        pen.box(x - 0.055, -half, x + 0.055, half, accent, outline=False)
    pen.polygon([(-0.2, 0.05), (0.1, 0.02), (0.05, 0.26)], shaded(paint, 0.75))
    pen.oval(-0.62, -0.08, 0.1, 0.1, CREAM)
    pen.oval(-0.64, -0.08, 0.05, 0.05, DARK, False)


def butterfly(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    for side in (-1, 1):
        upper = {"round": arc(0.5, -0.35, 0.45, 0.42), "pointed": [(0.05, -0.1), (0.95, -0.8), (0.8, 0.05)]}[
            look["wings"]
        ]
        lower = arc(0.38, 0.38, 0.34, 0.36)
        if look["hind wings"] == "tailed":
            lower = [(0.05, 0.1), (0.7, 0.15), (0.62, 0.55), (0.7, 0.98), (0.48, 0.72), (0.1, 0.5)]
        for wing in (upper, lower):
            pen.polygon([(side * x, y) for x, y in wing], paint)
        count = {"one": 1, "two": 2, "three": 3}[look["spots"]]
        for i in range(count):
            pen.oval(side * (0.3 + 0.2 * i), -0.22 - 0.12 * i, 0.09, 0.09, accent)
        pen.oval(side * 0.4, 0.38, 0.13, 0.13, accent)
        pen.stroke([(0, -0.45), (side * 0.22, -0.85)], 0.035, DARK)
    pen.polygon(arc(0, 0.05, 0.09, 0.55), DARK)


def flower(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    pen.stroke([(0, 0), (0.03, 0.95)], 0.09, LEAF)
    for side in (-1, 1) if look["leaves"] == "two leaves" else (1,):
        pen.polygon([(0.02, 0.75), (side * 0.3, 0.42), (side * 0.6, 0.5), (side * 0.35, 0.72)], LEAF)
    count = {"five": 5, "eight": 8, "twelve": 12}[look["petals"]]
    for a, b in spokes(0, -0.3, 0.1, 0.6, count, 0.3):
        dx, dy = b[0] - a[0], b[1] - a[1]
        wide = 0.55 * math.sin(math.pi / count) * 1.2
        across = (-dy / 0.5 * wide, dx / 0.5 * wide)
        middle = (a[0] + dx * 0.6, a[1] + dy * 0.6)
        if look["tips"] == "pointed":
            petal = [
                a,
                (middle[0] + across[0], middle[1] + across[1]),
                (b[0], b[1]),
                (middle[0] - across[0], middle[1] - across[1]),
            ]
        else:
            turn = math.atan2(dy, dx)
            petal = [(middle[0] + 0.3 * math.cos(t) * math.cos(turn) - wide * math.sin(t) * math.sin(turn),
                      middle[1] + 0.3 * math.cos(t) * math.sin(turn) + wide * math.sin(t) * math.cos(turn))
                     for t in (math.pi * 2 * i / 18 for i in range(18))]  # fmt: skip
        pen.polygon(petal, paint)
    pen.oval(0, -0.3, 0.2, 0.2, accent)
