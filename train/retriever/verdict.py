"""The verdict of a run in words: what is shown on photos that nothing was trained on, what is not, and what to do next.

One measure decides, mAP, the same in every run: it moves with every photo of a ranking. R@1, "the right class
first", is told beside it. A claim is shown where the 95 % interval over classes lies above 0 and the validation photos
agree.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from realrag.interval_text import with_interval

from ..stats import FEWEST

DECIDES, TOLD = "mAP", "R@1"
REFLECTIVE, NORMAL, PLAIN = "reflective", "normal", "zero"
RETRIEVER, LIBRARY = "`retriever`", "`library`"  # stand for those folders' paths, so that no report holds one
KEEP = (
    f"Keep the plain encoder: on the test photos it was not worse. Copy the folder {LIBRARY} to ComfyUI/models/realrag."
)
HIGH, LOW = 0.95, 2.0  # R@1 of the plain encoder with nothing left to learn; and times chance with nothing to refine
NAMES = {
    REFLECTIVE: "the reflective head", NORMAL: "plain training", PLAIN: "the plain encoder", "hard": "hard negatives",
    "utility": "training on measured utility", "reflective-ten": "ten reflective negatives",
}  # fmt: skip
TRAININGS = {**NAMES, REFLECTIVE: "reflective training", "hard": "training on hard negatives"}  # what a head comes from
UNSEEN = "on photos it had not seen, "


@dataclass(frozen=True)
class Verdict:
    """status: "shown" (what ships beat the plain encoder, and reflective training beat it and plain training), "helped"
    (what ships beat the plain encoder), "not shown", or "none" (the figures cannot say). headline: one to three sentences,
    first about what ships. shown, not_shown, next: sentences."""

    status: str
    headline: str
    shown: tuple[str, ...] = ()
    not_shown: tuple[str, ...] = ()
    next: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Claim:
    """What the test photos say of an arm, or of the one head that ships, against another arm. who: its name in a sentence.
    text: as a predicate, "found the right class first 3.1 points more often (0.4 to 5.8) than plain training". better,
    worse: the interval of the measure that decides lies above or below 0, and the validation photos do not disagree."""

    who: str
    text: str
    better: bool
    worse: bool

    def __str__(self) -> str:
        return f"{self.who} {self.text}"


def verdict(report: Mapping[str, Any]) -> Verdict:
    """report: the result of `evaluate` with its "facts", its "selection", and under "shipped" the differences of the one
    head or encoder that ships, in which it bears the name of the reflective arm."""
    metadata, selection, steps = report.get("facts", {}), report.get("selection", {}), next_steps(report)
    arm = next((name for name in (REFLECTIVE, "utility", "hard", NORMAL) if name in report["arms"]), PLAIN)
    if metadata.get("gallery_is_library"):
        return Verdict(
            "none", "No verdict: these figures are of the photos that were trained on, and say nothing about others.",
            next=("Run again without `parts = []`, or give test photos of their own: --test-photos FOLDER.",),
        )  # fmt: skip
    plain, normal = claim(report, arm, PLAIN), claim(report, arm, NORMAL)
    claims = [each for each in (normal, plain) if each is not None]
    if not claims:
        return Verdict("none", "No verdict: no trained arm was compared with another.", next=steps)
    if all(_row(report, arm, other)[DECIDES][1] is None for other in (NORMAL, PLAIN) if _row(report, arm, other)):
        return Verdict(
            "none", f"No verdict: the test photos are of fewer than {FEWEST} classes, too few for an interval.",
            next=("Give photos of more classes.", *steps),
        )  # fmt: skip
    own, average = shipped_claim(report), plain or claims[0]
    ships = own or average
    if selection and not selection.get("shipped"):
        status = "not shown"
        why = ": none was better than the plain encoder on the validation photos"
        why = why if selection.get("by_validation") else ", as the recipe asks"
        said = [f"No head ships{why}", f"On the test photos {average}"]
    elif not (plain and ships.better):
        status = "not shown"
        said = [
            f"{'Training made it worse' if ships.worse else 'It is not shown that training helped'}: {UNSEEN}{ships}"
        ]
    elif plain.better and normal and normal.better:
        status, said = (
            "shown",
            [f"{normal.who} {_joined([each.text for each in claims])}", *([str(own)] if own else [])],
        )
        said = said[::-1] if own and not selection["shipped"].startswith(f"{arm}-") else said  # what ships comes first
        said = [f"{UNSEEN.capitalize()}{said[0]}", *(each[0].upper() + each[1:] for each in said[1:])]
    else:
        status, said = "helped", [f"{UNSEEN.capitalize()}{ships}"]
        added = "the generator's drawings" if arm == REFLECTIVE else NAMES[arm]
        if normal and not normal.better:
            who = "it" if ships is average else normal.who
            said.append(f"That {added} helped is not shown: {who} {normal.text}")
        elif normal:
            said.append(f"On average {normal}, and {plain.text}")
    headline = "".join(f"{each}. " for each in said).strip()
    if status == "not shown" and selection.get("shipped"):
        steps = (KEEP, f"To try the head all the same: {steps[0][0].lower()}{steps[0][1:]}", *steps[1:])
    if str((metadata.get("generator") or {}).get("name", "")).startswith("stand-in"):
        headline += " A stand-in drew, so this says nothing about a real generator."
    lines = {
        better: tuple(str(each) for each in (*claims, own) if each is not None and each.better == better)
        for better in (True, False)
    }
    return Verdict(status, headline, lines[True], lines[False], steps)


def shipped_claim(report: Mapping[str, Any]) -> Claim | None:
    """Of the one head or encoder that ships, against the plain encoder. None where nothing ships, or where its figures are
    those of its arm, which has one seed."""
    row = report.get("shipped", {}).get(f"{REFLECTIVE} - {PLAIN}", {}).get("all", {})
    name = report.get("selection", {}).get("shipped", "")
    arm = name.rpartition("-")[0]
    if not row or (arm == REFLECTIVE and report["arms"].get(arm, {}).get("seeds", 1) == 1):
        return None
    what = "head" if report.get("facts", {}).get("mode", "head") == "head" else "encoder"
    return _claim(report, row, f"the {what} that ships ({name}, from {TRAININGS.get(arm, arm)})", PLAIN, True)


def claim(report: Mapping[str, Any], arm: str, other: str) -> Claim | None:
    """The mean of the arm's seeds against another arm. None where the two were not compared."""
    if arm == other or not (row := _row(report, arm, other)):
        return None
    return _claim(report, row, NAMES[arm], other, _validation_agrees(report, arm, other))


