"""Which score tells a photo that fits from the best of photos that do not: measured for a library, its encoder and head.

Cosines of different encoders lie in different ranges (CLIP's right answers score 0.3, SigLIP's 0.1), so no fixed bound
serves all. What is known: the library's own class names and captions, scored with their own photos. What is unknown:
phrases about other things (prompts/data/unrelated.txt), scored with whatever photo fits best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from .prompts.words import is_a_name, read_list, words

VERSION = 1
FOLDS = 5
MOST_KNOWN = 300  # class names and captions each that are asked
LEAST = 20  # questions of either kind below which they say nothing of a level
MOST_ROWS = 200_000  # photos, evenly chosen, that a large library is measured on
BLOCK = 4096
TELLS = 0.5  # false accepts + false rejects above which a score says next to nothing
ACCEPTED = 0.05  # fraction of unknown phrases that then pass the level
DIGITS = 3  # of a level
TEMPLATE = "a photo of a {}"


class Rows(Protocol):
    """(N, D) unit vectors, asked for by row numbers: an array, mapped or not, or what makes them when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Level:
    """A photo found by look alone is doubtful where its score is below `score`; None: it could not be measured.

    false_accepts: fraction of unknown phrases whose best photo reaches a level measured without them; false_rejects: fraction
    of known ones whose own photo does not. tells: whether the encoder tells them apart at all. known, unknown: how many
    were asked.
    """

    score: float | None = None
    false_accepts: float = 1.0
    false_rejects: float = 0.0
    tells: bool = False
    known: int = 0
    unknown: int = 0

    @property
    def up_to_date(self) -> bool:
        """False where an older version had too few names to ask, which are not needed any more."""
        return self.score is not None or self.unknown < LEAST

    def as_json(self) -> dict:
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: object) -> Level | None:
        """What `as_json` gave; None where it is anything else or of another version."""
        if not isinstance(content, dict) or content.get("version") != VERSION:
            return None
        values: list[Any] = [
            content.get(key) for key in ("score", "tells", "false_accepts", "false_rejects", "known", "unknown")
        ]
        score, tells, accepts, rejects, known, unknown = values
        right = (score is None or (_number(score) and -1 <= score <= 1)) and all(
            _number(x) and 0 <= x <= 1 for x in (accepts, rejects)
        )
        if not right or not isinstance(tells, bool) or not all(type(n) is int and n >= 0 for n in (known, unknown)):
            return None
        return cls(None if score is None else float(score), float(accepts), float(rejects), tells, known, unknown)

    def sentence(self) -> str:
        """What the level is and how far it can be trusted, for a person."""
        if self.score is None:
            return "No level of doubt could be measured: the library has words of nearly all the phrases that test it."
        if self.known < LEAST:
            return (
                f"Below a score of {self.score:.2f}, which {1 - self.false_accepts:.0%} of unrelated phrases do not reach, a photo "
                "found by look is doubtful. The library has too few names and captions to tell how many of its own fall below."
            )
        if not self.tells:
            return (
                f"This encoder does not know what is in this library: {self.false_rejects:.0%} of its own names and captions "
                f"score below {self.score:.2f}, which {1 - self.false_accepts:.0%} of unrelated phrases do not reach."
            )
        return (
            f"Below a score of {self.score:.2f} a photo found by look is doubtful: {1 - self.false_accepts:.0%} of unrelated "
            f"phrases stay below, and {self.false_rejects:.0%} of the library's own names and captions."
        )


def _number(value: object) -> bool:
    return type(value) in (int, float) and value == value


def unrelated_phrases(stands_here: Callable[[str], bool]) -> list[str]:
    """The phrases of which no telling word stands in the library. stands_here(normalized word)."""
    from .prompts.words import function_words

    return [
        phrase
        for phrase in read_list("unrelated.txt")
        if not any(stands_here(word) for word in words(phrase) if word not in function_words())
    ]


