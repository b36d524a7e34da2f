"""Reads the results of finished experiments: results.json, or the Markdown that `run` wrote beside it.

The Markdown has four digits, no row by class and seed, and no standard error; so every standard error is taken from the
interval here, of either file: half its width by the normal distribution's 97.5 % point."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from realrag.errors import RealRAGError
from realrag.files import read_bounded

from ..meta_analysis import Z
from .config import find_world, read_plan
from .endpoints import PRIMARY, SPLIT
from .paper import PAPER, from_points
from .report import world_of

MAX_RESULTS = 1 << 26  # bytes
NUMBER = r"[-+]?\d+(?:\.\d+)?"
INTERVAL = re.compile(rf"({NUMBER})(%?)(?: \(({NUMBER})%? to ({NUMBER})%?\))?$")
PAIR = " - ".join(PRIMARY)
CONTROLS = ("none", "oracle", "shuffled")  # painted for the gates


@dataclass(frozen=True)
class Published:
    """One experiment as its deciding judge saw it. primary: [mean, low, high] of the endpoint on U1. classes: of U1.
    arms: {measure: {arm: [value] or [value, low, high]}} over all classes. relative: as `relative_gains` gives it. sets:
    {arm: different sets of references a U1 prompt}. noises: pictures of a U1 prompt and arm. painted: distinct pictures.
    by_class_and_seed (C, S): the endpoint's difference; None where the file holds none."""

    name: str
    world: str
    painter: str
    conclusion: str
    primary: list[float]
    classes: int
    arms: dict[str, dict[str, list[float]]]
    relative: dict[str, dict[str, list[float | None]]]
    sets: dict[str, float]
    noises: int
    painted: int
    by_class_and_seed: np.ndarray | None = field(default=None, compare=False)

    @property
    def error(self) -> float:
        """The standard error of the primary endpoint."""
        return (self.primary[2] - self.primary[1]) / (2 * Z)

    @property
    def spread(self) -> float:
        """The standard deviation of the classes' differences, as the interval implies it."""
        return self.error * math.sqrt(self.classes)

    @property
    def points(self) -> dict[str, dict[str, float]]:
        return {measure: {arm: row[0] for arm, row in rows.items()} for measure, rows in self.arms.items()}


def read_published(path: Path) -> Published:
    """RealRAGError if the file is no result of `reproduce run`."""
    read: Callable[[str, Path], Published] = _from_json if path.suffix == ".json" else _from_markdown
    try:
        found = read(read_bounded(path, MAX_RESULTS).decode(), path)
    except OSError as error:
        raise RealRAGError(
            f"{path} cannot be read ({error}). Give results.json or results.md of `reproduce run`."
        ) from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise RealRAGError(
            f"{path} is no result of `reproduce run` ({type(error).__name__} {error}). Give its results.json or results.md."
        ) from None
    if (
        not all(math.isfinite(each) for each in found.primary)
        or found.primary[2] < found.primary[1]
        or found.classes < 1
    ):
        raise RealRAGError(f"{path} has the primary endpoint {found.primary}, which is no mean with its interval.")
    return found


def _from_json(text: str, path: Path) -> Published:
    results: dict[str, Any] = json.loads(text)
    judge, *_ = results["judges"].values()  # the first decides
    row, rows = judge["differences"][PAIR][SPLIT], judge.get("by class and seed")
    arms = {"accuracy": {arm: each["accuracy"] for arm, each in judge["accuracy"]["all"].items()}}
    pictures = judge["pictures"]["arms"]
    arms |= {m: {arm: each[m] for arm, each in pictures.items() if m in each} for m in PAPER if m != "accuracy"}
    return Published(
        _name(path), world_of(results), results["painted"]["painter"]["name"], judge["conclusion"], row["difference"],
        sum(row["classes"]), arms, judge.get("relative") or _relative(arms, judge["differences"][PAIR]["all"]["difference"]),
        {arm: each[SPLIT]["sets"] for arm, each in results["references"].items() if SPLIT in each},
        results["plan"]["experiment"]["unseen_noises"], results["painted"]["painted"], np.array(rows, float) if rows else None,
    )  # fmt: skip


