"""Wrong references as a control, and how often the references of each arm were right or the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..pictures.arms import class_key
from ..tables import read_lines
from .endpoints import arm_of


def shuffled(oracle: Sequence[dict]) -> list[dict]:
    """The oracle's lines of `choose`, each prompt with the references of the next one: as good, but of another class."""
    return [{**line, "arm": "shuffled", "references": other["references"]}
            for line, other in zip(oracle, [*oracle[1:], oracle[0]], strict=True)]  # fmt: skip


def describe(choices: Path, world: dict[str, tuple[str, str]]) -> dict[str, dict[str, dict[str, float]]]:
    """{arm: {split: {"right": fraction of its references that are of the prompt's class, "sets": number of different
    sets that its seeds choose per prompt}}}. Seeds that choose alike count little more than one."""
    splits = {class_key(name): split for name, (_, split) in world.items()}
    right: dict[tuple[str, str], list[bool]] = {}
    sets: dict[tuple[str, str], set[tuple[str, frozenset[str]]]] = {}
    for text in read_lines(choices):
        line = json.loads(text)
        of = arm_of(line["arm"]), splits[class_key(line["class"])]
        right.setdefault(of, []).extend(
            class_key(each["class"]) == class_key(line["class"]) for each in line["references"]
        )
        sets.setdefault(of, set()).add((line["prompt"], frozenset(each["id"] for each in line["references"])))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (arm, split), each in right.items():
        if each:
            prompts = len({prompt for prompt, _ in sets[arm, split]})
            found.setdefault(arm, {})[split] = {"right": sum(each) / len(each), "sets": len(sets[arm, split]) / prompts}
    return found
