"""Cars, buses, boats, aeroplanes and trains of the procedural world."""

from __future__ import annotations

from .pen import DARK, GLASS, METAL, Color, Look, Pen, arc, rounded, shaded, spokes

TIRE = (38, 38, 42)


def wheel(pen: Pen, x: float, y: float, r: float, kind: str) -> None:
    pen.oval(x, y, r, r, TIRE)
    if kind == "spoked":
        for a, b in spokes(x, y, 0, r * 0.75, 6):
            pen.stroke([a, b], 0.045, METAL)
    else:
        pen.oval(x, y, r * 0.62, r * 0.62, METAL)


def car(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    roof = {"hatchback": [(-0.55, -0.1), (-0.3, -0.5), (0.6, -0.5), (0.85, -0.1)],
            "saloon": [(-0.6, -0.1), (-0.3, -0.48), (0.3, -0.48), (0.58, -0.1)],
            "pickup": [(-0.5, -0.1), (-0.3, -0.5), (0.08, -0.5), (0.1, -0.1)]}[look["body"]]  # fmt: skip
    pen.polygon(roof, paint)
    inner = [(x * 0.84 + 0.02, y * 0.8 - 0.02) for x, y in roof]
    pen.polygon(inner, GLASS)
    middle = (roof[1][0] + roof[2][0]) / 2
    pen.stroke([(middle, -0.44), (middle, -0.1)], 0.05, paint)
    pen.box(-0.95, -0.12, 0.95, 0.32, paint, 0.1)
    if look["body"] == "pickup":
        pen.box(0.14, -0.1, 0.9, 0.04, DARK)
    pen.box(-0.94, 0.06, 0.94, 0.18, accent, outline=False)
    if look["roof"] == "with a roof rack":
        pen.box(roof[1][0], -0.62, roof[2][0], -0.55, DARK)
        for x in (roof[1][0] + 0.06, roof[2][0] - 0.06):
            pen.stroke([(x, -0.56), (x, -0.48)], 0.05, DARK)
    for x in (-0.55, 0.55):
        wheel(pen, x, 0.34, 0.24, look["wheels"])
    pen.oval(-0.88, 0.0, 0.06, 0.08, (250, 240, 180))


def bus(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    top = -0.75 if look["decks"] == "double-deck" else -0.32
    pen.box(-0.95, top, 0.95, 0.5, paint, 0.12)
    rows = [-0.2] if top > -0.5 else [-0.62, -0.12]
    for y in rows:
        for i in range(5):
            x = -0.78 + i * 0.34
            if look["windows"] == "round":
                pen.oval(x + 0.1, y + 0.13, 0.12, 0.12, GLASS)
            else:
                pen.box(x, y, x + 0.25, y + 0.26, GLASS)
    for i in range(2 if look["stripes"] == "two stripes" else 1):
        pen.box(-0.94, 0.2 + i * 0.13, 0.94, 0.28 + i * 0.13, accent, outline=False)
    for x in (-0.55, 0.58):
        wheel(pen, x, 0.52, 0.2, "disc")


def boat(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    hull = [(-0.9, 0.35), (0.9, 0.35), (0.6, 0.75), (-0.6, 0.75)]
    if look["hull"] == "round-hulled":
        hull = arc(0, 0.35, 0.88, 0.45, 0, 180)
    pen.polygon(hull, paint)
    pen.stroke([(0, 0.35), (0, -0.85)], 0.06, (120, 84, 50))
    sail = (244, 242, 232)
    sails = {"one": [[(0.06, -0.75), (0.06, 0.25), (0.75, 0.25)]],
             "two": [[(0.06, -0.75), (0.06, 0.25), (0.75, 0.25)], [(-0.06, -0.6), (-0.06, 0.25), (-0.7, 0.25)]],
             "square": [[(-0.6, -0.6), (0.6, -0.6), (0.68, 0.2), (-0.68, 0.2)]]}[look["sails"]]  # fmt: skip
    for each in sails:
        pen.polygon(each, sail)
        if look["cloth"] == "striped":
            pen.pattern(each, "banded", accent, 0.3)
    pen.polygon([(0, -0.95), (0.34, -0.86), (0, -0.76)], accent)


def aeroplane(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    pen.polygon(rounded(-0.95, -0.14, 0.8, 0.14, 0.14), paint)
    pen.polygon([(0.5, -0.12), (0.72, -0.6), (0.95, -0.6), (0.85, 0.0)], accent)
    if look["tail"] == "high":
        pen.box(0.55, -0.66, 1.0, -0.56, paint)
    else:
        pen.polygon([(0.55, 0.0), (0.98, -0.12), (0.98, 0.04)], paint)
    for i in range(5):
        pen.oval(-0.55 + i * 0.22, -0.04, 0.05, 0.05, GLASS)
    pen.polygon([(-0.92, -0.06), (-0.75, -0.13), (-0.75, 0.0)], GLASS)
    slant = 0.35 if look["wings"] == "swept" else 0.0
    wing = [(-0.25, 0.05), (0.2, 0.05), (0.15 + slant, 0.62), (-0.1 + slant, 0.62)]
    pen.polygon(wing, shaded(paint, 0.85))
    for y in (0.25, 0.48) if look["engines"] == "four" else (0.34,):
        x = -0.2 + slant * (y - 0.05) / 0.57
        pen.box(x - 0.16, y - 0.06, x + 0.14, y + 0.06, METAL, 0.05)
        pen.stroke([(x - 0.18, y - 0.13), (x - 0.18, y + 0.13)], 0.035, DARK)


def train(pen: Pen, look: Look, paint: Color, accent: Color) -> None:
    pen.box(-0.85, -0.2, 0.45, 0.3, paint, 0.2)
    pen.box(0.3, -0.62, 0.85, 0.3, paint)
    pen.box(0.24, -0.72, 0.92, -0.6, accent)
    pen.box(0.42, -0.48, 0.74, -0.16, GLASS)
    funnel = {"straight": [(-0.65, -0.2), (-0.65, -0.65), (-0.45, -0.65), (-0.45, -0.2)],
              "flared": [(-0.6, -0.2), (-0.75, -0.68), (-0.35, -0.68), (-0.5, -0.2)]}[look["funnel"]]  # fmt: skip
    pen.polygon(funnel, DARK)
    if look["dome"] == "a dome":
        pen.polygon(arc(-0.1, -0.18, 0.16, 0.2, 180, 360), METAL)
    pen.box(-0.9, 0.26, 0.92, 0.38, accent)
    count = int({"two": 2, "three": 3, "four": 4}[look["wheels"]])
    for i in range(count):
        wheel(pen, -0.65 + i * 1.3 / (count - 1), 0.5, 0.2, "spoked")
    pen.polygon([(-0.88, 0.38), (-1.0, 0.68), (-0.7, 0.6)], DARK)
