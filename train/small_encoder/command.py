"""`python -m train encoder`: the small dual encoder, trained on captioned photos, with headroom or without."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from realrag.errors import RealRAGError

from ..flags import add_flags, chosen
from ..loop.stages import Log
from ..loop.watch import WatchConfig
from ..sections import find_recipe, read_section
from .captioned_photos import choose_left_out, photo_set_metadata, read_captioned, read_grocery, read_train
from .headroom import find_headroom
from .train import EncoderJob, train_encoder
from .trainer import EncoderConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photos", type=Path, metavar="DIR", help="any photos: folders are classes, or see --captions")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="CSV or JSONL with file, class, caption")
    parser.add_argument(
        "--validation", type=Path, metavar="DIR", help="other photos of the same classes, for measuring"
    )
    parser.add_argument(
        "--headroom", type=float, nargs=2, metavar=("LEAST", "MOST"),
        help="tune --noise until R@1 on the validation photos lies between these, for example 0.45 0.7",
    )  # fmt: skip
    for name in ("grocery", "clothing", "subjects"):
        parser.add_argument(
            f"--{name}", type=Path, metavar="DIR", help="without --photos: what realrag-small learned from"
        )
    parser.add_argument("--mobilenet", type=Path, required=True, metavar="FILE", help="made by convert-mobilenet")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors to write")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="cached features and the checkpoint (default: beside --out)"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--recipe", metavar="RECIPE", help="a TOML file whose section [encoder] holds settings, or small-encoder"
    )
    add_flags(parser, EncoderConfig, from_recipe=True, numeric=True)
    add_flags(parser, WatchConfig, skip=("sheet_minutes",))


def chosen_config(arguments: argparse.Namespace) -> EncoderConfig:
    """The recipe's settings, or the defaults, with the given flags in their place."""
    recipe = arguments.recipe and find_recipe(arguments.recipe)
    config = read_section(recipe, "encoder", EncoderConfig) if recipe else EncoderConfig()
    if config is None:
        raise RealRAGError(f"{arguments.recipe} has no section [encoder]: it is a recipe for `python -m train run`.")
    return chosen(arguments, config)


def run(arguments: argparse.Namespace, log: Log = lambda line: print(line, flush=True)) -> None:
    torch.set_num_threads(arguments.threads)
    config, watch = chosen_config(arguments), chosen(arguments, WatchConfig())
    three = [arguments.grocery, arguments.clothing, arguments.subjects]
    if arguments.photos and config.left_out:
        raise RealRAGError("--left-out counts grocery classes. With --photos, leave classes out of the folder instead.")
    if arguments.photos and arguments.validation and not any(three):
        data, val = (read_captioned(folder, arguments.captions) for folder in (arguments.photos, arguments.validation))
        about = {
            "data": photo_set_metadata(data, arguments.photos),
            "validated_on": photo_set_metadata(val, arguments.validation),
        }
        job = EncoderJob(data, val, arguments.mobilenet, about=about)
    elif all(three) and not (arguments.photos or arguments.headroom):
        names = choose_left_out(arguments.grocery, config.left_out, config.left_out_seed)
        data, val = read_train(*three, names), read_grocery(arguments.grocery, "val")
        # The cache holds the left-out photos too, so that both encoders share it; training never sees their rows.
        job = EncoderJob(
            data, val, arguments.mobilenet, cached=read_train(*three), names=names,
            about={"left_out": names, "data": ["grocery train", "clothing", "subjects"]},
        )  # fmt: skip
    else:
        raise RealRAGError(
            "Give --photos and --validation, or --grocery, --clothing and --subjects (without --headroom)."
        )
    job = replace(job, scratch=arguments.scratch, watch=watch, log=log)
    if arguments.headroom:
        find_headroom(config, job, arguments.out, tuple(arguments.headroom))
    else:
        train_encoder(config, job, arguments.out)
