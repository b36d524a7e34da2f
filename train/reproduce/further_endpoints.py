"""What was registered on 2026-11-30 beside the first two endpoints: two more with Holm's correction, and the mechanism.

The paper says that a reflective negative helps where the generator's own drawing is wrong. `mechanism` asks whether the gain
of a class grows with how wrong it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..significance import holm, p_value, slope
from ..stats import json_row
from .endpoints import FURTHER, PRIMARY, SPLIT, Verdicts, difference, gains

LEVEL = 0.05


def further_endpoints(found: Verdicts, same_sign: float, standing: bool) -> list[dict]:
    """One row for each endpoint of FURTHER: {"endpoint", "difference", "seeds_above", "seeds", "p", "corrected",
    "conclusion"}; none if an arm is missing, as the correction counts both.

    same_sign: the least fraction of seeds that must agree. standing: whether all gates passed."""
    if not {arm for pair in FURTHER for arm in pair} <= found.right.keys():
        return []
    rows, p = [], [p_value(*gains(found, *pair, SPLIT)) for pair in FURTHER]
    for pair, value, corrected in zip(FURTHER, p, holm(p), strict=True):
        row = difference(found, *pair, SPLIT)
        said = further_conclusion(row, corrected, same_sign) if standing else "no verdict: a gate failed"
        rows.append({"endpoint": " - ".join(pair), **row, "p": value, "corrected": corrected, "conclusion": said})
    return rows


def further_conclusion(row: dict, corrected: float, same_sign: float) -> str:
    """In the registered words, and "reversed" for a difference below 0, as for the primary endpoint."""
    above = row["difference"][0] > 0
    agree = sum((value > 0) == above and value != 0 for value in row["by_seed"])
    if corrected >= LEVEL or agree < same_sign * row["seeds"]:
        return "not shown"
    return "holds" if above else "reversed"


def mechanism(found: Verdicts) -> list[dict]:
    """[{"over", "x", "classes", "slope": [slope, low, high]}], of the primary endpoint's gain of a class on how wrong the
    generator alone is there: its wrong pictures for all classes, and for those of U1 its distance from the real photos."""
    if "none" not in found.right:
        return []
    codes = np.unique(found.classes)
    of_class = {int(code): found.classes == code for code in codes}

    def mean(arm: str, code: int) -> float:
        return float(found.right[arm][:, of_class[code]].mean())

    gain = {code: mean(PRIMARY[0], code) - mean(PRIMARY[1], code) for code in of_class}
    unseen = [code for code in of_class if (found.splits[of_class[code]] == SPLIT).any()]
    wrong = {code: 1 - mean("none", code) for code in of_class}
    return [
        _slope("all", "fraction of wrong pictures without references", wrong, gain, list(of_class)),
        _slope(
            SPLIT, "distance of the mean picture without references from the mean real photo", found.far, gain, unseen
        ),
    ]


def _slope(over: str, what: str, x: dict[int, float], y: dict[int, float], codes: Sequence[int]) -> dict:
    found = slope(*(np.array([values[code] for code in codes]) for values in (x, y)))
    return {"over": over, "x": what, "classes": len(codes), "slope": json_row(found, 6)}
