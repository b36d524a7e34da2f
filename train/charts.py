"""Plots as PIL pictures, drawn with Pillow alone: lines over epochs, bars by class, and points in a plane."""

from __future__ import annotations

from collections.abc import Sequence

INK, FAINT, PAPER = (40, 40, 40), (205, 205, 205), (255, 255, 255)
COLOURS = {
    "zero": (120, 120, 120),
    "normal": (38, 110, 180),
    "hard": (200, 120, 20),
    "reflective": (190, 30, 70),
    "random": (200, 200, 200),
    "oracle": (30, 140, 70),
}
PALETTE = ((190, 30, 70), (38, 110, 180), (30, 140, 70), (200, 120, 20), (120, 70, 170), (90, 90, 90))


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


def ranges(points: Sequence[tuple[str, Sequence[float]]], title: str, level: float, size: tuple[int, int] = (300, 220)):
    """A point and its interval for each label: [(label, (mean, low, high))]; a line across at `level`, from 0 upwards."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(image), _fonts()
    left, top, right, bottom = 50, 34, size[0] - 14, size[1] - 34
    most = max([level, *(high for _, (_, _, high) in points)]) or 1.0

    def across(place):
        return left + (place + 0.5) / len(points) * (right - left)

    def up(value):
        return bottom - value / most * (bottom - top)

    draw.text((8, 8), title, INK, font)
    for value in (0, most / 2, most):
        draw.line([(left, up(value)), (right, up(value))], FAINT)
        draw.text((6, up(value) - 7), f"{value:.2f}", INK, font)
    draw.line([(left, up(level)), (right, up(level))], COLOURS["normal"])
    draw.line([(across(place), up(mean)) for place, (_, (mean, _, _)) in enumerate(points)], COLOURS["reflective"], 2)
    for place, (label, (mean, low, high)) in enumerate(points):
        x = across(place)
        draw.line([(x, up(low)), (x, up(high))], INK)
        draw.ellipse([x - 3, up(mean) - 3, x + 3, up(mean) + 3], COLOURS["reflective"])
        draw.text((x - 3 * len(label), bottom + 8), label[:14], INK, font)
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


def scatter(groups: Sequence[tuple], title: str, bounds, size: tuple[int, int] = (500, 400)):
    """groups: [(label, photos (N, 2), prompts (M, 2))], at most as many as PALETTE has colours. bounds: lowest and
    highest point, (2,) each; one unit is equally long both ways."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(image), _fonts()
    left, top, right, bottom = 12, 34, size[0] - 12, size[1] - 18 * ((len(groups) + 1) // 2) - 14
    (x_low, y_low), (x_high, y_high) = bounds
    scale = min((right - left - 16) / max(x_high - x_low, 1e-9), (bottom - top - 16) / max(y_high - y_low, 1e-9))
    x_mid, y_mid = (x_low + x_high) / 2, (y_low + y_high) / 2

    def at(point) -> tuple[float, float]:
        return (left + right) / 2 + scale * (point[0] - x_mid), (top + bottom) / 2 - scale * (point[1] - y_mid)

    draw.text((left, 8), title, INK, font)
    draw.rectangle([left, top, right, bottom], outline=FAINT)
    for (_, photos, _), colour in zip(groups, PALETTE, strict=False):
        for x, y in map(at, photos):
            draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], colour)
    for (_, _, prompts), colour in zip(groups, PALETTE, strict=False):
        for x, y in map(at, prompts):
            draw.polygon([(x - 7, y), (x, y - 7), (x + 7, y), (x, y + 7)], colour, INK)
    for number, ((label, _, _), colour) in enumerate(zip(groups, PALETTE, strict=False)):
        place = left + (right - left) // 2 * (number % 2), bottom + 8 + 18 * (number // 2)
        draw.text(place, label if len(label) < 34 else label[:32] + "...", colour, font)
    return image


def beside(images: Sequence, columns: int):
    """Pictures of one size on one sheet."""
    from PIL import Image

    width, height = images[0].size
    sheet = Image.new("RGB", (width * min(columns, len(images)), height * -(-len(images) // columns)), PAPER)
    for number, image in enumerate(images):
        sheet.paste(image, (number % columns * width, number // columns * height))
    return sheet
