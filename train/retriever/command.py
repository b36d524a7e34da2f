"""`run --photos PHOTOS --workflow WORKFLOW.json`: from your photos and your generator to a reflective retriever and a verdict.

Everything that is cheap to check is checked first. A stopped run resumes with the same command."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from realrag.errors import RealRAGError
from realrag.files import write_atomic

from ..loop.ranks import own_device, rank_and_world_size
from ..loop.stages import Log, stopping
from ..sections import find_recipe
from .preflight import check_generator
from .recipe import Recipe, read_recipe
from .run import STAGES, Run

GIVEN = ("photos", "captions", "test_photos", "groups", "encoder", "mobilenet", "validation")
IMAGINED = ("workflow", "prompt_node", "seed_node", "url")
DEFAULT_RECIPE = "recommended"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", nargs="?", default="", help="a TOML file, or paper, recommended, tiny-cpu"
    )
    parser.add_argument(
        "--recipe", dest="recipe_flag", default="", metavar="RECIPE", help=f"the same; without one, {DEFAULT_RECIPE}"
    )
    parser.add_argument(
        "--photos", default="", metavar="FOLDER", help="your photos, one folder per class or with captions"
    )
    parser.add_argument(
        "--workflow", default="", metavar="FILE", help="your ComfyUI workflow, from Workflow > Export (API)"
    )
    parser.add_argument(
        "--prompt-node",
        default="",
        metavar="TITLE",
        help="the node that takes the prompt, if it is not found by itself",
    )
    parser.add_argument("--seed-node", default="", metavar="TITLE", help="the node that takes the seed")
    parser.add_argument("--url", default="", metavar="URL", help="ComfyUI's address (default http://127.0.0.1:8188)")
    parser.add_argument(
        "--out", type=Path, default=Path("retriever-run"), metavar="FOLDER",
        help="everything is written here (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--captions", default="", metavar="FILE", help="CSV or JSONL with file, class, caption")
    parser.add_argument(
        "--test-photos",
        default="",
        metavar="FOLDER",
        help="photos for the evaluation; without it some of yours are kept for it",
    )
    parser.add_argument("--groups", default="", metavar="FILE", help="CSV with class, coarse_class (for the stand-in)")
    parser.add_argument("--encoder", default="", metavar="NAME", help="an encoder, as for `realrag index`")
    parser.add_argument("--mobilenet", default="", metavar="FILE", help="for recipes that train a starting encoder")
    parser.add_argument(
        "--validation", default="", metavar="FOLDER", help="photos to choose the head by, or to tune caption noise on"
    )
    parser.add_argument(
        "--seeds", type=int, default=0, metavar="N", help="trainings of each arm (default 5, or the recipe's)"
    )
    parser.add_argument("--check", action="store_true", help="only check, draw one picture and print the plan")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's default")
    parser.add_argument(
        "--max-minutes", type=float, default=0, help="stop after this long; the same command resumes (0: no limit)"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="also write TensorBoard event files beside the CSV logs of fit"
    )
    parser.add_argument("--wandb", default="", metavar="PROJECT", help="also log fit to this Weights & Biases project")


def chosen_recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe with what the command line says in place of its own."""
    if arguments.recipe and arguments.recipe_flag:
        raise RealRAGError(f"Two recipes, {arguments.recipe} and {arguments.recipe_flag}. Give one.")
    name = arguments.recipe or arguments.recipe_flag or DEFAULT_RECIPE
    recipe = read_recipe(find_recipe(name), {each: getattr(arguments, each) for each in GIVEN})
    if recipe.encoder is not None:
        raise RealRAGError(f"{name} is a recipe for training an encoder: `python -m train encoder --recipe {name}`.")
    told = {each: value for each in IMAGINED if (value := getattr(arguments, each))}
    imagine = replace(recipe.imagine, **told)
    if not (arguments.recipe or arguments.recipe_flag) and not arguments.workflow:
        imagine = replace(imagine, workflow="")  # the name that the recipe has is an example
    if arguments.seeds < 0:
        raise RealRAGError(f"--seeds is {arguments.seeds}; it starts at 1.")
    evaluate = replace(recipe.evaluate, seeds=arguments.seeds) if arguments.seeds else recipe.evaluate
    return replace(recipe, imagine=imagine, evaluate=evaluate)


def run(arguments: argparse.Namespace, log: Log = lambda line: print(line, flush=True), only: str = "") -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rank, world_size = rank_and_world_size(several_machines=only == "embed")
    if world_size > 1 and only != "embed":
        raise RealRAGError(
            "torchrun only splits the work of `embed` and `fit`. Run this command once, without torchrun."
        )
    recipe = chosen_recipe(arguments)
    if not only:
        check_generator(recipe, lambda line: None)  # before anything is made
    arguments.out.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        write_atomic(arguments.out / "recipe.json", recipe.as_json().encode())
    own_log = log if world_size == 1 else lambda line: log(f"[{rank}] {line}")
    work = Run(
        recipe, arguments.out, device=own_device(arguments.device), max_minutes=arguments.max_minutes,
        tensorboard=arguments.tensorboard, wandb=arguments.wandb, log=own_log, rank=rank, world_size=world_size,
    )  # fmt: skip
    with stopping():
        if not only:
            work.check()
        for stage in (only,) if only else () if arguments.check else STAGES[not recipe.start.mobilenet :]:
            work.stage(stage)
