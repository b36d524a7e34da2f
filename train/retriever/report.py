"""The figures of a run as one HTML file that needs nothing beside it: tables, curves, bars by class, and contact sheets
of what each arm answers to a prompt."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from realrag.bundle.bundle import Bundle
from realrag.encoders.reflective_head import ReflectiveHead
from realrag.files import write_atomic
from realrag.interval_text import span
from realrag.references import letterbox

from ..charts import bars, lines
from ..contrastive.tuned_encoder import TunedVectors
from ..dataset import Prompt
from ..retrieval_metrics import MEASURES, ranked_rows
from .evaluate import CONTROLS, REFLECTIVE, Questions, arm_scores
from .projection import projection

SHOWN_PROMPTS, SHOWN_PHOTOS, SHOWN_CLASSES, CELL = 8, 6, 30, 96
RIGHT, DRAWN, OTHER = (30, 150, 60), (220, 130, 20), (190, 190, 190)
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}td,th{padding:2px 9px;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}.s{color:#777}.warn{background:#fff3d6;padding:.6em 1em}img{max-width:100%}"""


def write_html(
    path: Path,
    report: dict,
    asked: Questions,
    arms: dict[str, Sequence[ReflectiveHead | TunedVectors | None]],
    gallery: Bundle,
    prompts: Sequence[Prompt],
    histories: dict[str, list[dict]],
) -> None:
    """report: of `evaluate`, with its "facts". The sheets show the first seed of each arm. gallery: the bundle whose
    rows `asked.photos` are. histories: {arm: entries of fit.json}."""
    facts = report.get("facts", {})
    generator = str((facts.get("generator") or {}).get("name", "not stated"))
    parts = [f"<h1>Reflective retriever: what it finds</h1><p>Generator: <b>{html.escape(generator)}</b></p>"]
    if generator.startswith("stand-in"):
        parts.append(
            '<p class="warn">No generator drew anything here. A stand-in altered photos of the library, and of a '
            "sibling class for the classes it was told not to know. These figures say nothing about a real one.</p>"
        )
    parts += [
        _facts(facts, report),
        "<h2>Figures</h2>",
        _arms_table(report),
        "<h2>Differences</h2>",
        _differences_table(report),
    ]
    parts += [
        "<h2>Training, first seed</h2>",
        *_curves(histories),
        "<h2>mAP by class</h2>",
        _by_class(report, asked, prompts),
    ]
    if (shown := projection(asked, arms, prompts, _shown_first(report, asked))) is not None:
        parts += ["<h2>Vectors before and after a head</h2>", picture(shown[0], "photos and prompts in a plane"),
                  f'<p class="s">{shown[1]}</p>']  # fmt: skip
    parts += [
        "<h2>First answers</h2>",
        '<p>The prompts that the first arm answers worst. Frame: <span style="color:#1e963c">right class</span>, '
        '<span style="color:#dc8214">what the generator draws already</span>, grey: another class.</p>',
    ]
    parts += _sheets(_shown_first(report, asked)[:SHOWN_PROMPTS], asked, arms, gallery, prompts)
    write_atomic(path, page("RealRAG report", parts))


def page(title: str, parts: Sequence[str]) -> bytes:
    """A page that loads nothing and runs nothing."""
    safe = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{safe}"><title>{title}</title>'
    return f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>".encode()