def _claim(report: Mapping[str, Any], row: Mapping[str, Any], who: str, other: str, agrees: bool) -> Claim:
    decides, told, than = row[DECIDES], row[TOLD], f"than {NAMES[other]}"
    better, worse = (_resolved(decides, sign) for sign in (1, -1))
    what = "the right class" if report.get("facts", {}).get("classes", True) else "the right photo"
    points = f"{abs(told[0]) * 100:.1f}"
    first = f"found {what} first {points} points {'more' if told[0] >= 0 else 'less'} often"
    spread = f"({told[1] * 100:.1f} to {told[2] * 100:.1f})" if told[1] is not None else ""
    if (better or worse) and not _resolved(told, 1 if better else -1):
        text = (
            f"ranked the right photos {'higher' if better else 'lower'} {than} (mAP {decides[0]:+.3f}, {decides[1]:+.3f} to "
            f"{decides[2]:+.3f}; {what} first {told[0] * 100:+.1f} points, {told[1] * 100:.1f} to {told[2] * 100:.1f})"
        )
    else:
        text = f"{first} {spread} {than}"
        if points == "0.0":
            text = f"found {what} first as often {spread} as {NAMES[other]}"
        if not (better or worse) and (_resolved(told, 1) or _resolved(told, -1)):
            text += f", but mAP, which decides, changed by {with_interval(decides, '+.3f')}"
        elif not (better or worse) and points != "0.0":
            text += ", which may be chance"
    if better and not agrees:
        text += ", but on the validation photos it did not"
    return Claim(who, " ".join(text.split()), better and agrees, worse)