def _from_markdown(text: str, path: Path) -> Published:
    judge = text[text.index("## Judge") :].split("\n## ")[0]
    differences = {(row[0].split(" (")[0], row[1]): row for row in _table(judge, "difference in accuracy")}
    arms = {"accuracy": {row[0]: _row(row[1]) for row in _table(judge, "accuracy") if not row[0].startswith("real")}}
    head, *rows = _table(judge, "first seed", heading=True)
    for measure in PAPER:
        if measure in head:
            cells = {row[0]: row[head.index(measure)] for row in rows if not row[0].startswith("real")}
            arms[measure] = {arm: [float(cell)] for arm, cell in cells.items() if cell != "-"}
    primary, over_all = differences[PAIR, SPLIT], differences[PAIR, "all"]
    if len(primary) < 6:
        raise ValueError("its table of differences does not count classes above, equal and below 0")
    relative = _relative(arms, _difference(over_all))
    for row in _table(text, "relative gain of reflective"):
        measure, _, over = row[0].partition(", over ")
        if over and row[2] != "-":
            cell = _row(row[2])  # the value has more digits behind it than the arms' own
            relative[measure][over] = cell if len(cell) == 3 else [*cell, *relative[measure].get(over, [None] * 3)[1:]]
    counts = re.search(r"- References a prompt: .* on U1 (\d+)\.", text)
    painter = re.search(r"- Painter: (.*); \d+ pictures of all arms, (\d+) of them distinct\.", text)
    said = re.search(r"^\*\*(.*)\*\*$", judge, re.MULTILINE)
    if not (counts and painter and said):
        raise ValueError("its head lacks the number of pictures, the painter or the conclusion")
    return Published(
        _name(path), _world(text), painter[1], said[1], _difference(primary), sum(map(int, primary[5].split(","))), arms, relative,
        {row[0]: float(row[-1]) for row in _table(text, "arm") if row[-1] != "-"}, int(counts[1]), int(painter[2]),
    )  # fmt: skip


def _name(path: Path) -> str:
    return path.parent.name if path.stem == "results" and path.parent.name else path.stem


def _world(text: str) -> str:
    """The line of the head; files written before there was one say which plan they ran."""
    if stated := re.search(r"^- World: (.*)\.$", text, re.MULTILINE):
        return stated[1]
    if not (ran := re.search(r"`reproduce run ([\w-]+)", text)):
        raise ValueError("it does not state its world")
    return f"procedural, seed {read_plan(find_world(ran[1])).world.seed}"


def _relative(arms: Mapping[str, Mapping], difference: Sequence[float]) -> dict[str, dict[str, list[float | None]]]:
    return {measure: from_points(measure, arms.get(measure, {}), difference) for measure in PAPER}


def _table(text: str, first: str, heading: bool = False) -> list[list[str]]:
    """The rows below the header whose first cell is `first`; with `heading`, that row too."""
    lines = text.splitlines()
    at = next((i for i, line in enumerate(lines) if line.startswith(f"| {first} |")), None)
    if at is None:
        return [[]] if heading else []
    end = next((i for i in range(at, len(lines)) if not lines[i].startswith("|")), len(lines))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[at:end]]
    return [rows[0], *rows[2:]] if heading else rows[2:]


def _row(cell: str) -> list[float]:
    """ "0.1 (0.0 to 0.2)" or "+1.0% (-1.0% to +3.0%)" -> [value, low, high]; [value] where there is no interval."""
    found = INTERVAL.match(cell)
    if not found:
        raise ValueError(f"{cell!r} is no figure")
    scale = 100 if found[2] else 1
    return [float(each) / scale for each in (found[1], found[3], found[4]) if each is not None]


def _difference(row: Sequence[str]) -> list[float]:
    """A row of the table of differences -> [mean, low, high]."""
    low, high = row[3].split(" to ")
    return [float(row[2]), float(low), float(high)]
