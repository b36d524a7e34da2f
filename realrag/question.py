"""A prompt -> what is looked for: its objects, what it leaves out, and the words that mean nothing to a search gone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .prompts.objects import wish
from .prompts.syntax import plain, without_quality_words
from .prompts.words import function_words, words
from .search.hybrid import CERTAIN
from .search.lexicon import Lexicon
from .search.names import is_made_up

# Two captions that both fit could still describe one thing: "black and white cat". An article begins another.
_BEGINS_A_THING = re.compile(
    r"\s*(?:an?|the|one|two|three|four|five|six|some|several|my|his|her|their)\s", re.IGNORECASE
)


MOST_LETTERS = 20_000  # of a prompt, in which names and objects are looked for; no encoder reads as far


@dataclass(frozen=True)
class Question:
    """text: the prompt without syntax and quality words. objects: each is looked for by itself. left_out: what must not
    be there."""

    text: str
    objects: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_question(prompt: str, lexicon: Lexicon, by_look: Callable[[list[str]], list[bool]]) -> Question:
    """by_look(parts): which parts the encoder alone finds something certain for; asked only where words do not decide."""
    text = plain(prompt[:MOST_LETTERS])
    short = without_quality_words(text, keep=lambda part: bool(lexicon.names.find(part)))
    text, notes = lexicon.mended(short or text or prompt[:MOST_LETTERS])

    cut_off = [f"Only the first {MOST_LETTERS:,} letters of the prompt were read."] * (len(prompt) > MOST_LETTERS)

    def certain(parts: list[str]) -> list[bool]:
        sure = [bool(lexicon.named(part)) or _by_caption(part, lexicon) for part in parts]
        if sum(sure) < len(parts) and sum(map(bool, map(_BEGINS_A_THING.match, parts))) > 1:
            open_parts = [part for part, yes in zip(parts, sure, strict=True) if not yes]
            found = iter(by_look(open_parts))
            sure = [
                yes or (next(found) and bool(_BEGINS_A_THING.match(part)))
                for part, yes in zip(parts, sure, strict=True)
            ]
        return sure

    read = wish(text, certain, lambda line: [(hit.start, hit.end) for hit in lexicon.names.find(line)])
    return Question(text, read.objects or ((text,) if not read.left_out else ()), read.left_out, tuple(notes + cut_off))


def _by_caption(part: str, lexicon: Lexicon) -> bool:
    telling = [word for word in words(part) if word not in function_words()]
    called = bool(telling) and all(map(is_made_up, telling))  # "zoecat", which is a name and nothing else
    if not called and not _BEGINS_A_THING.match(part):
        return False
    matched = lexicon.ask(part).hits().matched
    return bool(len(matched)) and float(matched.max()) >= CERTAIN
