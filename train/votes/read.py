"""Unblinds the voters' files with the key and reports the strengths of the arms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from realrag.errors import RealRAGError
from realrag.interval_text import span, with_interval
from realrag.validation import strict_json

from ..stats import FEWEST
from .bradley_terry import Votes, read_votes_as_strengths
from .make import KEY
from .page import FORMAT, VERSION

SCORES = {"left": 1.0, "right": 0.0, "tie": 0.5}
MAX_VOTES = 16 << 20  # bytes of one voter's file


def read_key(path: Path) -> dict:
    return _read(path, KEY, {"page": str, "question": str, "pairs": dict})


def _read(path: Path, form: str, wanted: dict[str, type]) -> dict:
    try:
        if path.stat().st_size > MAX_VOTES:
            raise ValueError(f"more than {MAX_VOTES >> 20} MiB")
        content = strict_json(path.read_bytes())
        if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (form, VERSION):
            raise ValueError(f"its format is not {form!r}, version {VERSION}")
        for name, kind in wanted.items():
            if not isinstance(content.get(name), kind):
                raise ValueError(f"{name!r} is missing or has another type")
    except (OSError, ValueError) as error:
        raise RealRAGError(f"{path} cannot be read: {error}. Use the file as it was written.") from None
    return content


def read_votes(key: dict, files: Sequence[Path]) -> tuple[Votes, list[tuple[str, str]], int]:
    """The unblinded votes of all files, (voter, choice) of each, and how many were replaced: if one name voted twice on
    a pair, the later file counts. RealRAGError if a file belongs to another page."""
    kept: dict[tuple[str, str], str] = {}
    cast = 0
    for file in files:
        content = _read(file, FORMAT, {"page": str, "voter": str, "votes": list})
        if content["page"] != key["page"]:
            raise RealRAGError(
                f"{file} is of the page {content['page'][:16]}, the key of {key['page']}. Use the key that was made with it."
            )
        for vote in content["votes"]:
            pair, choice = (vote.get(name) for name in ("pair", "choice")) if isinstance(vote, dict) else (None, None)
            if not isinstance(pair, str) or pair not in key["pairs"] or choice not in tuple(SCORES):
                raise RealRAGError(
                    f"{file} holds the vote {str(vote)[:80]}; each names a pair of the page, and left, right or tie."
                )
            kept[content["voter"].strip(), pair] = choice
            cast += 1
    if not kept:
        raise RealRAGError("These files contain no votes. Ask the voters to vote and then download their votes.")
    pairs = [key["pairs"][pair] for _, pair in kept]
    arms = tuple(sorted({pair[side] for pair in pairs for side in ("left", "right")}))

    def number(names):
        return np.unique(names, return_inverse=True)[1]

    votes = Votes(
        arms, *(np.array([arms.index(pair[side]) for pair in pairs]) for side in ("left", "right")),
        np.array([SCORES[choice] for choice in kept.values()]), number([pair["prompt"] for pair in pairs]),
        number([voter for voter, _ in kept]),
    )  # fmt: skip
    return votes, [(voter, choice) for (voter, _), choice in kept.items()], cast - len(kept)


def read_page(key: dict, files: Sequence[Path]) -> dict:
    """The report of `votes read`: counts, strengths and pairs."""
    votes, cast, replaced = read_votes(key, files)
    sides = [choice for _, choice in cast if choice != "tie"]
    report = {
        "question": key["question"], "page": key["page"], "model": "Bradley-Terry, a tie is half a win",
        "votes": len(cast), "voters": len({voter for voter, _ in cast}), "replaced": replaced,
        "prompts": len(np.unique(votes.prompts)), "ties": len(cast) - len(sides),
        "left_share": round(sides.count("left") / len(sides), 5) if sides else None,
    }  # fmt: skip
    return {**report, **read_votes_as_strengths(votes)}


def table(report: dict) -> str:
    left = report["left_share"]
    lines = [
        report["question"],
        f"{report['votes']} votes by {report['voters']} voters on {report['prompts']} prompts, {report['ties']} ties"
        + ("" if left is None else f"; the left picture won {left:.0%} of the others"),
        "",
        f"{'arm':<14}{'strength':>9}   95 % interval (voters and prompts resampled)",
    ]
    lines += [f"{arm:<14}{row[0]:>+9.3f}   {span(row)}" for arm, row in report["strengths"].items()]
    lines += [
        "",
        "pair: wins, ties, losses; share of wins, ties halved; difference of strength (0 inside: not resolved)",
    ]
    for pair, row in report["pairs"].items():
        apart = with_interval(row["apart"], "+.3f")
        if "share" in row:
            share = with_interval(row["share"], ".1%")
            lines.append(f"{pair}: {row['wins']}, {row['ties']}, {row['losses']}; {share}; {apart}")
        else:
            lines.append(f"{pair}: never side by side; {apart}")
    if report["replaced"]:
        lines.append(
            f"{report['replaced']} votes were replaced by later ones of the same name. Did two people share it?"
        )
    if report["voters"] == 1:
        lines.append("One voter: the intervals say nothing about other people.")
    elif report["voters"] < FEWEST:
        lines.append(f"{report['voters']} voters: so few cannot speak for other people, whatever the intervals are.")
    return "\n".join(lines)
