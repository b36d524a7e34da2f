"""Which picture do people prefer? `make` writes a blinded page to vote on, and its key. `read` unblinds the votes and
computes Bradley-Terry strengths."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from realrag.bundle.bundle import Bundle
from realrag.files import default_cache, write_json

from ..judge.command import prompts_of, read_arms
from .make import make_pairs, write_votes_page
from .read import read_key, read_page, table

QUESTION = "Which picture shows better what the words say?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="votes", required=True)
    make = commands.add_parser("make", help="write vote.html and key.json")
    make.add_argument(
        "--arm", action="append", required=True, metavar="NAME=PATH", help="a folder or table of pictures; once an arm"
    )
    make.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    make.add_argument(
        "--prompts", type=Path, metavar="FILE", help="lines of {prompt, class} (default: one a class of --real)"
    )
    make.add_argument("--real", type=Path, metavar="BUNDLE", help="show a real photo of the class beside each pair")
    make.add_argument("--pairs", type=int, default=100, help="at most this many (default %(default)s)")
    make.add_argument("--question", default=QUESTION)
    make.add_argument("--size", type=int, default=512, help="longest side of a picture in pixels (default %(default)s)")
    make.add_argument("--seed", type=int, default=0)
    read = commands.add_parser("read", help="un-blind votes and read them")
    read.add_argument("key", type=Path, metavar="KEY", help="key.json")
    read.add_argument("files", type=Path, nargs="+", metavar="VOTES", help="the voters' files")
    read.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    if arguments.votes == "read":
        report = read_page(read_key(arguments.key), arguments.files)
        log(table(report))
        if arguments.out:
            write_json(arguments.out, report)
        return
    real = Bundle(arguments.real, default_cache()) if arguments.real else None
    arms = read_arms(arguments, prompts_of(arguments.prompts, real))
    pairs = make_pairs(arms, arguments.pairs, arguments.seed)
    page = write_votes_page(arguments.out, pairs, arguments.question, real, arguments.size)
    megabytes = (arguments.out / "vote.html").stat().st_size / 1e6
    log(
        f"{len(pairs)} pairs, page {page}: send {arguments.out / 'vote.html'} ({megabytes:.1f} MB) to the voters, "
        "and keep key.json from them"
    )
