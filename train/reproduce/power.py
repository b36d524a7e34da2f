"""What a number of classes can show: the classes, seeds and pictures that would settle an effect, from a finished
experiment's variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from realrag.errors import RealRAGError

from .published import CONTROLS, PAIR, PRIMARY, Published

EFFECTS = (0.005, 0.0075, 0.011, 0.02, 0.03)  # the paper's gains in accuracy are 0.5 to 1.1 points
CLASSES = (60, 120, 340, 620)  # one world, two pooled, and `extra` in [world] at 14 and at 28, its most
SEEDS = (1, 5, 20)
LEVEL, POWER = 0.05, 0.80
REACH = NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(POWER)  # in standard errors


@dataclass(frozen=True)
class Spread:
    """The variance of a class's difference: between classes, and what a seed adds within one. A file without rows by class
    and seed gives only their sum at its own number of seeds: then seeds is that of `between`, and within is None."""

    between: float
    within: float | None = None

    def of(self, seeds: float) -> float:
        """The standard deviation over classes with so many seeds averaged."""
        return math.sqrt(self.between + (self.within or 0.0) / seeds)


def spread_of(found: Published) -> Spread:
    rows = found.by_class_and_seed
    if rows is None or rows.shape[0] < 2 or rows.shape[1] < 2:
        return Spread(found.spread**2)
    within = float(rows.var(1, ddof=1).mean())
    return Spread(max(0.0, float(rows.mean(1).var(ddof=1)) - within / rows.shape[1]), within)


def classes_needed(spread: float, effect: float) -> int:
    """The classes at which an effect is told from 0 in 80 % of experiments, two-sided at 5 %."""
    return math.ceil((REACH * spread / effect) ** 2)


def smallest_effect(spread: float, classes: int) -> float:
    """The effect that so many classes show in 80 % of experiments."""
    return REACH * spread / math.sqrt(classes)


def pictures_a_class(found: Published) -> float:
    """Distinct pictures of one more class of U1: of the endpoint's two arms, and of the three that the gates ask for."""
    if missing := sorted(set(PRIMARY) - found.sets.keys()):
        raise RealRAGError(f"{found.name} does not state how many different sets of references {missing[0]} chose.")
    return found.noises * (sum(found.sets[arm] for arm in PRIMARY) + len(CONTROLS))


def power_report(found: Published, minutes: float = 0.0, effects: Sequence[float] = EFFECTS) -> list[str]:
    """Markdown lines. minutes: how long the painting of this experiment took; 0 for no hours."""
    if not found.spread:
        raise RealRAGError(
            f"{found.name}: no class differs between the arms, so nothing follows for other experiments."
        )
    if any(effect <= 0 for effect in effects):
        raise RealRAGError(
            f"Effects are {', '.join(map(str, effects))}; give differences above 0, such as 0.01 for a point."
        )
    spread, each = spread_of(found), pictures_a_class(found)
    # Where the file has no rows by class and seed, only its own number of seeds is known.
    seeds: list[float] = [1, *SEEDS[1:], math.inf] if spread.within is not None else [math.inf]
    titles = [_seeds(count) if spread.within is not None else "classes, with as many seeds" for count in seeds]
    lines = [
        f"# Power, from {found.name}: {PAIR} on U1", "",
        f"- The differences of {found.classes} classes have a standard deviation of {spread.of(_own_seeds(found)):.4f}.",
        f"- {found.classes} classes show an effect of {100 * smallest_effect(spread.of(_own_seeds(found)), found.classes):.1f} points "
        f"in {POWER:.0%} of experiments, two-sided at {LEVEL:.0%}.",
        f"- One more class is about {each:.0f} distinct pictures: of {' and '.join(PRIMARY)}, and of the three arms of the gates.",
    ]  # fmt: skip
    if spread.within is None:
        lines.append("- The file has no rows by class and seed, so what more seeds would give is not known.")
    else:
        part = spread.within / (spread.within + spread.between) if spread.within else 0.0
        lines.append(
            f"- Of one seed's variance {part:.0%} lies between seeds of a class; more seeds lessen that part alone."
        )
    rate = minutes / 60 / found.painted
    heads = [*titles, "pictures", *(["hours of painting"] if minutes else [])]
    lines += ["", f"| effect, points | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for effect in effects:
        needed = [classes_needed(spread.of(count), effect) for count in seeds]
        pictures = classes_needed(spread.of(_own_seeds(found)), effect) * each
        cells = [*(f"{count:,}" for count in needed), *_cost(pictures, rate, minutes)]
        lines.append(f"| {100 * effect:g} | {' | '.join(cells)} |")
    costs = heads[len(titles) :]
    lines += ["", f"| classes | effect shown, points | {' | '.join(costs)} |", "|---" * (2 + len(costs)) + "|"]
    for count in CLASSES:
        effect = smallest_effect(spread.of(_own_seeds(found)), count)
        lines.append(f"| {count} | {100 * effect:.1f} | {' | '.join(_cost(count * each, rate, minutes))} |")
    return [*lines, "", f"Pictures{' and hours' * bool(minutes)} are those of as many seeds as this experiment had."]


def _cost(pictures: float, rate: float, minutes: float) -> list[str]:
    return [f"{pictures:,.0f}", *([f"{pictures * rate:.1f}"] if minutes else [])]


def _own_seeds(found: Published) -> float:
    return found.by_class_and_seed.shape[1] if isinstance(found.by_class_and_seed, np.ndarray) else math.inf


def _seeds(count: float) -> str:
    return "classes, unlimited seeds" if count == math.inf else f"classes, {count:g} seed{'s' * (count != 1)}"