def choose_level(known: np.ndarray, unknown: np.ndarray) -> tuple[float, bool]:
    """The score with the fewest false accepts and rejects (the middle of the widest such gap), and whether it tells the
    two apart. Where it does not, the score that only 5 % of the unknown ones reach."""
    scores = np.unique(np.concatenate([known, unknown]))
    bounds = (scores[1:] + scores[:-1]) / 2 if len(scores) > 1 else scores
    rejects = np.searchsorted(np.sort(known), bounds) / len(known)
    accepts = 1 - np.searchsorted(np.sort(unknown), bounds) / len(unknown)
    wrong = rejects + accepts
    best = np.flatnonzero(wrong <= wrong.min() + 1e-9)
    gaps = np.diff(scores)[best] if len(scores) > 1 else np.ones(1)
    level = float(bounds[best[gaps.argmax()]])
    if wrong.min() <= TELLS:
        return level, True
    return max(level, _by_unknown(known, unknown)[0]), False


def measured(known: np.ndarray, unknown: np.ndarray) -> Level:
    """The level of all questions; its rates by five-fold cross-validation, each fold judged by the level of the others."""
    if len(unknown) < LEAST:
        return Level(known=len(known), unknown=len(unknown))
    choose = choose_level if len(known) >= LEAST else _by_unknown
    score, tells = choose(known, unknown)
    rejected = accepted = 0
    for fold in range(FOLDS):
        inside, outside = (
            [values[np.arange(len(values)) % FOLDS == fold] for values in (known, unknown)],
            [values[np.arange(len(values)) % FOLDS != fold] for values in (known, unknown)],
        )
        level, _ = choose(*outside)
        rejected += int((inside[0] < level).sum())
        accepted += int((inside[1] >= level).sum())
    accepts, rejects = round(accepted / len(unknown), 4), round(rejected / max(1, len(known)), 4)
    return Level(round(score, DIGITS), accepts, rejects, tells, len(known), len(unknown))


def _by_unknown(known: np.ndarray, unknown: np.ndarray) -> tuple[float, bool]:
    """The score that only 5 % of the unknown ones reach, where too little is known to compare with."""
    level = float(np.quantile(unknown, 1 - ACCEPTED))
    return level + (10**-DIGITS if np.mean(unknown >= level) > 2 * ACCEPTED else 0.0), False  # above equal ones


def measure_level(
    encode: Callable[[list[str]], np.ndarray],
    vectors: Rows,
    classes: Sequence[str],
    class_codes: np.ndarray,
    captions: Sequence[tuple[int, str]],
    stands_here: Callable[[str], bool],
    progress: Callable[[int, int], None] | None = None,
    phrases: Sequence[str] | None = None,
) -> Level:
    """encode: texts -> (B, D) float32 unit vectors. vectors: (N, D) unit rows that the index searches. classes: names,
    "" for none; class_codes (N,) int: of each row. captions: (row, caption) that are no mere class names, some of all.
    stands_here(normalized word): whether the library has it. phrases: other unknown things to ask. progress(done, total) may raise to stop.
    """
    names = [code for code, name in enumerate(classes) if is_a_name(name)]
    names = [names[i] for i in _evenly(len(names), MOST_KNOWN)]
    captions = [captions[i] for i in _evenly(len(captions), MOST_KNOWN)]
    phrases = unrelated_phrases(stands_here) if phrases is None else list(phrases)
    if len(phrases) < LEAST:
        return Level(known=len(names) + len(captions), unknown=len(phrases))
    asked = [TEMPLATE.format(" ".join(words(classes[code]))) for code in names]
    asked += [caption for _, caption in captions]
    queries = encode([*asked, *phrases])
    rows = _evenly(len(vectors), MOST_ROWS)
    best = np.full(len(queries), -1.0, np.float32)
    codes = np.asarray(names)
    for start in range(0, len(rows), BLOCK):
        if progress:
            progress(start, len(rows))
        part = rows[start : start + BLOCK]
        scores = np.asarray(vectors[part], np.float32) @ queries.T
        of_class = class_codes[part][:, None] == codes[None]
        scores[:, : len(names)] = np.where(of_class, scores[:, : len(names)], -1)
        best = np.maximum(best, scores.max(axis=0))
    for number, (row, _) in enumerate(captions, len(names)):  # a caption is answered by its own photo
        best[number] = np.asarray(vectors[row], np.float32) @ queries[number]
    if progress:
        progress(len(rows), len(rows))
    known = best[: len(asked)]
    return measured(known[known > -1], best[len(asked) :])


def _evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` places, evenly spread."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)
