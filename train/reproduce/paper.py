"""Relative gains of reflective training beside those that the paper prints for Flux. They are never the same measure: other
worlds, judges, feature spaces and numbers of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from realrag.interval_text import with_interval

from ..meta_analysis import Z
from ..stats import json_row, relative_change
from .endpoints import PRIMARY, Verdicts

# What the paper prints for Flux: accuracy, the mean of Cars, Dogs and Flowers (tables 2, 4, 5); FID and CLIP-I on Cars (1, 3).
PAPER = {
    "accuracy": {"none": 37.29, "normal": 39.27, "reflective": 40.37},
    "FID": {"none": 58.47, "normal": 54.04, "reflective": 52.28},
    "CLIP-I": {"none": 60.50, "normal": 61.72, "reflective": 62.81},
}
OVER = ("normal", "none")
NOTE = (
    "**Never the same measure**: the paper's CLIP and FID are of another encoder, its accuracy is CLIP's on real classes, and "
    "its figures have no intervals. Here they are the first judge's, over all classes, which weigh alike; intervals resample "
    "classes. FID falls where pictures get better."
)
FROM_POINTS = (
    "A file of before 2026-11-30 has no intervals of relative gains. Of it, accuracy over normal has the paired difference's "
    "interval divided by Normal's accuracy; accuracy over none has the two arms' own intervals taken as independent, which is "
    "too wide for paired arms; FID and CLIP-I have none."
)
Row = Sequence[float | None]


def relative_gains(found: Verdicts, pictures: Mapping) -> dict[str, dict[str, list[float | None]]]:
    """{measure: {arm: [relative gain of reflective over that arm, low, high]}}. pictures: the judge's report."""
    rows: dict[str, dict[str, list[float | None]]] = {measure: {} for measure in PAPER}
    for arm in OVER:
        if {PRIMARY[0], arm} <= found.right.keys():
            one, two = (found.right[name][:, found.even].mean(0) for name in (PRIMARY[0], arm))
            rows["accuracy"][arm] = json_row(relative_change(one, two, found.classes[found.even]), 6)
        for measure, row in pictures.get("relative", {}).get(f"{PRIMARY[0]} / {arm}", {}).items():
            rows[measure][arm] = row
    return rows


def from_points(measure: str, arms: Mapping[str, Row], difference: Row | None = None) -> dict[str, list[float | None]]:
    """The same from the figures of each arm, [value] or [value, low, high], where a file holds nothing better.

    Over Normal, accuracy has the interval of the paired difference divided by Normal's accuracy. Otherwise the arms' own
    intervals are taken as independent, which is too wide for paired arms."""
    found: dict[str, list[float | None]] = {}
    reflective = arms.get(PRIMARY[0])
    for arm in OVER if reflective else ():
        if not (other := arms.get(arm)) or not other[0]:
            continue
        value = reflective[0] / other[0] - 1
        if measure == "accuracy" and arm == PRIMARY[1] and difference:
            found[arm] = [value, difference[1] / other[0], difference[2] / other[0]]
        elif len(reflective) == len(other) == 3 and reflective[0] > 0:
            error = math.hypot(*((row[2] - row[1]) / (2 * Z * row[0]) for row in (reflective, other)))
            found[arm] = [value, *((value + 1) * math.exp(side * Z * error) - 1 for side in (-1, 1))]
        else:
            found[arm] = [value, None, None]
    return found


def paper_row(measure: str, over: str) -> float:
    of = PAPER[measure]
    return of[PRIMARY[0]] / of[over] - 1


def fraction_of_gain(arms: Mapping[str, float]) -> str:
    """The fraction of the gain over none that Normal lacks, as text; "-" if an arm is missing or nothing was gained."""
    if not {"none", *PRIMARY} <= arms.keys() or arms[PRIMARY[0]] == arms["none"]:
        return "-"
    none, normal, reflective = (arms[name] for name in ("none", "normal", "reflective"))
    return f"{(reflective - normal) / (reflective - none):.0%}"


def table(
    columns: Mapping[str, tuple[Mapping[str, Mapping[str, Row]], Mapping[str, Mapping[str, float]]]],
) -> list[str]:
    """Markdown lines. columns: title -> (relative gains as `relative_gains` gives them, {measure: {arm: value}})."""
    rows = [
        f"| relative gain of reflective | the paper | {' | '.join(columns)} |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for measure in PAPER:
        for over in OVER:
            cells = [gains.get(measure, {}).get(over) for gains, _ in columns.values()]
            own = ("-" if cell is None or cell[0] is None else with_interval(cell, "+.1%") for cell in cells)
            rows.append(f"| {measure}, over {over} | {paper_row(measure, over):+.1%} | {' | '.join(own)} |")
        own = (fraction_of_gain(points.get(measure, {})) for _, points in columns.values())
        there = fraction_of_gain(PAPER[measure])
        rows.append(f"| {measure}, share of the gain over none that normal lacks | {there} | {' | '.join(own)} |")
    return rows
