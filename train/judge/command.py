"""Did the pictures get better? Measures what a generator painted under each arm, with any encoder.

Writes judge.json and judge.html. An interrupted command resumes when run again."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from realrag import SMALL_ENCODER
from realrag.bundle.bundle import Bundle
from realrag.encoders.load import load_encoder
from realrag.errors import RealRAGError
from realrag.files import default_cache, write_json
from realrag.miniature.classifier import COPY_QUANTILE

from ..dataset import Prompt, photo_classes, read_prompts
from ..loop.stages import RESUME, OutOfTime
from ..pictures.arms import Picture, read_arm, with_references
from ..pictures.choose_references import read_choices
from ..retriever.prompts import class_prompts
from .inputs import Judged, aligned, judge, refuse_shared
from .table import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arm", action="append", required=True, metavar="NAME=PATH", help="a folder or table of pictures; once an arm"
    )
    parser.add_argument("--real", type=Path, required=True, metavar="BUNDLE", help="real photos that no arm was shown")
    parser.add_argument(
        "--library", type=Path, required=True, metavar="BUNDLE", help="the photos that references came from"
    )
    parser.add_argument(
        "--judge-photos", type=Path, metavar="BUNDLE", help="photos to teach the judges (default: half of --real)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="lines of {prompt, class} (default: one a class of --real)"
    )
    parser.add_argument(
        "--choices", type=Path, metavar="FILE", help="choices.jsonl of `choose`: which references each was shown"
    )
    parser.add_argument(
        "--encoder", action="append", metavar="NAME", help="as `realrag index` takes it; may be given again"
    )
    parser.add_argument("--copy-quantile", type=float, default=COPY_QUANTILE, metavar="Q", help="default %(default)s")
    parser.add_argument("--copy-threshold", type=float, metavar="COSINE", help="in place of the quantile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's own choice")
    parser.add_argument(
        "--max-minutes", type=float, default=0, help="stop in time; the same command goes on (0: never)"
    )


def named_paths(given: Sequence[str]) -> dict[str, Path]:
    """["NAME=PATH"] -> {name: path}."""
    found: dict[str, Path] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not (sign and name.strip() and path) or name in found:
            raise RealRAGError(f"--arm {text!r} does not read NAME=PATH, or its name is given twice.")
        found[name.strip()] = Path(path)
    return found


def prompts_of(file: Path | None, real: Bundle | None) -> list[Prompt]:
    """The prompts of a file, or else one for each class of the real photos. Without both none: tables carry their own."""
    if file:
        return read_prompts(file)
    return class_prompts(sorted(filter(None, set(photo_classes(real))))) if real else []


def read_arms(arguments: argparse.Namespace, prompts: Sequence[Prompt]) -> dict[str, list[Picture]]:
    """The arms of a command line, aligned, with the references from --choices if given."""
    choices = read_choices(arguments.choices) if getattr(arguments, "choices", None) else {}
    arms = {name: read_arm(path, prompts) for name, path in named_paths(arguments.arm).items()}
    for name in arms.keys() & choices.keys():
        if not {p.prompt for p in arms[name]} & choices[name].keys():
            asked = arms[name][0].prompt
            raise RealRAGError(
                f"{arguments.choices} has no references for {asked!r}, nor for any other prompt of the arm {name}. "
                "Give --prompts, the file that the references were chosen for."
            )
    return aligned({name: with_references(pictures, choices.get(name, {})) for name, pictures in arms.items()})


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    from .page import write_page

    if not 0 < arguments.copy_quantile <= 1:
        raise RealRAGError(
            f"--copy-quantile is {arguments.copy_quantile}; it is a share above 0 and at most 1, such as 0.99."
        )
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    until = time.monotonic() + 60 * arguments.max_minutes if arguments.max_minutes else float("inf")
    real, library = Bundle(arguments.real, default_cache()), Bundle(arguments.library, default_cache())
    taught = Bundle(arguments.judge_photos, default_cache()) if arguments.judge_photos else None
    refuse_shared(real, library, "Then copying would look real. Judge by photos that no arm was shown.")
    if taught:
        refuse_shared(real, taught, "Then the judges' ceiling would be what they learned by heart. Take them apart.")
        refuse_shared(taught, library, "Then a copied reference would be named by heart. Teach the judges from others.")
    arms = read_arms(arguments, prompts_of(arguments.prompts, real))
    judged = Judged(arms, real, library, taught, arguments.copy_quantile, arguments.copy_threshold, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def progress(done: int, total: int) -> None:
        if time.monotonic() > until:
            raise OutOfTime(f"Time is up. {RESUME}")
        if done < total:
            log(f"{done} of {total} pictures, {time.monotonic() - began:.0f} s")

    reports: dict[str, dict] = {}
    for name in arguments.encoder or [SMALL_ENCODER]:
        encoder = load_encoder(name, device=arguments.device)
        reports[name] = judge(judged, encoder, arguments.out / "vectors", progress)
        log(table(reports[name]) + "\n")
    metadata = {"real": real.id, "library": library.id, "judge_photos": taught and taught.id, "seed": arguments.seed}
    write_json(arguments.out / "judge.json", {"facts": metadata, "encoders": reports})
    write_page(arguments.out / "judge.html", reports, judged.arms, real)
    log(f"wrote {arguments.out / 'judge.json'} and judge.html")
