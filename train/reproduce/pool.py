"""The primary endpoint of several worlds taken together, as registered: their fixed-effect mean and Cochran's Q."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from realrag.errors import RealRAGError
from realrag.interval_text import with_interval

from ..meta_analysis import FEWEST_RANDOM, Pooled, pool
from .published import PAIR, Published

NO_VERDICT, HOLDS, REVERSED = "no verdict", "the claim holds here", "reversed"
TWO_WORLDS = (
    "Two worlds say nothing of how worlds vary: they give no honest prediction interval, and none is printed. The interval is "
    "of the mean over these worlds' classes, not of what a third world would show."
)


def pool_worlds(experiments: Sequence[Published]) -> tuple[list[Published], Pooled]:
    """The experiments that count, and their mean: those without a verdict are left out. RealRAGError if two share a world,
    or if fewer than two count."""
    counted = [each for each in experiments if not each.conclusion.startswith(NO_VERDICT)]
    worlds = Counter(each.world for each in counted)
    if shared := [world for world, count in worlds.items() if count > 1]:
        names = ", ".join(each.name for each in counted if each.world == shared[0])
        raise RealRAGError(
            f"{names} are of one world ({shared[0]}): they share its classes, so they are not independent. Give one of them."
        )
    if len(counted) < 2:
        raise RealRAGError(
            f"{len(counted)} of {len(experiments)} experiments has a verdict; pooling needs two or more worlds whose gates passed."
        )
    return counted, pool([each.primary[0] for each in counted], [each.error for each in counted])


def taken_together(conclusions: Sequence[str]) -> str:
    """The registered rule: where worlds disagree, "not shown" is said."""
    for start, said in ((HOLDS, "the claim holds in every world"), (REVERSED, "reversed in every world")):
        if all(each.startswith(start) for each in conclusions):
            return said
    return "not shown: the worlds do not agree that it holds"


def pool_report(experiments: Sequence[Published]) -> list[str]:
    """Markdown lines."""
    counted, found = pool_worlds(experiments)
    lines = [f"# Pooled: {PAIR} on U1", "", "| experiment | world | painter | classes | difference | standard error | by itself |",
             "|---" * 7 + "|"]  # fmt: skip
    for each in experiments:
        left_out = "" if each in counted else " (left out)"
        lines.append(
            f"| {each.name}{left_out} | {each.world} | {each.painter} | {each.classes} | {with_interval(each.primary, '+.4f')} | "
            f"{each.error:.4f} | {each.conclusion.split(':')[0]} |"
        )
    lines += [
        "", f"- **By the registered rule: {taken_together([each.conclusion for each in counted])}.**",
        f"- Fixed-effect mean, weighted by inverse variance: **{with_interval(found.fixed, '+.4f')}**, standard error {found.error:.4f}.",
        f"- Heterogeneity: Cochran's Q {found.q:.3f} with {len(counted) - 1} degrees of freedom, p {found.p:.3f}; "
        f"I² {found.i2:.0%}.",
    ]  # fmt: skip
    if found.random is None:
        lines.append(f"- {TWO_WORLDS}")
    else:
        lines.append(
            f"- Random-effects mean (Paule-Mandel, Hartung-Knapp): **{with_interval(found.random, '+.4f')}**, standard deviation "
            f"between worlds {found.tau2**0.5:.4f}."
        )
    painters = {each.painter for each in counted}
    if len(painters) > 1:
        lines.append(f"- The painters differ ({', '.join(sorted(painters))}), so world and painter are not told apart.")
    return [
        *lines,
        "",
        f"Standard errors are half an interval's width by 1.96; a random-effects mean needs {FEWEST_RANDOM} worlds.",
    ]
