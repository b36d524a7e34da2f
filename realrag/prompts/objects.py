"""The objects that a prompt names, and what it says shall not be there.

A line is an object. Within a line "X next to Y", "X and Y" and "X, Y" are objects only where each part alone finds
something certain in the library, which the caller knows: a prompt is full of ands and commas that part no objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .syntax import FULL_STOP

_ARTICLE = r"(?:an?|the|any|some|one|another)\b"
_NEGATION = re.compile(
    rf"(?P<before>^|[\s,;])(?P<word>without|with no|but no|and no|no|not|never|except|excluding|minus)\s+(?:{_ARTICLE}\s+)?",
    re.IGNORECASE,
)
# Where what is left out ends: punctuation, another thing, or where it is.
_END = re.compile(
    rf"[,;|\n]|{FULL_STOP}|\s(?:and|but|with|in|on|at|under|over|next|near|beside|behind|between|by|while|is|are|that|which)\b",
    re.IGNORECASE,
)
_OR = re.compile(r"\s+(?:or|nor)\s+(?:no\s+)?(?:(?:an?|the|any)\s+)?", re.IGNORECASE)
MOST_LEFT_OUT = 5  # words; a longer run is a sentence that no photo can be held against
MOST_LETTERS = 1000  # of all that one "without" leaves out, for the same reason
_BETWEEN = re.compile(
    r"\s*(?:,\s*(?:and\s+)?|;|\||\s(?:and|plus|next to|beside|besides|alongside|together with|along with|in front of|behind"
    r"|on top of|under|with|holding|beneath|near|close to|to the (?:left|right) of)\s)\s*",
    re.IGNORECASE,
)
MOST_OBJECTS = 16


@dataclass(frozen=True)
class Wish:
    """What a prompt asks for: objects, in its order, and what shall not be there."""

    objects: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def negations(line: str, spans: Sequence[tuple[int, int]] = ()) -> tuple[str, list[str]]:
    """A line without its "without X", "not X" and "no X", and the X. "no" before a thing that cannot be one is left, and so
    is one inside `spans`: the name "Study No 4" leaves out no 4, and "without salt and pepper" leaves out both."""
    kept, left_out, at, stop = [], [], 0, 0
    named = _letters(line, spans)
    while match := _NEGATION.search(line, at):
        if stop < match.end():  # else it is still the first end from here on
            ends = (end.start() for end in _END.finditer(line, match.end()) if not any(named[end.start() : end.end()]))
            stop = next(ends, len(line))
        inside = any(named[match.start("word") : match.end("word")])
        span = line[match.end() : stop] if stop - match.end() <= MOST_LETTERS and not inside else ""
        things = [thing.strip() for thing in _OR.split(span) if thing.strip()]
        if things and all(len(thing.split()) <= MOST_LEFT_OUT for thing in things):
            left_out += things
            kept.append(line[at : match.start("word")])
            at = stop
        else:
            kept.append(line[at : match.end()])
            at = match.end()
    text = "".join([*kept, line[at:]])
    text = re.sub(r"(?:\s*,\s*)+", ", ", re.sub(r"\s+", " ", text)).strip(" ,;.")
    text = re.sub(r"^(?:but|and|with)\s+(?:an?\s+|the\s+)?", "", text, flags=re.IGNORECASE)
    return text, left_out


def cut(line: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The line in pieces at "and", "next to", commas and the like, but not inside `spans`: the names "salt and pepper"
    and "Dolce & Gabbana" stay whole."""
    parts, at = [], 0
    named = _letters(line, spans)
    for match in _BETWEEN.finditer(line):
        if not any(named[match.start() : match.end()]):
            parts.append(line[at : match.start()].strip())
            at = match.end()
    parts.append(line[at:].strip())
    return [part for part in parts if part]


def _letters(line: str, spans: Sequence[tuple[int, int]]) -> bytearray:
    """1 for each letter of the line that is inside a span."""
    inside = bytearray(len(line))
    for start, end in spans:
        inside[start:end] = b"\1" * (end - start)
    return inside


def wish(
    text: str,
    certain: Callable[[list[str]], list[bool]],
    spans: Callable[[str], Sequence[tuple[int, int]]] = lambda line: (),
) -> Wish:
    """The objects of a plain prompt (`syntax.plain`) and what it leaves out.

    certain(parts): which of the parts find something certain alone. spans(line): where names stand that must stay whole.
    """
    objects: list[str] = []
    left_out: list[str] = []
    for line in text.split("\n"):
        line, without = negations(line, spans(line))
        left_out += without
        if not line:
            continue
        parts = cut(line, spans(line))
        sure = certain(parts) if 1 < len(parts) <= 4 * MOST_OBJECTS else [True]
        if sum(sure) < 2:
            objects.append(line)
            continue
        mine, waiting = [], ""
        for part, good in zip(parts, sure, strict=True):
            if good:
                mine.append(f"{waiting}, {part}" if waiting else part)
                waiting = ""
            elif mine:
                mine[-1] += ", " + part
            else:
                waiting = f"{waiting}, {part}" if waiting else part
        objects += mine
    return Wish(tuple(objects[:MOST_OBJECTS]), tuple(dict.fromkeys(left_out)))
