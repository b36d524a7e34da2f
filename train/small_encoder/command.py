"""`python -m train encoder`: the small dual encoder, trained on captioned photos, with headroom or without."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from realrag.errors import RealRAGError

from ..sections import find_recipe, read_section
from .captioned_photos import (
    choose_left_out,
    read_captioned,
    read_grocery,
    read_train,
    told,
)
from .headroom import find_headroom
from .train import Say, train_encoder
from .trainer import EncoderConfig

HELP = "train the small dual encoder on captioned photos, or on what realrag-small learnt from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photos", type=Path, metavar="DIR", help="any photos: folders are classes, or see --captions")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="CSV or JSONL with file, class, caption")
    parser.add_argument(
        "--validation", type=Path, metavar="DIR", help="other photos of the same classes, to measure on"
    )
    parser.add_argument(
        "--headroom", type=float, nargs=2, metavar=("LEAST", "MOST"),
        help="tune --noise until R@1 on the validation photos lies between these, for example 0.45 0.7",
    )  # fmt: skip
    for name in ("grocery", "clothing", "subjects"):
        parser.add_argument(
            f"--{name}", type=Path, metavar="DIR", help="without --photos: what realrag-small learnt from"
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
    for field in fields(EncoderConfig):
        flag = "--" + field.name.replace("_", "-")
        kind = {"type": int, "choices": (0, 1)} if isinstance(field.default, bool) else {"type": type(field.default)}
        parser.add_argument(flag, help=f"default {field.default}, or the recipe's", **kind)


def chosen_config(arguments: argparse.Namespace) -> EncoderConfig:
    """The recipe's settings, or the defaults, with what the command line gives in their place."""
    recipe = arguments.recipe and find_recipe(arguments.recipe)
    config = read_section(recipe, "encoder", EncoderConfig) if recipe else EncoderConfig()
    if config is None:
        raise RealRAGError(f"{arguments.recipe} has no section [encoder]: it is a recipe for `python -m train run`.")
    given = {field.name: getattr(arguments, field.name) for field in fields(EncoderConfig)}
    return replace(
        config, **{name: type(getattr(config, name))(value) for name, value in given.items() if value is not None}
    )


def run(arguments: argparse.Namespace, say: Say = lambda line: print(line, flush=True)) -> None:
    torch.set_num_threads(arguments.threads)
    config = chosen_config(arguments)
    three = [arguments.grocery, arguments.clothing, arguments.subjects]
    options: dict[str, Any] = dict(scratch=arguments.scratch, say=say)
    if arguments.photos and config.left_out:
        raise RealRAGError("--left-out counts grocery classes. With --photos, leave classes out of the folder instead.")
    if arguments.photos and arguments.validation and not any(three):
        data, val = (read_captioned(folder, arguments.captions) for folder in (arguments.photos, arguments.validation))
        options["about"] = {"data": told(data, arguments.photos), "validated_on": told(val, arguments.validation)}
    elif all(three) and not (arguments.photos or arguments.headroom):
        names = choose_left_out(arguments.grocery, config.left_out, config.left_out_seed)
        data, val = read_train(*three, names), read_grocery(arguments.grocery, "val")
        about = {"left_out": names, "data": ["grocery train", "clothing", "subjects"]}
        # The cache holds the left-out photos too, so that both encoders share it; training never sees their rows.
        options |= dict(cached=read_train(*three), names=names, about=about)
    else:
        raise RealRAGError(
            "Give --photos and --validation, or --grocery, --clothing and --subjects (without --headroom)."
        )
    try:
        if arguments.headroom:
            find_headroom(config, data, val, arguments.mobilenet, arguments.out, tuple(arguments.headroom), **options)
        else:
            train_encoder(config, data, val, arguments.mobilenet, arguments.out, **options)
    except KeyboardInterrupt:
        say(
            f"stopped; the same command goes on where it was: {arguments.scratch or arguments.out.parent} holds what is done"
        )
