"""Measures the miniatures with the judge: photos, the autoencoder's copies of them, and a generator's pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realrag.encoder import load_encoder
from realrag.files import sha256_file, write_atomic
from realrag.miniature.autoencoder import Autoencoder, load_autoencoder
from realrag.miniature.generator import load_generator
from realrag.miniature.sampling import LATENT, sample

from ..small_encoder.pairs import QUERY
from .features import answers, to_images
from .generator import Texts
from .judge import Features, Judge, class_accuracy
from .sheet import tile
from .world import World, add_world_arguments, held_out, read_photos

HELP = "judge the miniature autoencoder and generators"
CHUNK = 32


def features_of(features: Features, pictures: Tensor, through: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """(N, 1024) of (N, 3, S, S) after `through`."""
    return torch.cat([features(through(chunk.contiguous())) for chunk in pictures.split(CHUNK)])


def taught_judge(mobilenet: Path, world: World) -> Judge:
    """Learns from the plain view and a cropped one of every photo, sharp and softened; the features are kept in files."""
    found, judge = [], Judge()
    for soft in (False, True):
        for view in (0, 2):
            name = "judge-soft" if soft else "judge"
            made = answers(name, Features(mobilenet, soft), world, view, lambda: world.pixels(view))  # noqa: B023
            found.append(torch.from_numpy(np.array(made)).float())
    judge.learn(torch.cat(found), np.tile(labels_of(world), len(found)), len(world.groups))
    return judge


def copies(autoencoder: Autoencoder) -> Callable[[Tensor], Tensor]:
    """What the autoencoder makes of pictures, to whole steps of 1/255 as a file would hold it."""

    @torch.no_grad()
    def through(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            made = autoencoder.decode(autoencoder.encode(x)).float()
        return (made * 255).round() / 255

    return through


@torch.no_grad()
def drawn(model, autoencoder: Autoencoder, prompts: list[str], texts: Texts, seed: int, steps: int, cfg: float) -> Tensor:
    """One picture (3, S, S) of each prompt, from noise of its own."""
    dice, made = torch.Generator().manual_seed(seed), []
    for start in range(0, len(prompts), CHUNK):
        said = prompts[start : start + CHUNK]
        noise = torch.randn(len(said), 16, LATENT, LATENT, generator=dice)
        with torch.autocast("cpu", torch.bfloat16):
            latents = sample(model, noise, texts(said), texts([""]), steps=steps, cfg=cfg)
            made.append(autoencoder.decode(latents).float())
    return (torch.cat(made) * 255).round() / 255


def labels_of(world: World) -> np.ndarray:
    return np.array(world.photos.group_rows())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_world_arguments(parser)
    parser.add_argument("--mobilenet", type=Path, required=True, metavar="FILE", help="made by convert-mobilenet")
    parser.add_argument("--autoencoder", type=Path, required=True, metavar="FILE")
    parser.add_argument("--generator", type=Path, metavar="FILE", help="judge what it draws of every class it has seen, too")
    parser.add_argument("--encoder", default="realrag-small", help="whose text tower reads the prompts")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON to write")
    parser.add_argument("--each", type=int, default=8, help="pictures of a class")
    parser.add_argument("--most", type=int, default=10, help="test photos of a class")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)


def run(arguments: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    torch.set_num_threads(arguments.threads)
    features, autoencoder = Features(arguments.mobilenet), load_autoencoder(arguments.autoencoder)
    taught, tested = read_photos(arguments, "train"), read_photos(arguments, "test")
    names = [group.name for group in taught.groups]
    judge, labels = taught_judge(arguments.mobilenet, taught), labels_of(tested)
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[: arguments.most] for label in np.unique(labels)]))
    photos, labels, away = to_images(tested.pixels(0)[rows]), labels[rows], set(held_out(arguments.grocery))
    seen = np.array([names[label] not in away for label in labels])
    report: dict = {"judge": "linear on MobileNet V1, taught on sharp and softened photos", "photos": len(labels), "autoencoder": sha256_file(arguments.autoencoder)}
    for what, through in (("photos", lambda x: x), ("copies", copies(autoencoder))):
        scores = judge(features_of(features, photos, through))
        for part, mask in (("all", np.ones_like(seen)), ("seen", seen), ("held out", ~seen)):
            report[f"{what}, {part} classes"] = class_accuracy(scores[mask], labels[mask])
    report["copies / photos"] = report["copies, all classes"] / report["photos, all classes"]
    if arguments.generator:
        model, texts = load_generator(arguments.generator), Texts(load_encoder(arguments.encoder).towers.text)
        report |= {"generator": sha256_file(arguments.generator), "steps": arguments.steps, "cfg": arguments.cfg}
        for part in ("seen", "held out"):
            wanted = [label for label, name in enumerate(names) if (name in away) == (part == "held out")]
            wanted = [label for label in wanted for _ in range(arguments.each)]
            prompts = [QUERY.format(names[label]) for label in wanted]
            made = drawn(model, autoencoder, prompts, texts, arguments.seed, arguments.steps, arguments.cfg)
            scores = judge(features_of(features, made))
            report[f"drawn, {part} classes"] = class_accuracy(scores, wanted)
            sheet = tile(made[:: max(1, arguments.each)], 8)
            name = arguments.out.with_name(f"{arguments.out.stem}-{part.replace(' ', '-')}.png")
            write_atomic(name, lambda file: sheet.save(file, "PNG"))  # noqa: B023 - written at once
        report["drawn / photos, seen classes"] = report["drawn, seen classes"] / report["photos, seen classes"]
    write_atomic(arguments.out, json.dumps(report, indent=1).encode())
    for name, value in report.items():
        say(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
