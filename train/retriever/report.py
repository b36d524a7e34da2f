"""The figures of a run as one HTML file that loads nothing: tables, curves, bars by class, and contact sheets of what
each arm answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realrag.bundle.bundle import Bundle
from realrag.contact_sheet import Cell, Layout, Row, sheet
from realrag.encoders.reflective_head import ReflectiveHead
from realrag.files import write_atomic

from ..charts import NoCharts, bars, chart, lines
from ..contrastive.tuned_encoder import TunedVectors
from ..dataset import Prompt
from ..pages.render import picture_url, render
from ..retrieval_metrics import MEASURES, ranked_rows
from ..stats import FEWEST
from .evaluate import CONTROLS, REFLECTIVE, Questions, arm_scores
from .projection import projection
from .verdict import NAMES, in_folder
from .verdict import verdict as find_verdict

if TYPE_CHECKING:
    from PIL import Image

SHOWN_PROMPTS, SHOWN_PHOTOS, SHOWN_CLASSES = 8, 6, 30
RIGHT, DRAWN, OTHER = (30, 150, 60), (220, 130, 20), (190, 190, 190)  # frames, as the page explains them
LAYOUT = Layout(cell=96, left=90, caption=0, gap=10)
CURVES = {
    "loss": "mean loss by epoch (arms have different negatives: not comparable)",
    "validation_map": "mAP on the validation photos by epoch; the best epoch is kept",
    "held_out_r1": "held-out R@1 by epoch",
    "gap": "score of the photo less that of the negative, by epoch",
}
CHANGED = ("reflective", "utility", "hard", "normal")  # whose changes the sheets show, if the arm is there
Arms = dict[str, Sequence[ReflectiveHead | TunedVectors | None]]


def write_html(
    path: Path,
    report: dict,
    asked: Questions,
    arms: Arms,
    gallery: Bundle,
    prompts: Sequence[Prompt],
    histories: dict[str, list[dict]],
) -> None:
    """report: the result of `evaluate`, with its "facts". gallery: the bundle whose rows `asked.photos` are.
    histories: {arm: entries of fit.json}. The sheets show the first seed of each arm."""
    metadata, order = report.get("facts", {}), _shown_first(report, asked)
    verdict = report.get("verdict") or find_verdict(report).as_json()
    changed_arm = next((arm for arm in CHANGED if arm in arms), next(iter(arms)))
    plane, note = projection(asked, arms, prompts, order) or (None, "")
    page = render(
        "report.html",
        report=report,
        verdict={
            **verdict,
            "next": [in_folder(step, "", ", beside this report,") for step in verdict["next"]],
        },
        summary=_summary(report),
        tested=_tested(metadata),
        intervals=next(iter(report["arms"].values()))["splits"]["all"]["mAP"][1] is not None,
        bad=metadata.get("bad_named", []),
        changed_arm=NAMES.get(changed_arm, changed_arm),
        generator=str((metadata.get("generator") or {}).get("name", "not stated")),
        metadata=_metadata(metadata, report),
        measures=[*MEASURES, *REFLECTIVE],
        compared=["R@1", "mAP", *REFLECTIVE],
        fewest=FEWEST,
        curves=_curves(histories),
        by_class=_by_class(report, asked, prompts, order),
        plane=plane and shown("photos and prompts in a plane", plane),
        plane_note=note,
        sheets=_sheets(_changed(report, asked, changed_arm, order), asked, arms, gallery, prompts, report, changed_arm),
    )
    write_atomic(path, page)


def shown(text: str, draw: Callable[[], Image.Image]) -> dict[str, str]:
    """A chart for a template: {"text", "url"}. Without matplotlib the text says what to install, and there is no url."""
    try:
        return {"text": text, "url": picture_url(draw())}
    except NoCharts as error:
        return {"text": str(error), "url": ""}


def _metadata(metadata: dict, report: dict) -> list[tuple[str, Any]]:
    known = ((metadata.get("mining") or {}).get("reflective") or {}).get("known_share")
    lost = report.get("ann_loss")
    rows = [
        ("Photos trained on", metadata.get("library_photos")), ("Validation photos", metadata.get("validation_photos")),
        ("Drawings left out", metadata.get("bad_drawings")), ("Encoder", metadata.get("encoder")), ("Trained", metadata.get("mode")), ("Gallery photos", metadata.get("gallery_photos")),
        ("Prompts", metadata.get("prompts")), ("Drawings a prompt", metadata.get("drawings_a_prompt")),
        ("Real-versus-drawn AUC", metadata.get("imagine")),
        ("Prompts whose nearest photo to the drawing was of the true class", None if known is None else f"{known:.1%}"),
        ("First ten answers lost by the fast index", "no fast index was made" if lost is None else f"{lost:.2%}"),
        ("Library", metadata.get("library")),
    ]  # fmt: skip
    return [(name, value) for name, value in rows if value is not None]


def _summary(report: dict) -> list[dict[str, Any]]:
    """One row per arm for the table that everybody reads."""
    selection = report.get("selection", {})
    rows = []
    for arm, each in report["arms"].items():
        row = each["splits"].get("all", {})
        if not row:
            continue
        held = [values["mAP"] for name, values in selection.get("validation", {}).items()
                if (name.rpartition("-")[0] or name) == arm]  # fmt: skip
        against = report["differences"].get(f"{arm} - zero", {}).get("all", {}).get("mAP")
        shipped = selection.get("shipped", "").rpartition("-")[0] == arm
        shipped |= arm == "zero" and selection.get("shipped") == "" and selection.get("by_validation", False)
        rows.append({
            "name": {"zero": "plain encoder"}.get(arm, arm), "first": row["R@1"][0], "mean": row["mAP"][0], "against": against,
            "validation": max(held) if held else None, "shipped": shipped,
        })  # fmt: skip
    return rows


def _tested(metadata: dict) -> str:
    if metadata.get("gallery_is_library"):
        return "Measured on the photos that were trained on."
    counts = [metadata.get(f"{name}_photos") for name in ("library", "validation", "gallery")]
    if None in counts:
        return ""
    return (
        f"Trained on {counts[0]} photos; {counts[1]} others chose the head and its epoch; measured on {counts[2]} that "
        "neither saw, once."
    )


def _changed(report: dict, asked: Questions, arm: str, order: list[int]) -> list[int]:
    """The prompts whose mAP changed most against the plain encoder: gains first, then losses. Without that arm, the first
    of `order`."""
    if "zero" not in report["arms"] or arm == "zero":
        return order[:SHOWN_PROMPTS]
    before, after = (report["arms"][name]["by_class"]["mAP"] for name in ("zero", arm))
    change = {p: (after[p] or 0.0) - (before[p] or 0.0) for p in order}
    gains = sorted((p for p in order if change[p] > 0), key=lambda p: -change[p])[: SHOWN_PROMPTS // 2]
    losses = sorted((p for p in order if change[p] < 0), key=lambda p: change[p])[: SHOWN_PROMPTS - len(gains)]
    return gains + losses or order[:SHOWN_PROMPTS]


def _curves(histories: dict[str, list[dict]]) -> list[dict[str, str]]:
    found = []
    for key, title in CURVES.items():
        series = {arm: [entry[key] for entry in entries if key in entry] for arm, entries in histories.items()}
        if series := {arm: values for arm, values in series.items() if values}:
            found.append(shown(title, lambda s=series, t=title: chart([lambda axes: lines(axes, s, t)])))
    return found


def _shown_first(report: dict, asked: Questions) -> list[int]:
    """Prompts in the order they are shown: unseen classes, their siblings, then the others. In each group the prompts
    that the first arm answers worst come first, as they show most. No other arm influences the order."""
    splits, first = asked.splits(), next(iter(report["arms"].values()))["by_class"]["mAP"]
    parts = (np.flatnonzero(splits[name]) for name in ("unseen", "sibling", "seen") if name in splits)
    return [int(p) for part in parts for p in sorted(part, key=lambda p: (first[p], p))]


def _by_class(report: dict, asked: Questions, prompts: Sequence[Prompt], order: list[int]) -> dict[str, str]:
    rows = []
    for p in order[:SHOWN_CLASSES]:
        mark = "* " if asked.siblings[p] >= 0 else ""
        values = {arm: each["by_class"]["mAP"][p] for arm, each in report["arms"].items() if arm not in CONTROLS}
        rows.append((mark + prompts[p].class_name, {arm: value or 0.0 for arm, value in values.items()}))
    arms = len(rows[0][1]) if rows else 1
    size = 760, 90 + len(rows) * (9 * arms + 7)
    title = "mAP; * the generator draws something else"
    return shown("mAP by class", lambda: chart([lambda axes: bars(axes, rows, title)], size=size))


def _sheets(
    order: list[int],
    asked: Questions,
    arms: Arms,
    gallery: Bundle,
    prompts: Sequence[Prompt],
    report: dict,
    changed: str,
) -> list[tuple[str, str, str]]:
    """(prompt, data address, how its mAP changed) of one sheet per prompt: a row per arm with its first photos."""
    ranked = {arm: ranked_rows(arm_scores(asked, heads[0])[order])[:, :SHOWN_PHOTOS] for arm, heads in arms.items()}

    def cell(p: int, photo: int) -> Cell:
        drawn = asked.drawn is not None and asked.drawn[p, photo]
        drawn = drawn or asked.photo_classes[photo] == asked.siblings[p]
        right = asked.photo_classes[photo] == asked.query_classes[p]
        image = gallery.image(gallery.records[int(photo)], "thumbnails")
        return Cell(image, frame=RIGHT if right else DRAWN if drawn else OTHER)

    found = []
    for at, p in enumerate(order):
        rows = [Row([cell(p, photo) for photo in ranked[arm][at]], arm) for arm in arms]
        values = [report["arms"][arm]["by_class"]["mAP"][p] for arm in ("zero", changed) if arm in report["arms"]]
        told = f"mAP {values[0]:.2f} to {values[-1]:.2f}" if None not in values else ""
        found.append((prompts[p].prompt, picture_url(sheet(rows, LAYOUT), "JPEG"), told))
    return found
