"""A prompt as ComfyUI's and A1111's users write it -> the plain words in it."""

from __future__ import annotations

import re
from functools import cache

from .words import read_list, words

_EXTRA = re.compile(r"<\s*(?:lora|lyco|hypernet|embedding|model)\s*:[^<>]*>", re.IGNORECASE)  # <lora:name:0.8>
_EMBEDDING = re.compile(r"\b(?:embedding|embeddings)\s*:\s*[\w.\-/\\]+(?::-?[\d.]+)?", re.IGNORECASE)
_WILDCARD = re.compile(r"__[\w\-/*]+__")  # a file of choices, which the prompt was not told
_CHOICE = re.compile(r"(?<!\\)\{([^{}]*)(?<!\\)\}")
_COUNT = re.compile(r"^\s*(?:\d+(?:-\d+)?\$\$)+(?:[^|]*\$\$)?")  # {2$$a|b}, {1-2$$, $$a|b}
_SHARE = re.compile(r"^\s*[\d.]+::")  # {0.5::a|b}
_WEIGHT = re.compile(r"(?<!\\):\s*-?\d*\.?\d+\s*(?=[)\]])")  # (word:1.3), [word:0.5]
_SCHEDULE = re.compile(r"(?<!\\)\[([^\[\]:]*):([^\[\]:]*):\s*[\d.]+\s*\]")  # [from:to:when]
_BRACKET = re.compile(r"(?<!\\)[()\[\]]")
_BREAK = re.compile(r"\b(?:BREAK|AND|ADDCOMM|ADDBASE|ADDROW|ADDCOL)\b")  # capitals: "and" is a word
_COMMENT = re.compile(r"/\*[\s\S]*?\*/|^\s*(?://|#).*$", re.MULTILINE)
# The end of a sentence, as part of a pattern: no period of "Mr. Fox", "St. Moritz", "J. R. Smith" or "3.5".
FULL_STOP = r"(?<!\b\w)(?<!\b(?:mr|ms|dr|st|mt|ft|no|jr|sr|vs))(?<!\b(?:mrs|vol|sgt))(?<!\bprof)(?<!\bcapt)\.(?!\d)"
MOST_CHOICES = 1000  # choices that are resolved; nobody nests more by hand


def plain(text: str) -> str:
    """`text` without weights, LoRA and embedding tags, wildcards, BREAK and comments; line ends stay.

    Of `{a|b}` the first branch is taken: ComfyUI's page has put in the one that it drew before a node sees the text.
    """
    text = _COMMENT.sub(" ", text)
    text = _EXTRA.sub(" ", text)
    text = _EMBEDDING.sub(" ", text)
    text = _WILDCARD.sub(" ", text)
    for _ in range(MOST_CHOICES):
        text, found = _CHOICE.subn(_first_branch, text, count=1)
        if not found:
            break
    text = _SCHEDULE.sub(r"\2", text)
    text = _WEIGHT.sub("", text)
    text = _BREAK.sub(",", text)
    text = _BRACKET.sub(" ", text)
    text = re.sub(r"\\([()\[\]{}])", r"\1", text)  # "rocket \(vehicle\)" means the brackets themselves
    lines = (re.sub(r"[^\S\n]+", " ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _first_branch(match: re.Match) -> str:
    inside = _COUNT.sub("", match.group(1))
    return " " + _SHARE.sub("", inside.split("|")[0]) + " "


@cache
def quality_words() -> frozenset[str]:
    """The phrases that say how to paint and not what (data/quality_words.txt), as normalized words written together:
    "hyper realistic" is "hyperrealistic"."""
    return frozenset("".join(words(phrase)) for phrase in read_list("quality_words.txt"))


def without_quality_words(text: str, keep=lambda part: False) -> str:
    """`text` without the parts between commas that are quality words alone, such as "masterpiece, 8k". keep(part): True
    for a part that means something to the library, such as the name of a class."""
    known = quality_words()
    lines = []
    for line in text.split("\n"):
        parts = [part.strip() for part in re.split(r"[,;|]", line)]
        good = [part for part in parts if part and ("".join(words(part)) not in known or keep(part))]
        lines.append(", ".join(good))
    return "\n".join(line for line in lines if line)
