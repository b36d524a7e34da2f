"""Words about a license -> one normal form: an SPDX expression, or a LicenseRef for what SPDX has no name for.

The spellings of photo sites and the URLs of licenses are data (assets/licenses.json); whatever else is an SPDX expression is
read by the package license-expression. The words themselves are kept wherever they are shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

TABLE = Path(__file__).parent.parent / "assets" / "licenses.json"
NOT_STATED = "not stated"
_CC = re.compile(
    r"(?:cc|creative commons) ((?:by|attribution)(?: (?:nc|non ?commercial))?(?: (?:sa|share ?alike|nd|no ?deriv(?:ative)?s?))?)"
    r"(?: v?(\d(?:\.\d)?))?(?: (?:international|intl|unported|generic|universal|deed)| ([a-z]{2,3}))?"
)
_CC_LONG = re.compile(
    r"(attribution(?: non ?commercial)?(?: (?:share ?alike|no ?deriv(?:ative)?s?))?)(?: v?(\d(?:\.\d)?))(?: [a-z]+)?"
)
_CC_PORTED = {"de", "nl", "fr", "at", "au", "jp", "us", "uk", "cn", "tw", "igo"}


@dataclass(frozen=True)
class License:
    """id: the normal form, or the words themselves where they are none that is known. stated: whether any license is
    named. free: whether it lets others pass the photo on; None where that is not known."""

    id: str
    stated: bool
    free: bool | None


def key(words: str) -> str:
    """The words as the table has them: small letters, one space, without the word license, signs and brackets."""
    text = words.casefold().replace("©", " copyright ").replace("licence", "license")
    text = re.sub(r"\(c\)", " copyright ", text)
    text = re.sub(r"[-_/,;:|\"'()\[\]{}]+", " ", text)
    text = re.sub(r"\b(the|under|licensed|license|licensing|a)\b", " ", text)
    return " ".join(text.split()).strip(" .")


@lru_cache(4096)
def normal(words: str) -> License:
    """The license that these words mean. Never raises: words that mean none known stay as they are, free is None."""
    words = " ".join(words.split())
    if not words or words == NOT_STATED:
        return License(NOT_STATED, False, None)
    table, short = _table(), key(words)
    if url := re.search(r"https?://[^\s<>\"']+|(?:www\.)?creativecommons\.org/[^\s<>\"']+", words):
        if found := _by_url(url[0]):
            return _known(found)
    if words.casefold() in table["unknown"] or short in table["unknown"]:
        return License(NOT_STATED, False, None)
    if found := table["free"].get(short) or table["not_free"].get(short):
        return _known(found)
    if found := _creative_commons(short):
        return _known(found)
    if found := _spdx(words):
        return License(found, True, True)
    if re.search(r"\ball rights reserved\b|^copyright\b", key(words)):
        return _known("LicenseRef-all-rights-reserved")
    return License(words, True, None)


def grouped(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """{words: photos} -> {normal form: {words: photos}}, the most frequent first."""
    groups: dict[str, dict[str, int]] = {}
    for words, count in counts.items():
        groups.setdefault(normal(words).id, {})[words or NOT_STATED] = count
    return dict(sorted(groups.items(), key=lambda pair: (-sum(pair[1].values()), pair[0])))


def described(form: str, words: Mapping[str, int]) -> str:
    """A normal form with the words that were given for it, where they differ: `CC-BY-4.0 (as "CC BY 4.0")`."""
    given = [f'"{each}"' for each in words if each != form]
    return f"{form} (as {', '.join(given[:5])}{', ...' if len(given) > 5 else ''})" if given else form


@lru_cache(1)
def _table() -> dict:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def _known(id: str) -> License:
    return License(id, True, id not in _table()["not_free"].values())


def _by_url(url: str) -> str:
    place = re.sub(r"^(?:https?://)?(?:www\.)?", "", url.casefold()).rstrip("/.,)")
    for pattern, id in _table()["urls"]:
        if found := re.match(pattern, place):
            return _cc_id(found[1], found[2], found[3] or "") if id == "CC" else id
    return ""


def _creative_commons(short: str) -> str:
    """`cc by sa 4.0`, `creative commons attribution sharealike 4.0 international` and what lies between."""
    short = re.sub(r"^((?:creative commons )?attribution .+) cc .+$", r"\1", short)  # both in one: "... (CC BY 4.0)"
    for pattern in (_CC, _CC_LONG):
        if found := pattern.fullmatch(short):
            parts = found[1].replace("attribution", "by")
            parts = re.sub(r"non ?commercial", "nc", parts)
            parts = re.sub(r"share ?alike", "sa", re.sub(r"no ?deriv(?:ative)?s?", "nd", parts))
            place = found[3] if pattern is _CC and found[3] else ""
            return _cc_id(parts.replace(" ", "-"), found[2] or "", place)
    return ""


def _cc_id(parts: str, version: str, place: str) -> str:
    """CC-BY-SA-4.0; without a version a LicenseRef, as SPDX names versions only. Ports that SPDX lists keep their place."""
    parts = "by-nc-nd" if parts == "by-nd-nc" else parts
    name = f"CC-{parts.upper()}"
    if not version:
        return f"LicenseRef-{name}"
    version = version if "." in version else f"{version}.0"
    id = f"{name}-{version}"
    if place in _CC_PORTED and _spdx(f"{id}-{place.upper()}"):
        return f"{id}-{place.upper()}"
    return _spdx(id) or f"LicenseRef-{id}"


@lru_cache(1)
def _known_licenses():
    """All of SPDX, which license_expression reads anew whenever it is asked: 20 ms."""
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def _spdx(words: str) -> str:
    """The words as a canonical SPDX expression, or "" where they are none."""
    from license_expression import ExpressionError

    if len(words) > 200 or not re.fullmatch(r"[A-Za-z0-9.+() -]+", words):
        return ""
    try:
        parsed = _known_licenses().parse(words, validate=True)
    except ExpressionError:
        return ""
    except Exception:
        return ""  # its parser raises errors of several libraries for words that are no expression
    return str(parsed) if parsed is not None else ""
