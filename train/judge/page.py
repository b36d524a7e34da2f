"""The figures of `judge` as one HTML file that needs nothing beside it: tables, and sheets of prompt x arm."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from realrag.bundle.bundle import Bundle
from realrag.files import write_atomic
from realrag.interval_text import with_interval
from realrag.photos.decode import decode, read_bytes
from realrag.references import letterbox

from ..dataset import class_key, photo_classes
from ..pictures.arms import Picture
from ..retriever.report import page, picture
from .metrics import ordered
from .table import MEASURES, notes

SHOWN, CELL = 12, 150


def write_page(path: Path, reports: dict[str, dict], arms: dict[str, list[Picture]], real: Bundle) -> None:
    """reports: {encoder: of `judge`}. The sheets show the first seed of prompts spread evenly over all."""
    parts = ["<h1>Painted pictures, arm by arm</h1>"]
    for name, report in reports.items():
        parts.append(f"<h2>{html.escape(name)}</h2>")
        if report["facts"]["retrievers_own"]:
            parts.append('<p class="warn">This is the encoder that the references were retrieved with. It shares the '
                         "retriever's blind spots: judge with another one too.</p>")  # fmt: skip
        parts += [_figures(report), "".join(f'<p class="s">{html.escape(note)}</p>' for note in notes(report))]
        parts += ["<h3>Differences</h3>", _differences(report)]
    parts += ["<h2>Side by side</h2>", *_sheets(arms, real)]
    write_atomic(path, page("RealRAG: painted pictures", parts))


def _measures(report: dict) -> list[str]:
    return [m for m in MEASURES if any(m in row for row in report["arms"].values())]


def _figures(report: dict) -> str:
    measures = _measures(report)
    rows = ["<tr><th>arm</th>" + "".join(f"<th>{m}</th>" for m in measures) + "</tr>"]
    for name, row in {"real photos": report["real"], **report["arms"]}.items():
        cells = "".join(
            f'<td title="{with_interval(row[m], "+.4f")}">{row[m][0]:.3f}</td>' if m in row else "<td></td>"
            for m in measures
        )
        rows.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    return f'<table>{"".join(rows)}</table><p class="s">Point at a figure for its 95 % interval over classes.</p>'


def _differences(report: dict) -> str:
    measures = _measures(report)
    rows = ["<tr><th>pair</th>" + "".join(f"<th>{m}</th>" for m in measures) + "</tr>"]
    for pair, row in report["differences"].items():
        cells = (_difference(row[m]) if m in row else "<td></td>" for m in measures)
        rows.append(f"<tr><td>{html.escape(pair)}</td>{''.join(cells)}</tr>")
    said = (
        "Paired by prompt and seed, classes resampled; bold where 0 lies outside. None is corrected for their number."
    )
    return f'<table>{"".join(rows)}</table><p class="s">{said}</p>'


def _difference(row: Sequence[float | None]) -> str:
    mean, low, high = row
    if low is None:
        return f"<td>{mean:+.3f}</td>"
    kind = "b" if low > 0 or high < 0 else "span"
    bounds = f'<span class="s">{low:+.3f} to {high:+.3f}</span>'
    return f'<td style="white-space:nowrap"><{kind}>{mean:+.3f}</{kind}><br>{bounds}</td>'


def _sheets(arms: dict[str, list[Picture]], real: Bundle) -> list[str]:
    """One sheet a prompt: a real photo of its class, then each arm."""
    prompts, arms = spread(prompts_of(arms), SHOWN), {name: arms[name] for name in ordered(arms)}
    return [
        f"<h3>{html.escape(prompt)}</h3>" + picture(contact_sheet(arms, real, [prompt]), prompt, "JPEG")
        for prompt in prompts
    ]


def prompts_of(arms: dict[str, list[Picture]]) -> list[str]:
    return list(dict.fromkeys(painted.prompt for painted in next(iter(arms.values()))))


def contact_sheet(
    arms: dict[str, list[Picture]], real: Bundle, prompts: Sequence[str], cell: int = CELL, named: bool = False
):
    """One row a prompt: a real photo of its class, then the first picture of each arm. named: with the prompt above it."""
    from PIL import Image, ImageDraw

    photos: dict[str, int] = {}
    for row, name in enumerate(photo_classes(real)):
        photos.setdefault(class_key(name), row)
    names, any_arm = list(arms), next(iter(arms.values()))
    first: dict[str, int] = {}
    for at, painted in enumerate(any_arm):
        first.setdefault(painted.prompt, at)
    wide, high = cell + 8, cell + 2 + 18 * named
    sheet = Image.new("RGB", ((len(names) + 1) * wide, 20 + len(prompts) * high), "white")
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(["real photo", *names]):
        draw.text((column * wide + 4, 4), label[:24], (40, 40, 40))
    for row, prompt in enumerate(prompts):
        at, top = first[prompt], 20 + row * high
        pictures = [real.image(real.records[photos[class_key(any_arm[at].class_name)]])]
        pictures += [decode(read_bytes(arms[name][at].file), arms[name][at].file.name) for name in names]
        if named:
            draw.text((4, top + 2), prompt, (40, 40, 40))
        for column, image in enumerate(pictures):
            sheet.paste(letterbox(image, (cell, cell)), (column * wide + 4, top + 18 * named))
    return sheet


def spread(items: Sequence, most: int) -> list:
    """At most `most` of the items, spread evenly."""
    return [items[i * len(items) // most] for i in range(most)] if len(items) > most else list(items)
