"""Does a reflective retriever beat a plain one? `world` draws a procedural world, `run` runs the whole experiment,
`ablate` varies settings that the paper leaves fixed, `photos` makes a world of real photos, and `ceiling` asks the judges
of a world whether they name its real photos. Of finished results, `pool` takes several worlds together, `power` states how
many classes another experiment needs, and `paper` prints relative gains beside the paper's.

An interrupted command resumes when run again. docs/registration.md holds the registration."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from realrag.errors import RealRAGError
from realrag.files import write_atomic

from ..loop.progress import Progress
from ..loop.ranks import own_device, rank_and_world_size
from ..loop.stages import stopping
from . import ceiling, own_photos, readings
from .ablations import Ablations
from .config import Painting, find_world, read_plan, recipe_of
from .experiment import STAGES, Reproduction
from .procedural.world import write_world


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="reproduce", required=True)
    world = commands.add_parser("world", help="draw the photos of a procedural world, with labels.csv and the split")
    run = commands.add_parser("run", help=f"all stages: {', '.join(STAGES)}")
    ablate = commands.add_parser("ablate", help="after `run`: one setting after another, as registered")
    own = commands.add_parser("photos", help="a world of your own photos, for `photos` in [experiment]")
    own_photos.add_arguments(own)
    own.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    ceiling.add_arguments(
        commands.add_parser(
            "ceiling",
            help="the first gates: how many real photos the judges name, and how many of a generator's own pictures",
        )
    )
    readings.add_arguments(commands)
    for command in (world, run, ablate):
        command.add_argument("world", metavar="WORLD", nargs="?" if command is world else None, default="procedural",
                             help="a TOML file, or procedural")  # fmt: skip
        command.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    for command in (run, ablate):
        command.add_argument(
            "--mobilenet", default="", metavar="FILE", help="for a starting encoder, made by convert-mobilenet"
        )
        command.add_argument(
            "--encoder", default="", metavar="NAME", help="use this encoder instead of training a starting encoder"
        )
        for name in Painting.paths:
            command.add_argument(f"--{name}", default="", metavar="FILE", help=f"{name} of the miniature that paints")
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's default")
        command.add_argument(
            "--max-minutes", type=float, default=0, help="stop after this long; the same command resumes (0: no limit)"
        )
    run.add_argument("--stage", choices=STAGES, help="run only this stage")


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    if arguments.reproduce == "photos":
        report = own_photos.write_photos(
            arguments.photos, arguments.out, arguments.captions, arguments.groups, arguments.group_words, arguments.unseen,
            arguments.novel, arguments.seed,
        )  # fmt: skip
        log(
            f"{arguments.out}: {len(report['classes'])} classes; photos: {', '.join(f'{n} {c}' for n, c in report['photos'].items())}"
        )
        return
    if arguments.reproduce in readings.READINGS:
        readings.run(arguments, log)
        return
    if arguments.reproduce == "ceiling":
        with tempfile.TemporaryDirectory() as scratch:
            ceiling.run(arguments, log, Path(scratch), Progress(log, "pictures"))
        return
    path = find_world(arguments.world)
    named = {name: getattr(arguments, name, "") for name in Painting.paths}
    plan = read_plan(path, {**named, "kind": "miniature" if any(named.values()) else ""})
    with stopping():
        if arguments.reproduce == "world":
            report = write_world(plan.world, arguments.out, Progress(log, "photos"))
            log(f"{arguments.out}: {len(report['classes'])} classes, {report['kind']}")
            return
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        rank, world_size = rank_and_world_size()
        if world_size > 1 and getattr(arguments, "stage", None) != "paint":
            raise RealRAGError(
                "torchrun only splits the work of `--stage paint`. Run the other stages once, without torchrun."
            )
        recipe = recipe_of(plan, path, {"mobilenet": arguments.mobilenet, "encoder": arguments.encoder})
        arguments.out.mkdir(parents=True, exist_ok=True)
        kind = Ablations if arguments.reproduce == "ablate" else Reproduction
        work = kind(
            plan,
            recipe,
            arguments.out,
            device=own_device(arguments.device),
            max_minutes=arguments.max_minutes,
            log=log,
            rank=rank,
            world_size=world_size,
        )
        if arguments.reproduce == "ablate":
            work.run()
            log(f"{work.home}: ablations.md, ablations.json")
            return
        write_atomic(arguments.out / "plan.json", plan.as_json(work.recipe).encode())
        for stage in [arguments.stage] if arguments.stage else STAGES:
            work.stage(stage)
