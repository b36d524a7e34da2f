"""Plots as PIL pictures, drawn with Pillow alone: lines over epochs, and bars by class."""

from __future__ import annotations

from collections.abc import Sequence

INK, FAINT, PAPER = (40, 40, 40), (205, 205, 205), (255, 255, 255)
COLOURS = {
    "zero": (120, 120, 120),
    "normal": (38, 110, 180),
    "hard": (200, 120, 20),
    "reflective": (190, 30, 70),
    "random": (200, 200, 200),
}


def _fonts():
    from PIL import ImageFont

    try:
        return ImageFont.load_default(13)
    except TypeError:  # Pillow before 10.1 knows one size
        return ImageFont.load_default()


def lines(series: dict[str, Sequence[float]], title: str, size: tuple[int, int] = (520, 300)):
    """One line a name over 1, 2, 3 ...; names are those of COLOURS. Values must be finite."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(image), _fonts()
    left, top, right, bottom = 64, 34, size[0] - 110, size[1] - 34
    values = [value for each in series.values() for value in each]
    low, high = min(values, default=0.0), max(values, default=1.0)
    high = high if high > low else low + 1
    longest = max((len(each) for each in series.values()), default=1)

    def at(step: int, value: float) -> tuple[float, float]:
        across = step / (longest - 1) if longest > 1 else 0.5
        return left + across * (right - left), bottom - (value - low) / (high - low) * (bottom - top)

    draw.text((left, 8), title, INK, font)
    for share in (0, 0.5, 1):
        value = low + share * (high - low)
        y = at(0, value)[1]
        draw.line([(left, y), (right, y)], FAINT)
        draw.text((6, y - 7), f"{value:.3f}", INK, font)
    for step in sorted({0, longest // 2, longest - 1}):
        draw.text((at(step, low)[0] - 4, bottom + 6), str(step + 1), INK, font)
    for row, (name, each) in enumerate(series.items()):
        points = [at(step, value) for step, value in enumerate(each)]
        colour = COLOURS.get(name, INK)
        if len(points) > 1:
            draw.line(points, colour, 2)
        for x, y in points:
            draw.ellipse([x - 2, y - 2, x + 2, y + 2], colour)
        draw.text((right + 10, top + 18 * row), name, colour, font)
    return image


def bars(rows: Sequence[tuple[str, dict[str, float]]], title: str, width: int = 760):
    """One group of bars a row, values 0..1: [(label, {name: value})]."""
    from PIL import Image, ImageDraw

    names = list(rows[0][1]) if rows else []
    step = 8 * len(names) + 8
    image = Image.new("RGB", (width, 64 + step * len(rows)), PAPER)
    draw, font = ImageDraw.Draw(image), _fonts()
    left, right = 210, width - 20
    draw.text((8, 8), title, INK, font)
    for at, name in enumerate(names):
        draw.text((left + 110 * at, 28), name, COLOURS.get(name, INK), font)
    for share in (0, 0.5, 1):
        x = left + share * (right - left)
        draw.line([(x, 48), (x, image.height - 8)], FAINT)
    for number, (label, values) in enumerate(rows):
        top = 54 + step * number
        draw.text((8, top + step / 2 - 12), label if len(label) < 28 else label[:26] + "...", INK, font)
        for at, (name, value) in enumerate(values.items()):
            end = left + max(0.0, min(1.0, value)) * (right - left)
            draw.rectangle([left, top + 8 * at, max(left + 1, end), top + 8 * at + 6], COLOURS.get(name, INK))
    return image
