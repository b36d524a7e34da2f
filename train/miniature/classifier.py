"""Trains the classifier that judges pictures, on real photos only, sharp and blurred."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag.files import sha256_file
from realrag.miniature.classifier import SHARP, Classifier, Features, save_judge, softened

from ..judge.histograms import Histograms
from ..small_encoder.mobilenet import load_mobilenet
from .features import cached_outputs, to_images
from .world import World, add_world_arguments, read_photos


def mobilenet_features(mobilenet: Path, soft: bool = False) -> Features:
    """From a file made by convert-mobilenet."""
    state, about = load_mobilenet(mobilenet)
    return Features(state, about["mean"], about["std"], soft)


def learn(
    names: Sequence[str], features: Tensor, labels: Sequence[int], steps: int = 60, decay: float = 1e-4
) -> Classifier:  # fmt: skip
    """Multinomial logistic regression by L-BFGS, with equal weight for every class; features (N, D), labels (N,) rows
    of names."""
    center, target = features.mean(0), torch.as_tensor(labels)
    weight = 1 / torch.bincount(target, minlength=len(names)).clamp_min(1).float()
    linear = nn.Linear(features.shape[1], len(names))
    nn.init.zeros_(linear.weight), nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=steps, line_search_fn="strong_wolfe")
    x = (features - center) * SHARP

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(linear(x), target, weight) + decay * linear.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Classifier(tuple(names), center, linear.weight.detach(), linear.bias.detach())


VIEWS = 0, 2  # the plain view and a crop of every photo


def taught_judge(mobilenet: Path, world: World) -> Classifier:
    """On MobileNet's features of photos, sharp and blurred, which are cached in files."""
    found = []
    for soft in (False, True):
        for view in VIEWS:
            name = "judge-soft" if soft else "judge"
            made = cached_outputs(name, mobilenet_features(mobilenet, soft), world, view, lambda: world.pixels(view))
            found.append(torch.from_numpy(np.array(made)).float())
    return _of_all(found, world)


def taught_histograms(world: World) -> Classifier:
    """On Histograms of the same photos."""
    found = []
    for change in (lambda x: x, softened):
        for view in VIEWS:
            pixels = world.pixels(view)
            parts = (change(to_images(pixels[at : at + 64])) for at in range(0, len(pixels), 64))
            found.append(torch.cat([Histograms()(part) for part in parts]))
    return _of_all(found, world)


def _of_all(found: list[Tensor], world: World) -> Classifier:
    labels = np.tile(world.photos.group_rows(), len(found))
    return learn([group.name for group in world.groups], torch.cat(found), labels)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_world_arguments(parser)
    parser.add_argument("--mobilenet", type=Path, required=True, metavar="FILE", help="made by convert-mobilenet")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors to write")


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    taught = read_photos(arguments, "train")
    judge, features = taught_judge(arguments.mobilenet, taught), mobilenet_features(arguments.mobilenet)
    save_judge(arguments.out, features, judge, {"photos": taught.key, "views": 2})
    log(f"{len(judge.names)} classes from {len(taught.photos.photos)} photos, sha256 {sha256_file(arguments.out)[:12]}")
