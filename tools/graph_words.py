"""The texts of the example graphs: their notes, the titles of their nodes and of their groups.

A note is translated paragraph by paragraph and point by point, because many graphs share them. A point that names a file to get is
the same everywhere but for the file, which stands as {file}, {folder} and {name}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTE = "MarkdownNote"
NOTES, TITLES, GROUPS = "graph notes", "graph titles", "graph groups"  # the sections of a table
_POINT = re.compile(r"(?:- |\d+\. )")
_FILE = re.compile(
    r"- (?P<file>\[[^\]]+\]\([^)]+\)) in (?P<folder>`[^`]+`)(?:, saved under this name \(there: (?P<name>`[^`]+`)\))?"
)


@dataclass(frozen=True)
class Graph:
    """The words of one example graph as it ships."""

    name: str  # extra.info.name, as the page lists it
    note: str
    titles: tuple[str, ...]
    groups: tuple[str, ...]


@cache
def graphs() -> tuple[Graph, ...]:
    """In the order of their numbers."""
    return tuple(
        read(json.loads(path.read_text(encoding="utf-8"))) for path in sorted((ROOT / "workflows").glob("*.json"))
    )


def read(workflow: dict) -> Graph:
    """A workflow in the page's format: all but one of its notes would have no place in the table, so there is one."""
    nodes = workflow["nodes"]
    (note,) = (node["widgets_values"][0] for node in nodes if node["type"] == NOTE)
    titles = dict.fromkeys(node["title"] for node in nodes if "title" in node)
    groups = dict.fromkeys(group["title"] for group in workflow["groups"])
    return Graph(workflow["extra"]["info"]["name"], note, tuple(titles), tuple(groups))


def blocks(note: str) -> Iterator[list[str]]:
    """The parts of a note that are set apart by empty lines, each as its paragraph or its points, without line breaks."""
    for part in re.split(r"\n\s*\n", note.strip()):
        made: list[str] = []
        for line in part.splitlines():
            if made and not _POINT.match(line):
                made[-1] += f" {line.strip()}"
            else:
                made.append(line.strip())
        yield made


def pattern(block: str) -> tuple[str, dict[str, str]]:
    """A block as the tables have it, and what stands in it for {file}, {folder} and {name}."""
    found = _FILE.fullmatch(block)
    if not found:
        return block, {}
    values = {key: text for key, text in found.groupdict().items() if text}
    for key, text in values.items():
        block = block.replace(text, f"{{{key}}}")
    return block, values


def words(all_graphs: tuple[Graph, ...]) -> dict[str, list[str]]:
    """All English of the graphs, by section of a table, each once and in order."""
    notes: dict[str, None] = {}
    titles: dict[str, None] = {}
    groups: dict[str, None] = {}
    for graph in all_graphs:
        notes |= dict.fromkeys(pattern(block)[0] for part in blocks(graph.note) for block in part)
        titles |= dict.fromkeys(graph.titles)
        groups |= dict.fromkeys(graph.groups)
    return {NOTES: list(notes), TITLES: list(titles), GROUPS: list(groups)}


def translated(all_graphs: tuple[Graph, ...], known: dict[str, dict[str, str]], last_line: str) -> dict[str, dict]:
    """What web/graph_words.js puts in place of the English. A graph of which the table lacks a text stays in English whole.

    last_line: says that nobody has reviewed the translation; empty once somebody has.
    """
    whole = [graph for graph in all_graphs if not _lacking(graph, known)]
    kinds = ((TITLES, {text for graph in whole for text in graph.titles}),
             (GROUPS, {text for graph in whole for text in graph.groups}))  # fmt: skip
    titles, groups = ({text: known[kind][text] for text in known[kind] if text in used} for kind, used in kinds)
    notes = {graph.name: [graph.note, _note(graph.note, known[NOTES], last_line)] for graph in whole}
    return {"notes": notes, "titles": titles, "groups": groups}


def _lacking(graph: Graph, known: dict[str, dict[str, str]]) -> bool:
    return any(not known[kind].get(text, "").strip() for kind, texts in words((graph,)).items() for text in texts)


def _note(note: str, known: dict[str, str], last_line: str) -> str:
    parts = ["\n".join(_block(block, known) for block in part) for part in blocks(note)]
    return "\n\n".join([*parts, *filter(None, [last_line])]) + "\n"


def _block(block: str, known: dict[str, str]) -> str:
    key, values = pattern(block)
    text = known[key]
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
