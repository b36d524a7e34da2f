"""The primary endpoint where the library ranks by name, or by name and look together.

A library of a person has names. A gain that goes away where names count is one for libraries without names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from realrag.bundle.bundle import Bundle
from realrag.encoders.base import Encoder
from realrag.encoders.reflective_head import ReflectiveHead
from realrag.search.hybrid import LOOK

from ..dataset import Prompt
from ..pictures.choose_references import CHOICES, choose, write_choices
from .endpoints import PRIMARY, SPLIT, Verdicts, arm_of, difference
from .reference_controls import describe

HELD_OUT = (SPLIT, "U2")


def folder_of(parent: Path, by: str) -> Path:
    """Of one ranking's choices or tables, beside those by look."""
    return parent / f"by-{by}"


def choose_by(
    rankings: Sequence[str], out: Path, library: Bundle, encoder: Encoder, prompts: Sequence[Prompt],
    heads: dict[str, ReflectiveHead | None], gallery: Bundle, k: int,
) -> None:  # fmt: skip
    """Writes the choices of the primary endpoint's arms for prompts of held-out classes, under each ranking."""
    asked = {name: head for name, head in heads.items() if arm_of(name) in PRIMARY}
    for by in rankings:
        lines = choose(library, encoder, prompts, asked, controls=(), gallery=gallery, k=k, find_by=by)
        write_choices(folder_of(out, by), lines, library)


def compare_rankings(
    rankings: Sequence[str], choices: Path, by_look: Verdicts, verdicts: Callable[[str], Verdicts],
    world: dict[str, tuple[str, str]],
) -> list[dict]:  # fmt: skip
    """[{"by", "split", "difference", ..., "right": {arm: fraction of right references}}], the ranking by look first.

    verdicts: ranking -> the judge's answers."""
    rows = []
    for by in (LOOK, *rankings) if rankings else ():
        found = by_look if by == LOOK else verdicts(by)
        right = describe((choices if by == LOOK else folder_of(choices, by)) / CHOICES, world)
        for split in HELD_OUT:
            if (found.splits == split).any():
                shown = {arm: right[arm][split]["right"] for arm in PRIMARY if split in right.get(arm, {})}
                rows.append({"by": by, "split": split, **difference(found, *PRIMARY, split), "right": shown})
    return rows