def _row(report: Mapping[str, Any], arm: str, other: str) -> Mapping[str, Any]:
    return report["differences"].get(f"{arm} - {other}", {}).get("all", {})


def _resolved(row: list, sign: int) -> bool:
    """Whether the interval lies on that side of 0 as it is printed, with three digits: training on noise moves mAP by 0.0001
    with an interval that leaves out 0."""
    return row[1] is not None and (round(row[1], 3) > 0 if sign > 0 else round(row[2], 3) < 0)


def _validation_agrees(report: Mapping[str, Any], arm: str, other: str) -> bool:
    """Whether the arm's heads are better on the validation photos too, on average. True where there are none."""
    found: dict[str, list[float]] = {}
    for name, figures in report.get("selection", {}).get("validation", {}).items():
        found.setdefault(name.rpartition("-")[0] or name, []).append(figures[DECIDES])
    if arm not in found or other not in found:
        return True
    return sum(found[arm]) / len(found[arm]) > sum(found[other]) / len(found[other])


def _joined(texts: list[str]) -> str:
    """Two predicates as one; what the second repeats of the first is left out."""
    for begin in ("found the right class first ", "found the right photo first "):
        if all(text.startswith(begin) for text in texts):
            texts = [texts[0], *(text.removeprefix(begin) for text in texts[1:])]
    return " and ".join(texts)


def next_steps(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What to do now: which folder to copy where, and what would help."""
    metadata, selection = report.get("facts", {}), report.get("selection", {})
    shipped = selection.get("shipped", "")
    steps = []
    if shipped:
        how = (
            "the best on the validation photos" if selection.get("by_validation") else "not chosen on validation photos"
        )
        steps.append(
            f"Copy the folder {RETRIEVER} to ComfyUI/models/realrag, press R in ComfyUI, and choose it in Load Reflective Retriever. "
            f"Its head is {shipped}, {how}."
        )
    else:
        why = ": no head was better on the validation photos, so none ships"
        why = why if selection.get("by_validation") else ", as the recipe asks"
        steps.append(
            f"Keep the plain encoder{why}. Copy the folder {RETRIEVER} to ComfyUI/models/realrag: it holds your photos without "
            "a head."
        )
    plain = report["arms"].get(PLAIN, {}).get("splits", {}).get("all", {}).get(TOLD, [None])[0]
    chance = report["arms"].get("random", {}).get("splits", {}).get("all", {}).get(TOLD, [None])[0]
    if plain is not None and plain >= HIGH:
        steps.append(
            f"The plain encoder finds the right photo first for {plain:.0%} of the prompts: little is left to learn."
        )
    elif plain is not None and chance is not None and plain < LOW * chance:
        steps.append(
            f"The encoder {metadata.get('encoder', '')} hardly knows these names: it finds the right photo first for {plain:.1%}, "
            f"chance for {chance:.1%}. Take another, such as --encoder ViT-L-14:openai, or --mode text or lora."
        )
    return tuple(steps)


def as_text(found: Mapping[str, Any], folder: str) -> str:
    """The verdict for a terminal. folder: the run's, as a path that works there."""
    lines = ["", f"Verdict ({found['status']}): {found['headline']}"]
    lines += [f"Next: {in_folder(step, folder + os.sep)}" for step in found["next"]]
    return "\n".join(lines)


def in_folder(step: str, before: str, after: str = "") -> str:
    """A step with the folders as they are found: "out/retriever", or "retriever, beside this report,"."""
    return step.replace(RETRIEVER, f"{before}retriever{after}").replace(LIBRARY, f"{before}library{after}")
