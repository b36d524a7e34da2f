"""The figures of `judge` as one HTML file that loads nothing: tables, and sheets of each prompt under every arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from realrag.bundle.bundle import Bundle
from realrag.contact_sheet import Cell, Layout, Row, sheet
from realrag.files import write_atomic
from realrag.photos.decode import decode, read_bytes

from ..dataset import class_key, photo_classes
from ..pages.render import picture_url, render
from ..pictures.arms import Picture
from ..stats import FEWEST
from .metrics import ordered
from .table import MEASURES, notes

if TYPE_CHECKING:
    from PIL import Image

SHOWN, CELL = 12, 150


def write_page(path: Path, reports: dict[str, dict], arms: dict[str, list[Picture]], real: Bundle) -> None:
    """reports: {encoder: result of `judge`}. The sheets show the first seed of prompts spread evenly over all."""
    encoders = []
    for name, report in reports.items():
        measures = [m for m in MEASURES if any(m in row for row in report["arms"].values())]
        encoders.append((name, report, measures, notes(report)))
    arms = {name: arms[name] for name in ordered(arms)}
    sheets = [
        (prompt, picture_url(arms_sheet(arms, real, [prompt]), "JPEG")) for prompt in spread(prompts_of(arms), SHOWN)
    ]
    write_atomic(path, render("judge.html", encoders=encoders, fewest=FEWEST, sheets=sheets))


def prompts_of(arms: dict[str, list[Picture]]) -> list[str]:
    return list(dict.fromkeys(painted.prompt for painted in next(iter(arms.values()))))


def arms_sheet(
    arms: dict[str, list[Picture]], real: Bundle, prompts: Sequence[str], cell: int = CELL, titles: bool = False
) -> Image.Image:
    """One row per prompt: a real photo of its class, then the first picture of each arm. titles: the prompt above it."""
    photos: dict[str, int] = {}
    for row, name in enumerate(photo_classes(real)):
        photos.setdefault(class_key(name), row)
    any_arm = next(iter(arms.values()))
    first: dict[str, int] = {}
    for at, painted in enumerate(any_arm):
        first.setdefault(painted.prompt, at)
    rows = []
    for prompt in prompts:
        at = first[prompt]
        pictures = [real.image(real.records[photos[class_key(any_arm[at].class_name)]])]
        pictures += [decode(read_bytes(each[at].file), each[at].file.name) for each in arms.values()]
        rows.append(Row([Cell(picture) for picture in pictures], prompt if titles else ""))
    return sheet(rows, Layout(cell, left=0, caption=0, gap=8), ["real photo", *arms])


def spread(items: Sequence, most: int) -> list:
    """At most `most` of the items, spread evenly."""
    return [items[i * len(items) // most] for i in range(most)] if len(items) > most else list(items)
