"""Which classes a text names: whole class names, longest first, tolerant of how people write them.

Case, accents, plural, hyphen, underscore, CamelCase, spaces between parts and one typo in a long word make no
difference. Whole words alone count: "can" is not in "american".
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..prompts.words import Token, forms, function_words, read_list, tokens, unspaced, words

MOST_WORDS = 12  # of a name that is looked for
LONG_WORD = 6  # letters from which one typo is forgiven
LONGEST_WORD = 40  # and up to which: every letter of a longer one would have to be left out in turn
MOST_TYPOS = 8  # words of a text that are looked at for typos
_INDEX = re.compile(
    r"^\s*(?:[A-Za-z]?\d+[\s._\-)]+)+(?=\D*[^\W\d_]{2})"
)  # "001.Black_footed_Albatross", "n02123045 tabby", "10_zoecat cat", "2023-07-14 Baltic Sea"
_YEAR = re.compile(r"(?:^|(?<=[\s._\-]))(?:19|20)\d\d(?=$|[\s._\-])")  # "Rex_2021"
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa"})  # as typed without them
_BRACKETS = re.compile(r"\s*[(\[][^)\]]*[)\]]\s*")
_DETERMINER = frozenset(
    "a an the this that these those my your his her our their some one two three four five six several many no".split()
)


class Named(NamedTuple):
    """A name found in a text: the classes so called, where it stands, and as which words it was read: a typo mended, and
    for a name in another language the class's own."""

    codes: tuple[int, ...]
    start: int
    end: int
    text: str
    meant: str


