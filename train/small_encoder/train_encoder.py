"""One small encoder from photos to a file that `load_encoder` opens, with its figures on validation photos."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from realrag.errors import RealRAGError
from realrag.small_encoder import SmallDualEncoder, save_small_encoder

from .convert_mobilenet import load_mobilenet
from .encoder import EncoderConfig, Training
from .measure import figures, ranked_relevance
from .pairs import (
    QUERY, PhotoSet, choose_left_out, read_captioned, read_grocery, read_train, told, with_noise,
)  # fmt: skip
from .views import FrontCache, to_features

HELP = "train the small dual encoder on captioned photos, or on what realrag-small learnt from"
Say = Callable[[str], None]
Progress = Callable[[int, int], None]


class Rows:
    """Some rows of a mapped array, indexed as if they were all."""

    def __init__(self, array: np.ndarray, rows: np.ndarray):
        self.array, self.rows = array, rows

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        return self.array[self.rows[chosen]]


@torch.no_grad()
def validate(
    model: SmallDualEncoder, cut: int, front: np.ndarray, data: PhotoSet, names: list[str]
) -> dict[str, float]:
    """Class name -> photo over the photos of `front`: means over the classes with a photo, and over `names` alone."""
    chunks = [to_features(front[i : i + 64]) for i in range(0, len(front), 64)]
    photos = F.normalize(torch.cat([model.pool(model.mobilenet.back(chunk, cut)) for chunk in chunks]), dim=1)
    texts = F.normalize(model.text_tower(model.tokenize([QUERY.format(group.name) for group in data.groups])), dim=1)
    relevant = torch.tensor(data.group_rows()) == torch.arange(len(data.groups))[:, None]
    asked = relevant.any(1)
    parts = figures(ranked_relevance((texts @ photos.T)[asked], relevant[asked]))
    unseen = np.array([group.name in names for group, yes in zip(data.groups, asked) if yes])
    report = {name: float(values.mean()) for name, values in parts.items()}
    return report | ({"mAP of names left out": float(parts["mAP"][unseen].mean())} if unseen.any() else {})


def train_encoder(
    config: EncoderConfig,
    data: PhotoSet,
    val: PhotoSet,
    mobilenet: Path,
    out: Path,
    *,
    cached: PhotoSet | None = None,
    names: tuple[str, ...] = (),
    about: dict[str, Any] | None = None,
    scratch: Path | None = None,
    say: Say = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> dict[str, float]:
    """Trains on `data`, writes `out`, and returns its figures on `val`; stopped, it goes on after the last whole epoch.

    cached: the photos whose features are cached, when they are more than those of `data`. names: groups left out, measured
    apart. about: joins what the file tells of its training. progress(done, total): after each cached view and each epoch.
    """
    torch.manual_seed(config.seed)
    start, source = load_mobilenet(mobilenet)
    model = SmallDualEncoder(config.model_config(source["mean"], source["std"])).to(memory_format=torch.channels_last)
    model.mobilenet.load_state_dict(start)

    everything, scratch = cached or data, scratch or out.parent
    settings = dict(size=config.size, seed=config.seed, mean=source["mean"], std=source["std"], bf16=config.bf16)
    caches = [
        FrontCache(scratch / "front", model.mobilenet, config.cut, photos, **settings)
        for photos in (everything.photos, val.photos)
    ]
    views = caches[0].views(config.views + 1, progress)[1:]
    rows = np.flatnonzero(np.isin([str(p.path) for p in everything.photos], [str(p.path) for p in data.photos]))
    views = views if len(rows) == len(everything.photos) else [Rows(view, rows) for view in views]
    front = caches[1].view(0)

    training = Training(model, config, with_noise(data, config.noise, config.noise_seed), views)
    checkpoint = scratch / (out.stem + ".checkpoint.safetensors")
    if checkpoint.exists():
        training.resume(checkpoint)
        say(f"resumed after step {training.step} of {training.steps}")
    say(f"{len(data.photos)} photos, {len(data.groups)} groups, {training.steps} steps; left out: {', '.join(names) or 'nothing'}")
    for epoch, loss in training.run():
        training.save(checkpoint)
        report = validate(training.averaged(), config.cut, front, val, list(names)) if epoch % 3 == 0 else {}
        say(f"epoch {epoch}: loss {loss:.3f}" + "".join(f", val {name} {value:.3f}" for name, value in report.items()))
        progress(epoch, config.epochs)
    model = training.averaged()
    report = validate(model, config.cut, front, val, list(names))
    about = {"config": asdict(config), "start": source["source"], "validation": report, **(about or {})}
    save_small_encoder(model, out, about)
    say(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)" + "".join(f", val {n} {v:.3f}" for n, v in report.items()))
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photos", type=Path, metavar="DIR", help="any photos: folders are classes, or see --captions")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="CSV or JSONL with file, class, caption")
    parser.add_argument("--validation", type=Path, metavar="DIR", help="other photos of the same classes, to measure on")
    parser.add_argument(
        "--headroom", type=float, nargs=2, metavar=("LEAST", "MOST"),
        help="tune --noise until R@1 on the validation photos lies between these, for example 0.45 0.7",
    )  # fmt: skip
    for name in ("grocery", "clothing", "subjects"):
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help="without --photos: what realrag-small learnt from")
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
    from ..recipe import find_recipe, read_recipe

    config = read_recipe(find_recipe(arguments.recipe)).encoder if arguments.recipe else EncoderConfig()
    if config is None:
        raise RealRAGError(f"{arguments.recipe} has no section [encoder]: it is a recipe for `python -m train run`.")
    given = {field.name: getattr(arguments, field.name) for field in fields(EncoderConfig)}
    return replace(config, **{name: type(getattr(config, name))(value) for name, value in given.items() if value is not None})


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
        raise RealRAGError("Give --photos and --validation, or --grocery, --clothing and --subjects (without --headroom).")
    try:
        if arguments.headroom:
            from .headroom import find_headroom

            find_headroom(config, data, val, arguments.mobilenet, arguments.out, tuple(arguments.headroom), **options)
        else:
            train_encoder(config, data, val, arguments.mobilenet, arguments.out, **options)
    except KeyboardInterrupt:
        say(f"stopped; the same command goes on where it was: {arguments.scratch or arguments.out.parent} holds what is done")
