"""Text -> normalized words, the same for prompts, class names, captions and file names.

Case, accents on Latin letters, hyphens, underscores and CamelCase make no difference. Words are never stemmed: a stemmer
turns bus, iris, lens and hummus into bu, iri, len and hummu. `forms` gives the plurals and singulars to try instead.
Scripts without spaces come out as one run of characters; `grams` cuts it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

VERSION = 2  # part of the hash of every derived file: a change of `words` builds them anew
DATA = Path(__file__).parent / "data"

# Han, Hiragana, Katakana, Hangul, Thai, Lao, Khmer, Burmese: no spaces between words, or particles glued to them.
_UNSPACED = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
_TOKEN = re.compile(f"[{_UNSPACED}]+|(?:(?![{_UNSPACED}_])[\\w\u0300-\u036f\u0900-\u0dff])+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_POSSESSIVE = re.compile("[\u2019'`]s\\b", re.IGNORECASE)
_PLAIN_WORD = re.compile(r"[a-z0-9]+")
# Latin letters that are no other letter with an accent: "Søren" is typed as "Soren".
_STROKES = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "\u0131": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
_CAMERA_FOLDER = re.compile(r"[1-9]\d\d[0-9A-Z_]{5}")  # of the DCF standard
_IRREGULAR = {"men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth", "geese": "goose", "mice": "mouse", "people": "person", "oxen": "ox", "dice": "die"}  # fmt: skip
# Words that are another word without their "s": "short hair" does not name the class "shorts".
_PLURAL_ONLY = frozenset("shorts pants glasses jeans tights trousers goggles scissors arms news pajamas clothes goods woods".split())  # fmt: skip
_REGULAR = {single: plural for plural, single in _IRREGULAR.items()}


class Token(NamedTuple):
    """A word of a text: normalized, and where it stands there."""

    word: str
    start: int
    end: int


def fold(text: str) -> str:
    """Lower case, compatibility forms unified, accents taken off Latin letters only: a mark on a Japanese or Indian
    letter makes another letter."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).casefold()
    if folded.isascii():
        return folded
    folded = folded.translate(_STROKES)
    out, latin = [], False
    for char in unicodedata.normalize("NFD", folded):
        if unicodedata.combining(char):
            if latin:
                continue
        else:
            latin = char < "\u0250" or "\u1e00" <= char < "\u1f00"
        out.append(char)
    return unicodedata.normalize("NFC", "".join(out))


def words(text: str) -> list[str]:
    """The normalized words of `text` in order: "Crème-Fraîche!" -> ["creme", "fraiche"], "RedCar_2" -> ["red", "car",
    "2"]."""
    if text.isascii():  # the short way, for a million captions: the same words
        if "'" in text or "`" in text:
            text = _POSSESSIVE.sub("", text)
        if not (text.islower() or text.isupper()):
            text = _CAMEL.sub(" ", text)
        return _PLAIN_WORD.findall(text.lower())
    return [token.word for token in tokens(text)]


def tokens(text: str) -> list[Token]:
    """The words with their places in `text`."""
    found = []
    for match in _TOKEN.finditer(_POSSESSIVE.sub(lambda suffix: " " * len(suffix[0]), text)):
        start, whole = match.start(), match.group()
        cuts = [0, *(cut.start() for cut in _CAMEL.finditer(whole)), len(whole)]
        for first, last in pairwise(cuts):
            if word := fold(whole[first:last]):
                found.append(Token(word, start + first, start + last))
    return found


def unspaced(word: str) -> bool:
    """Whether a word is a run of a script without spaces."""
    return _UNSPACED_RUN.fullmatch(word) is not None


def grams(run: str) -> list[str]:
    """Each character of an unspaced run, and each two neighbors."""
    return [*run, *(run[i : i + 2] for i in range(len(run) - 1))]


@lru_cache(16_384)
def forms(word: str) -> tuple[str, ...]:
    """The word and the other number it may stand for, likeliest first: "berries" -> "berries", "berry", "berrie" and so on.

    Some are no words; they are only looked up among words that exist.
    """
    found = [word]
    if len(word) < 3 or not word.isascii() or not word.isalpha():
        return (word,)
    found += [other for other in (_IRREGULAR.get(word), _REGULAR.get(word)) if other]
    if word.endswith("s") and not word.endswith("ss"):
        if word.endswith("ies") and len(word) > 4:
            found.append(word[:-3] + "y")
        if word.endswith("ves"):
            found += [word[:-3] + "f", word[:-3] + "fe"]
        if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            found.append(word[:-2])
        found += [word[:-1]] * (len(word) > 3) + [word + "es"]
    else:
        if word.endswith("y"):
            found.append(word[:-1] + "ies")
        if word.endswith(("f", "fe")):
            found.append(word.removesuffix("e")[:-1] + "ves")
        found += [word + "es"] if word.endswith(("s", "x", "z", "ch", "sh", "o")) else []
        found.append(word + "s")
    return tuple(dict.fromkeys(form for form in found if form == word or not {form, word} & _PLURAL_ONLY))


@cache
def function_words() -> frozenset[str]:
    """English words that say nothing of what a photo shows (the, with, can, ...)."""
    return frozenset(read_list("function_words.txt"))


@cache
def camera_words() -> frozenset[str]:
    """What cameras, phones and programs put into the names of files."""
    return frozenset(read_list("camera_words.txt"))


def names_something(text: str) -> bool:
    """Whether a file name says what its photo shows: "granny smith 2" does, "IMG_1234" and "P1010001" do not."""
    for word in words(text):
        letters = "".join(char for char in word if char.isalpha())
        if letters not in camera_words() and (len(letters) > 2 or not letters.isascii()):
            return True
    return False


def is_a_name(folder: str) -> bool:
    """Whether a folder's name is one to ask for: "Bello" and "T3" are; "08", "2023-07-14" and a camera's "100CANON" say when
    or by what its photos were taken."""
    letters = ["".join(char for char in word if char.isalpha()) for word in words(folder)]
    return any(word and word not in camera_words() for word in letters) and not _CAMERA_FOLDER.fullmatch(folder)


def read_list(name: str) -> list[str]:
    """The lines of a data file of this room; "#" begins a comment."""
    lines = (line.partition("#")[0].strip() for line in (DATA / name).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]