class NameTable:
    """classes: name of each class code; "" is none. others: (code, language tag or "", another name of that class)."""

    def __init__(self, classes: Sequence[str], others: Iterable[tuple[int, str, str]] = ()):
        self._keys: dict[str, set[int]] = {}
        self._words: dict[str, None] = {}
        self._most_words, self._longest_run = 1, 1
        whole = [(code, name) for code, name in enumerate(classes) if name.strip()]
        self._own_name = {code: " ".join(words(_bare(name))) for code, name in whole}
        for code, name in whole:
            self._add(code, name)
        own = set(self._keys)
        english: set[str] = set()
        for code, language, name in others:
            self._add(code, name)
            if language.lower().startswith("en"):
                english.add("".join(words(name)))
        taken = set(self._keys)
        self._in_other_languages = taken - own - english
        for code, name in whole:
            for alias in _aliases(name):
                self._add(code, alias, taken)
        self._other_keys = taken - own
        self._in_order = sorted(self._keys)
        self.empty = not self._keys

    def _add(self, code: int, name: str, taken: Collection[str] = ()) -> None:
        parts = words(name)
        key = "".join(parts)
        if not key or key in taken or not any(char.isalpha() for char in key):
            return
        self._keys.setdefault(key, set()).add(code)
        self._words |= dict.fromkeys(parts)
        # Written apart, a name has at most as many words as it has CamelCase parts and hyphens; one more for "t shirt".
        self._most_words = min(MOST_WORDS, max(self._most_words, len(parts) + 1))
        self._longest_run = max(self._longest_run, max(len(part) for part in parts))

    def __contains__(self, word: str) -> bool:
        """Whether a normalized word, in singular or plural, stands in a name."""
        return any(form in self._words for form in forms(word))

    def find(self, text: str) -> list[Named]:
        """The names in `text` in the order in which they stand, none inside another."""
        if self.empty:
            return []
        found = tokens(text)
        taken = [False] * len(found)
        hits = self._whole(text, found, taken)
        mended = self._mended(found, taken)
        if mended:
            changed = [Token(mended.get(at, token.word), token.start, token.end) for at, token in enumerate(found)]
            hits += self._whole(text, changed, taken)
        return sorted(hits, key=lambda hit: hit.start)

    def _whole(self, text: str, found: list[Token], taken: list[bool]) -> list[Named]:
        hits = []
        written = [token.word for token in found]
        endings = [forms(word) for word in written]
        longest = [self._longest_name(written, at) for at in range(len(written))]
        for length in range(max(longest, default=0), 0, -1):
            for at in range(len(found) - length + 1):
                if length > longest[at] or True in taken[at : at + length]:
                    continue
                key = self._key("".join(written[at : at + length - 1]), endings[at + length - 1])
                if key and not (length == 1 and self._means_another_thing(key, text, found, at)):
                    part, codes = found[at : at + length], self._classes(key)
                    taken[at : at + length] = [True] * length
                    first, last = part[0].start, part[-1].end
                    meant = self._meant(key, " ".join(token.word for token in part))
                    hits.append(Named(codes, first, last, text[first:last], meant))
        for at, token in enumerate(found):
            if not taken[at] and unspaced(token.word):
                hits += self._inside_run(token)
        return hits

    def _longest_name(self, written: list[str], at: int) -> int:
        """How many words a name that begins at this one has at most: all but the last of them begin a key."""
        head, length = written[at], 1
        while length < min(self._most_words, len(written) - at) and self._begins(head):
            head += written[at + length]
            length += 1
        return length

    def _begins(self, head: str) -> bool:
        at = bisect_left(self._in_order, head)
        return at < len(self._in_order) and self._in_order[at].startswith(head)

    def _key(self, head: str, endings: Sequence[str]) -> str:
        """The key of a name of which all but the last word is `head`; empty where there is none.
        endings: the last word in singular and plural."""
        for last in endings:
            if head + last in self._keys:
                return head + last
        return ""

    def _classes(self, key: str) -> tuple[int, ...]:
        return tuple(sorted(self._keys.get(key, ())))

    def _meant(self, key: str, written: str) -> str:
        """The class's own name for one in another language, which an encoder may not know."""
        return self._own_name.get(min(self._keys[key]), written) if key in self._other_keys else written

    def _means_another_thing(self, key: str, text: str, found: list[Token], at: int) -> bool:
        return self._only_grammar(found, at) or self._only_color(text, found, at) or self._false_friend(key, found, at)

    def _false_friend(self, key: str, found: list[Token], at: int) -> bool:
        """ "A puffin on a rock" asks for no skirt, although it is "Rock" in German: a name in another language that is an
        English word counts only where the text has an article or the like of another language."""
        if key not in self._in_other_languages or not is_english(found[at].word):
            return False
        return not any(token.word in other_function_words() for token in found)

    @staticmethod
    def _only_grammar(found: list[Token], at: int) -> bool:
        """A class may be called "can" or "will": the word counts after an article, or alone."""
        if found[at].word not in function_words() or len(found) == 1:
            return False
        return at == 0 or found[at - 1].word not in _DETERMINER

    @staticmethod
    def _only_color(text: str, found: list[Token], at: int) -> bool:
        """ "An orange cat" is no orange: a word that is a color as well, right before another noun."""
        if found[at].word not in color_words() or at + 1 == len(found):
            return False
        after = found[at + 1]
        return text[found[at].end : after.start].isspace() and after.word not in function_words()

    def _inside_run(self, token: Token) -> list[Named]:
        """Names in a run of a script without spaces, longest first."""
        hits, run, free = [], token.word, [True] * len(token.word)
        for length in range(min(self._longest_run, len(run)), 0, -1):
            for at in range(len(run) - length + 1):
                name = run[at : at + length]
                codes = self._classes(name)
                if codes and all(free[at : at + length]):
                    free[at : at + length] = [False] * length
                    start = token.start + at
                    hits.append(Named(codes, start, start + length, name, self._meant(name, name)))
        return hits

    def _mended(self, found: list[Token], taken: list[bool]) -> dict[int, str]:
        """Token -> the one word of a name that it is with a letter more, less, other or two exchanged."""
        mended: dict[int, str] = {}
        suspects = [
            at
            for at, token in enumerate(found)
            if not taken[at] and LONG_WORD <= len(token.word) <= LONGEST_WORD and token.word.isascii() and token.word.isalpha()
            and token.word not in self
        ][:MOST_TYPOS]  # fmt: skip
        for at in suspects:
            sharing = {word for gap in _gaps(found[at].word) for word in self._typos.get(gap, ())}
            near = [word for word in sharing if word[0] == found[at].word[0] and _one_typo(found[at].word, word)]
            if len(near) == 1 and not is_english(found[at].word):
                mended[at] = near[0]
        return mended

    @cached_property
    def _typos(self) -> dict[str, list[str]]:
        """A name's long words by themselves and with each letter left out (as SymSpell keeps them)."""
        kept: dict[str, list[str]] = {}
        for word in self._words:
            if LONG_WORD <= len(word) <= LONGEST_WORD and word.isascii() and word.isalpha():
                for gap in _gaps(word):
                    kept.setdefault(gap, []).append(word)
        return kept


