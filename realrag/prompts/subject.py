"""The subject of a prompt: what comes before its place, its deeds and its style.

"zoecat in space" asks for zoecat: no photo of it shows space, and none has to.
"""

from __future__ import annotations

import re
from functools import cache

from .syntax import FULL_STOP, quality_words
from .words import function_words, read_list, tokens, words

# "an oil painting of", before the subject
_MEDIUM = re.compile(
    r"^\s*(?:(?:an?|the|my|one)\s+)?(?:[\w-]+\s+){0,2}?(?:photo(?:graph)?|picture|portrait|painting|drawing|sketch|illustration|image"
    r"|render(?:ing)?|close-?up|shot|snapshot|watercolou?r|cartoon|statue)\s+of\s+",
    re.IGNORECASE,
)
_PLACE = (
    "in on at under over through by near beside behind against inside into onto across along among around as during before beneath "
    "above below beyond with without while from to for"
)
# Where the subject ends: punctuation, where it is, what it wears or is with, "Bruno the bear" but not "the eye of the bear".
_END = re.compile(
    rf"[,;|\n]|:(?!\d)|{FULL_STOP}|\s(?:{_PLACE.replace(' ', '|')}|wearing|is|are|surrounded|covered|dressed)\s|(?<!\sof)\sthe\s",
    re.IGNORECASE,
)
# "howling at the moon" is a deed; in "a rocking chair" a thing follows, and "a building" is a thing.
_DEED = re.compile(r"\s(\w{2,}ing)(?=\s+(\w+)|\s*$)")
_AFTER_A_DEED = frozenset(
    f"{_PLACE} a an the his her its their my out up down together alone happily toward and away off".split()
)


def subject_of(text: str) -> str:
    """The subject of one line; the whole text where nothing else can be told from it."""
    start = match.end() if (match := _MEDIUM.match(text)) else 0
    rest = text[start:]
    ends = [match.start() for match in _END.finditer(rest)]
    ends += [deed.start() for deed in _DEED.finditer(rest) if _is_deed(*deed.groups())]
    first = next((token.end for token in tokens(rest) if token.word not in function_words()), len(rest))
    if ends := [end for end in ends if end >= first]:
        subject = rest[: min(ends)].strip()
        telling = "".join(word for word in words(subject) if word not in function_words())
        return text if telling in quality_words() else subject
    return rest.strip() if start else text


def _is_deed(word: str, after: str | None) -> bool:
    return (not after or after.lower() in _AFTER_A_DEED) and word.lower() not in _things_in_ing()


@cache
def _things_in_ing() -> frozenset[str]:
    return frozenset(read_list("things_in_ing.txt"))