def picture(image, text: str, kind: str = "PNG") -> str:
    """A picture inside the page."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{html.escape(text)}" src="data:image/{kind.lower()};base64,{data}"></p>'


def _facts(facts: dict, report: dict) -> str:
    mining = (facts.get("mining") or {}).get("reflective") or {}
    known = mining.get("known_share")
    rows = [
        ("Encoder", facts.get("encoder")), ("Trained", facts.get("mode")), ("Gallery photos", facts.get("gallery_photos")), ("Prompts", facts.get("prompts")),
        ("Drawings a prompt", facts.get("drawings_a_prompt")), ("Real-versus-drawn AUC", facts.get("imagine")),
        ("Prompts whose nearest photo to the drawing was of the true class", None if known is None else f"{known:.1%}"),
        ("First ten answers lost by the fast index", _share(report.get("ann_loss"))), ("Library", facts.get("library")),
    ]  # fmt: skip
    cells = (f"<tr><td>{name}</td><td>{html.escape(str(value))}</td></tr>" for name, value in rows if value is not None)
    return f"<table>{''.join(cells)}</table>"


def _share(value: float | None) -> str:
    return "no fast index was made" if value is None else f"{value:.2%}"


def _arms_table(report: dict) -> str:
    measures = [*MEASURES, *REFLECTIVE]
    rows = ["<tr><th>arm</th><th>prompts</th><th>seeds</th>" + "".join(f"<th>{m}</th>" for m in measures) + "</tr>"]
    for split, count in report["splits"].items():
        for arm, facts in report["arms"].items():
            row = facts["splits"].get(split, {})
            cells = "".join(
                f'<td title="{span(row[m])}">{row[m][0]:.3f}</td>' if m in row else "<td></td>" for m in measures
            )
            rows.append(
                f'<tr><td>{arm} <span class="s">{split}</span></td><td>{count}</td><td>{facts["seeds"]}</td>{cells}</tr>'
            )
    return f'<table>{"".join(rows)}</table><p class="s">Point at a figure for its 95 % interval over classes.</p>'


def _differences_table(report: dict) -> str:
    rows = [
        "<tr><th>pair</th><th>split</th><th>measure</th><th>difference</th><th>95 % interval</th><th>seeds above 0</th></tr>"
    ]
    for pair, splits in report["differences"].items():
        for split, row in splits.items():
            for m in ("R@1", "mAP", *REFLECTIVE):
                if m in row:
                    above = f"{row[m][3]}" if len(row[m]) > 3 else ""
                    cells = (
                        f"<td>{split}</td><td>{m}</td><td>{row[m][0]:+.3f}</td><td>{span(row[m])}</td><td>{above}</td>"
                    )
                    rows.append(f"<tr><td>{html.escape(pair)}</td>{cells}</tr>")
    return f'<table>{"".join(rows)}</table><p class="s">Paired by prompt, classes resampled. Where 0 lies inside, nothing is shown.</p>'


def _curves(histories: dict[str, list[dict]]) -> list[str]:
    titles = {
        "loss": "mean loss by epoch (arms have different negatives: not comparable)",
        "held_out_r1": "held-out R@1 by epoch",
    }
    titles["gap"] = "score of the photo less that of the negative, by epoch"
    found = []
    for key, title in titles.items():
        series = {arm: [entry[key] for entry in entries if key in entry] for arm, entries in histories.items()}
        if series := {arm: values for arm, values in series.items() if values}:
            found.append(picture(lines(series, title), title))
    return found or ["<p>No arm was trained.</p>"]


def _shown_first(report: dict, asked: Questions) -> list[int]:
    """Prompts in the order they are shown: those of unseen classes, then of their siblings, then the others; in each
    the ones that the first arm answers worst come first, as there is most to see. No other arm has a say in it."""
    splits, first = asked.splits(), next(iter(report["arms"].values()))["by_class"]["mAP"]
    parts = (np.flatnonzero(splits[name]) for name in ("unseen", "sibling", "seen") if name in splits)
    return [int(p) for part in parts for p in sorted(part, key=lambda p: (first[p], p))]


def _by_class(report: dict, asked: Questions, prompts: Sequence[Prompt]) -> str:
    rows = []
    for p in _shown_first(report, asked)[:SHOWN_CLASSES]:
        mark = "* " if asked.siblings[p] >= 0 else ""
        values = {arm: facts["by_class"]["mAP"][p] for arm, facts in report["arms"].items() if arm not in CONTROLS}
        rows.append((mark + prompts[p].class_name, {arm: value or 0.0 for arm, value in values.items()}))
    return picture(bars(rows, "mAP; * the generator draws something else"), "mAP by class")


def _sheets(shown: list[int], asked: Questions, arms: dict, gallery: Bundle, prompts: Sequence[Prompt]) -> list[str]:
    """One sheet a prompt: a row an arm, the first photos beside it."""
    from PIL import Image, ImageDraw

    ranked = {}
    for arm, heads in arms.items():
        ranked[arm] = ranked_rows(arm_scores(asked, heads[0])[shown])[:, :SHOWN_PHOTOS]
    sheets = []
    for at, p in enumerate(shown):
        sheet = Image.new("RGB", (90 + SHOWN_PHOTOS * (CELL + 10), len(arms) * (CELL + 10)), "white")
        draw = ImageDraw.Draw(sheet)
        for row, arm in enumerate(arms):
            draw.text((4, row * (CELL + 10) + CELL // 2), arm, (40, 40, 40))
            for column, photo in enumerate(ranked[arm][at]):
                left, top = 90 + column * (CELL + 10), row * (CELL + 10) + 4
                right = asked.photo_classes[photo] == asked.query_classes[p]
                drawn = (asked.drawn is not None and asked.drawn[p, photo]) or asked.photo_classes[
                    photo
                ] == asked.siblings[p]
                draw.rectangle(
                    [left - 3, top - 3, left + CELL + 2, top + CELL + 2], RIGHT if right else DRAWN if drawn else OTHER
                )
                image = gallery.image(gallery.records[int(photo)], "thumbnails")
                sheet.paste(letterbox(image, (CELL, CELL)), (left, top))
        sheets.append(f"<h3>{html.escape(prompts[p].prompt)}</h3>" + picture(sheet, prompts[p].prompt, "JPEG"))
    return sheets