@cache
def color_words() -> frozenset[str]:
    """Names of things that are colors or materials as well."""
    return frozenset(read_list("color_words.txt"))


@cache
def other_function_words() -> frozenset[str]:
    """Articles, conjunctions and prepositions of other languages that are no English words."""
    return frozenset(read_list("other_function_words.txt"))


def _bare(name: str) -> str:
    """A class's name without a number in front and words in brackets."""
    return _BRACKETS.sub(" ", _INDEX.sub("", name))


def asked_as(name: str) -> str:
    """A class's name as one asks for it: without the number in front and with spaces for what stands for them."""
    bare = re.sub(r"_+|\s-+\s|(?<=[^\W\d_])-+(?=[^\W\d_])", " ", _INDEX.sub("", name))
    return " ".join(bare.split())


def _aliases(name: str) -> list[str]:
    """Other ways to write a class's name that its folder shows: without a number in front, words in brackets or a year, and
    each of several names between commas, as ImageNet has them."""
    bare = _INDEX.sub("", name)
    outside = _BRACKETS.sub(" ", bare)
    timeless = _YEAR.sub(" ", outside)
    aliases = dict.fromkeys([bare, outside, timeless, *outside.split(",")])
    written = {alias: unicodedata.normalize("NFC", alias).lower() for alias in aliases}
    aliases |= dict.fromkeys(text.translate(_UMLAUTS) for text in written.values() if text.translate(_UMLAUTS) != text)
    return [alias for alias in aliases if alias.strip() and alias != name]


def _gaps(word: str) -> list[str]:
    return [word, *(word[:i] + word[i + 1 :] for i in range(len(word)))]


def _one_typo(one: str, other: str) -> bool:
    """Whether one letter more, less or other, or two neighbors exchanged, make `one` of `other` (Damerau)."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest, others = one[start:], other[start:]
    return (
        rest[1:] == others[1:]
        or rest[1:] == others
        or rest == others[1:]
        or (rest[:2] == others[1::-1] and rest[2:] == others[2:])
    )


@cache
def _english() -> frozenset[str]:
    """The whole words among CLIP's byte pairs, which come with open_clip: what is one of them is no typo of another word.
    Empty where open_clip is not installed; then only very long words are mended."""
    spec = find_spec("open_clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        try:
            lines = (
                gzip.decompress((Path(folder) / "bpe_simple_vocab_16e6.txt.gz").read_bytes())
                .decode("utf-8")
                .split("\n")
            )
        except (OSError, ValueError, EOFError):
            continue
        pairs = (line.replace(" ", "") for line in lines[1 : 49152 - 256 - 2 + 1])
        return frozenset(pair.removesuffix("</w>") for pair in pairs if pair.endswith("</w>"))
    return frozenset()


def is_made_up(word: str) -> bool:
    """Whether a normalized word is no word of English, so that it can only be a name: "zoecat", "grunon"."""
    return word.isalpha() and word not in function_words() and not is_english(word)


def is_english(word: str) -> bool:
    """Whether `word` is a word that people write, so that a class's name one letter away is not meant."""
    known = _english()
    return word in known or any(form in known for form in forms(word)) if known else len(word) < LONG_WORD + 3
