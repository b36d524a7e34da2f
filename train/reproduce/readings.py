"""The commands that read finished results: `pool`, `power` and `paper`. They print Markdown and paint nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from realrag.errors import RealRAGError
from realrag.files import write_atomic

from . import paper
from .pool import pool_report
from .power import EFFECTS, power_report
from .published import Published, read_published

READINGS = {
    "pool": "several worlds: the fixed-effect mean of the primary endpoint, and Cochran's Q",
    "power": "one result: how many classes would settle an effect",
    "paper": "relative gains beside those that the paper prints",
}


def add_arguments(commands: argparse._SubParsersAction) -> None:
    for name, help_text in READINGS.items():
        command = commands.add_parser(name, help=help_text)
        command.add_argument(
            "results", nargs=None if name == "power" else "+", type=Path, metavar="RESULTS",
            help="results.json or results.md of `run`; a file of experiments/results",
        )  # fmt: skip
        command.add_argument("--out", type=Path, metavar="FILE", help="write the Markdown there too")
        if name == "power":
            command.add_argument(
                "--minutes", type=float, default=0.0, help="how long its pictures took to paint, for hours (0: none)"
            )
            command.add_argument(
                "--effects", nargs="+", type=float, default=list(EFFECTS), metavar="DIFFERENCE", help="0.01 is a point"
            )


def run(arguments: argparse.Namespace, log: Callable[[str], None]) -> None:
    """RealRAGError if a file is no result, or if the results do not go together."""
    if arguments.reproduce == "power":
        lines = power_report(read_published(arguments.results), arguments.minutes, arguments.effects)
    else:
        found = [read_published(path) for path in arguments.results]
        if repeated := sorted({each.name for each in found if sum(each.name == other.name for other in found) > 1}):
            raise RealRAGError(
                f"Two results are named {repeated[0]}. Give each once, in a file or folder of another name."
            )
        lines = pool_report(found) if arguments.reproduce == "pool" else paper_report(found)
    text = "\n".join(lines) + "\n"
    if arguments.out:
        write_atomic(arguments.out, text.encode())
    log(text)


def paper_report(experiments: list[Published]) -> list[str]:
    """Markdown lines."""
    columns = {each.name: (each.relative, each.points) for each in experiments}
    return ["# Beside the paper's Flux", "", *paper.table(columns), "", paper.NOTE, "", paper.FROM_POINTS]
