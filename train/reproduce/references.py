"""Wrong references as a control, and how often each arm's references were right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..pictures.arms import class_key
from .endpoints import arm_of


def shuffled(oracle: Sequence[dict]) -> list[dict]:
    """The oracle's lines of `choose`, each prompt with the references of the next: as good, but of another class."""
    return [{**line, "arm": "shuffled", "references": other["references"]}
            for line, other in zip(oracle, [*oracle[1:], oracle[0]])]  # fmt: skip


def right_references(choices: Path, world: dict[str, tuple[str, str]]) -> dict[str, dict[str, float]]:
    """{arm: {split: share of its references that are of the prompt's class}}, the seeds of an arm together."""
    splits = {class_key(name): split for name, (_, split) in world.items()}
    right: dict[str, dict[str, list[bool]]] = {}
    for text in choices.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        each = right.setdefault(arm_of(line["arm"]), {}).setdefault(splits[class_key(line["class"])], [])
        each += [class_key(reference["class"]) == class_key(line["class"]) for reference in line["references"]]
    return {arm: {split: sum(each) / len(each) for split, each in row.items() if each} for arm, row in right.items()}
