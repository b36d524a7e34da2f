"""Does a reflective retriever beat a plain one? `world` draws a procedural world, `run` does the whole experiment,
`ablate` varies what the paper does not, `photos` makes a world of real ones.

Stopped at any point, the same command goes on. What was registered stands in docs/registration.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from realrag.errors import RealRAGError
from realrag.files import write_atomic

from ..loop.progress import Progress
from ..loop.ranks import own_device, rank_and_world_size
from ..loop.stages import stopping
from . import own_photos
from .ablations import Ablations
from .config import Painting, find_world, read_plan, recipe_of
from .experiment import STAGES, Reproduction
from .procedural.world import write_world


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="reproduce", required=True)
    world = commands.add_parser("world", help="draw the photos of a procedural world, with labels.csv and the split")
    run = commands.add_parser("run", help=f"all stages: {', '.join(STAGES)}")
    ablate = commands.add_parser("ablate", help="after `run`: one knob after another, as registered")
    own = commands.add_parser("photos", help="a world of your own photos, for `photos` in [experiment]")
    own_photos.add_arguments(own)
    own.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    for command in (world, run, ablate):
        command.add_argument("world", metavar="WORLD", nargs="?" if command is world else None, default="procedural",
                             help="a TOML file, or procedural")  # fmt: skip
        command.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    for command in (run, ablate):
        command.add_argument(
            "--mobilenet", default="", metavar="FILE", help="for a starting encoder, made by convert-mobilenet"
        )
        command.add_argument("--encoder", default="", metavar="NAME", help="in place of a starting encoder of its own")
        for name in Painting.paths:
            command.add_argument(
                f"--{name}", default="", metavar="FILE", help=f"of the miniature that paints: its {name}"
            )
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's own choice")
        command.add_argument(
            "--max-minutes", type=float, default=0, help="stop in time; the same command goes on (0: never)"
        )
    run.add_argument("--stage", choices=STAGES, help="only this one")


def run(arguments: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    if arguments.reproduce == "photos":
        facts = own_photos.write_photos(
            arguments.photos, arguments.out, arguments.captions, arguments.groups, arguments.group_words, arguments.unseen,
            arguments.novel, arguments.seed,
        )  # fmt: skip
        say(
            f"{arguments.out}: {len(facts['classes'])} classes; photos: {', '.join(f'{n} {c}' for n, c in facts['photos'].items())}"
        )
        return
    path = find_world(arguments.world)
    named = {name: getattr(arguments, name, "") for name in Painting.paths}
    plan = read_plan(path, {**named, "kind": "miniature" if any(named.values()) else ""})
    with stopping():
        if arguments.reproduce == "world":
            facts = write_world(plan.world, arguments.out, Progress(say, "photos"))
            say(f"{arguments.out}: {len(facts['classes'])} classes, {facts['kind']}")
            return
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        if (share := rank_and_world_size())[1] > 1 and getattr(arguments, "stage", None) != "paint":
            raise RealRAGError(
                "torchrun shares the work of `--stage paint`. Run the other stages once, without torchrun."
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
            say=say,
            rank=share[0],
            world_size=share[1],
        )
        if arguments.reproduce == "ablate":
            work.run()
            say(f"{work.home}: ablations.md, ablations.json")
            return
        write_atomic(arguments.out / "plan.json", plan.as_json(work.recipe).encode())
        for stage in [arguments.stage] if arguments.stage else STAGES:
            work.stage(stage)
