"""Which picture do people prefer? `make` writes a page to vote on, blinded, and the key to it; `read` un-blinds the votes and
reads them as Bradley-Terry strengths."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from realrag.bundle import Bundle
from realrag.errors import RealRAGError
from realrag.files import canonical_json, default_cache, sha256_bytes, write_atomic
from realrag.records import strict_json

from .arms import Picture, class_key
from .bradley_terry import Votes, read_votes_as_strengths
from .drawing import photo_classes
from .evaluate import write_report
from .imagine import class_prompts
from .judge import read_arms
from .material import read_prompts

HELP = "make a blinded side-by-side page for people to vote on, and read their votes"
QUESTION = "Which picture shows better what the words say?"
FORMAT, VERSION = "realrag-votes", 1
SCORES = {"left": 1.0, "right": 0.0, "tie": 0.5}
MAX_VOTES = 16 << 20  # bytes of one voter's file


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt and seed, under a name that does not tell which is which."""

    id: str
    prompt: str
    class_name: str
    seed: int
    left: str  # arm
    right: str
    files: tuple[Path, Path]


def make_pairs(arms: dict[str, list[Picture]], most: int, seed: int = 0) -> list[Pair]:
    """At most `most` pairs in random order, as many of each two arms as of any other and, of those, either arm to the left
    equally often (give or take one). Prompts are spread: none comes again before all did."""
    if len(arms) < 2:
        raise RealRAGError("A vote needs two arms or more. Give --arm NAME=FOLDER twice.")
    dice, couples = np.random.default_rng(seed), list(combinations(sorted(arms), 2))
    count = len(next(iter(arms.values())))
    each = min(count, max(1, most // len(couples)))
    pairs = []
    for a, b in couples:
        turned = dice.permutation(np.arange(each) % 2)
        for at, turn in zip(_spread(arms[a], dice)[:each], turned):
            (left, right), picture = ((b, a) if turn else (a, b)), arms[a][at]
            files = arms[left][at].file, arms[right][at].file
            pairs.append(Pair(dice.bytes(8).hex(), picture.prompt, picture.class_name, picture.seed, left, right, files))
    return [pairs[i] for i in dice.permutation(len(pairs))]


def _spread(pictures: Sequence[Picture], dice: np.random.Generator) -> list[int]:
    """Numbers of the pictures in random order, the first of every prompt before the second of any."""
    rounds, came = [], {}
    for at in dice.permutation(len(pictures)):
        came[pictures[at].prompt] = came.get(pictures[at].prompt, 0) + 1
        rounds.append((came[pictures[at].prompt], int(at)))
    return [at for _, at in sorted(rounds, key=lambda each: each[0])]


def write_votes_page(folder: Path, pairs: Sequence[Pair], question: str, real: Bundle | None, size: int) -> str:
    """folder/vote.html for the voters, folder/key.json to keep from them; returns the page's id. real: one photo of the
    class is shown beside each pair."""
    from .votes_page import html_page, jpeg_url

    photos: dict[str, int] = {}
    for row, name in enumerate(photo_classes(real)) if real else ():
        photos.setdefault(class_key(name), row)
    shown = []
    for pair in pairs:
        entry = {"id": pair.id, "prompt": pair.prompt, "left": jpeg_url(pair.files[0], size), "right": jpeg_url(pair.files[1], size)}
        if (row := photos.get(class_key(pair.class_name))) is not None:
            entry["real"] = jpeg_url(real.image(real.records[row]), size)
        shown.append(entry)
    page = sha256_bytes(canonical_json([question, shown]))[:16]
    facts = {p.id: {"left": p.left, "right": p.right, "prompt": p.prompt, "class": p.class_name, "seed": p.seed} for p in pairs}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "vote.html", html_page(page, question, shown))
    write_report(folder / "key.json", {"format": "realrag-votes-key", "version": VERSION, "page": page, "question": question,
                                       "pairs": facts})  # fmt: skip
    return page


# Reading


def read_key(path: Path) -> dict:
    return _read(path, "realrag-votes-key", {"page": str, "question": str, "pairs": dict})


def _read(path: Path, form: str, wanted: dict[str, type]) -> dict:
    try:
        if path.stat().st_size > MAX_VOTES:
            raise ValueError(f"more than {MAX_VOTES >> 20} MiB")
        content = strict_json(path.read_bytes())
        if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (form, VERSION):
            raise ValueError(f"it does not say format {form!r}, version {VERSION}")
        for name, kind in wanted.items():
            if not isinstance(content.get(name), kind):
                raise ValueError(f"{name!r} is missing or of another kind")
    except (OSError, ValueError) as error:
        raise RealRAGError(f"{path} cannot be read: {error}. Give the file as it was written.") from None
    return content


def read_votes(key: dict, files: Sequence[Path]) -> tuple[Votes, list[tuple[str, str]], int]:
    """The votes of all files, un-blinded; (voter, choice) of each; and how many were replaced: where one name voted twice on
    a pair, the later file counts. RealRAGError when a file is of another page."""
    kept: dict[tuple[str, str], str] = {}
    cast = 0
    for file in files:
        content = _read(file, FORMAT, {"page": str, "voter": str, "votes": list})
        if content["page"] != key["page"]:
            raise RealRAGError(f"{file} is of the page {content['page'][:16]}, the key of {key['page']}. Give the key made with it.")
        for vote in content["votes"]:
            pair, choice = (vote.get(name) for name in ("pair", "choice")) if isinstance(vote, dict) else (None, None)
            if not isinstance(pair, str) or pair not in key["pairs"] or choice not in tuple(SCORES):
                raise RealRAGError(f"{file} holds the vote {str(vote)[:80]}; each names a pair of the page, and left, right or tie.")
            kept[content["voter"].strip(), pair] = choice
            cast += 1
    if not kept:
        raise RealRAGError("There is no vote in these files. Ask the voters to vote, then to download their votes.")
    pairs = [key["pairs"][pair] for _, pair in kept]
    arms = tuple(sorted({pair[side] for pair in pairs for side in ("left", "right")}))
    number = lambda names: np.unique(names, return_inverse=True)[1]  # noqa: E731
    votes = Votes(
        arms, *(np.array([arms.index(pair[side]) for pair in pairs]) for side in ("left", "right")),
        np.array([SCORES[choice] for choice in kept.values()]), number([pair["prompt"] for pair in pairs]),
        number([voter for voter, _ in kept]),
    )  # fmt: skip
    return votes, [(voter, choice) for (voter, _), choice in kept.items()], cast - len(kept)


def read_page(key: dict, files: Sequence[Path]) -> dict:
    """The report of `votes read`."""
    votes, cast, replaced = read_votes(key, files)
    sides = [choice for _, choice in cast if choice != "tie"]
    report = {
        "question": key["question"], "page": key["page"], "votes": len(cast), "voters": len({voter for voter, _ in cast}),
        "replaced": replaced, "prompts": len(np.unique(votes.prompts)), "ties": len(cast) - len(sides),
        "left_share": round(sides.count("left") / len(sides), 5) if sides else None, "model": "Bradley-Terry, a tie is half a win",
    }  # fmt: skip
    return {**report, **read_votes_as_strengths(votes)}


def table(report: dict) -> str:
    left = "" if report["left_share"] is None else f", the left one preferred in {report['left_share']:.0%} of the others"
    lines = [f"{report['question']}\n{report['votes']} votes of {report['voters']} voters on {report['prompts']} prompts, "
             f"{report['ties']} ties{left}", "", f"{'arm':<14}{'strength':>9}   95 % interval (voters and prompts resampled)"]  # fmt: skip
    lines += [f"{arm:<14}{s:>+9.3f}   {low:+.3f} to {high:+.3f}" for arm, (s, low, high) in report["strengths"].items()]
    lines += ["", "pair: wins, ties, losses; share of wins, ties halved; difference of strength (not resolved where 0 lies inside)"]
    for pair, row in report["pairs"].items():
        apart = "{:+.3f} ({:+.3f} to {:+.3f})".format(*row["apart"])
        if "share" in row:
            share = "{:.1%} ({:.1%} to {:.1%})".format(*row["share"])
            lines.append(f"{pair}: {row['wins']}, {row['ties']}, {row['losses']}; {share}; {apart}")
        else:
            lines.append(f"{pair}: never side by side; {apart}")
    if report["replaced"]:
        lines.append(f"{report['replaced']} votes were replaced by later ones of the same name. Did two people share it?")
    if report["voters"] == 1:
        lines.append("One voter: the intervals say nothing about other people.")
    return "\n".join(lines)


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="votes", required=True)
    make = commands.add_parser("make", help="write vote.html and key.json")
    make.add_argument("--arm", action="append", required=True, metavar="NAME=PATH", help="a folder or table of pictures; once an arm")
    make.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    make.add_argument("--prompts", type=Path, metavar="FILE", help="lines of {prompt, class} (default: one a class of --real)")
    make.add_argument("--real", type=Path, metavar="BUNDLE", help="show a real photo of the class beside each pair")
    make.add_argument("--pairs", type=int, default=100, help="at most this many (default %(default)s)")
    make.add_argument("--question", default=QUESTION)
    make.add_argument("--size", type=int, default=512, help="longest side of a picture in pixels (default %(default)s)")
    make.add_argument("--seed", type=int, default=0)
    read = commands.add_parser("read", help="un-blind votes and read them")
    read.add_argument("key", type=Path, metavar="KEY", help="key.json")
    read.add_argument("files", type=Path, nargs="+", metavar="VOTES", help="the voters' files")
    read.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")


def run(arguments: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    if arguments.votes == "read":
        report = read_page(read_key(arguments.key), arguments.files)
        say(table(report))
        if arguments.out:
            write_report(arguments.out, report)
        return
    real = Bundle(arguments.real, default_cache()) if arguments.real else None
    if arguments.prompts:
        prompts = read_prompts(arguments.prompts)
    elif real:
        prompts = class_prompts(sorted(filter(None, set(photo_classes(real)))))
    else:
        prompts = []  # tables say their prompts themselves
    pairs = make_pairs(read_arms(arguments, prompts), arguments.pairs, arguments.seed)
    page = write_votes_page(arguments.out, pairs, arguments.question, real, arguments.size)
    megabytes = (arguments.out / "vote.html").stat().st_size / 1e6
    say(f"{len(pairs)} pairs, page {page}: send {arguments.out / 'vote.html'} ({megabytes:.1f} MB) to the voters, keep key.json")
