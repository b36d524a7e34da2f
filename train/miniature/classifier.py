"""Teaches the judge of pictures: from real photos alone, sharp and softened."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag.files import sha256_file
from realrag.miniature.classifier import SHARP, Features, Judge, save_judge, softened

from ..small_encoder.convert_mobilenet import load_mobilenet
from .features import answers, to_images
from .world import World, add_world_arguments, read_photos

HELP = "teach the judge of the miniatures' pictures"


def mobilenet_features(mobilenet: Path, soft: bool = False) -> Features:
    """Of a file made by convert-mobilenet."""
    state, about = load_mobilenet(mobilenet)
    return Features(state, about["mean"], about["std"], soft)


class Histograms(nn.Module):
    """(B, 3, S, S) in 0..1 -> (B, 656): how often each of 8 x 8 x 8 colours occurs, and at three scales each strength
    and direction of gradients, square roots of shares. Nothing is learnt, so this judge has nothing in common with
    anything."""

    LEVELS, STRENGTHS, TURNS, SCALES = 8, 6, 8, 3

    def forward(self, pictures: Tensor) -> Tensor:
        level = (pictures * (self.LEVELS - 1e-3)).long()
        found = [_counts((level[:, 0] * self.LEVELS + level[:, 1]) * self.LEVELS + level[:, 2], self.LEVELS**3)]
        grey = pictures.mean(1)
        for _ in range(self.SCALES):
            across, down = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2], grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
            strength = (8 * torch.hypot(across, down)).clamp_max(1) * (self.STRENGTHS - 1e-2)
            turn = (torch.atan2(down, across) % math.pi / math.pi * self.TURNS).clamp_max(self.TURNS - 1)
            found.append(_counts(strength.long() * self.TURNS + turn.long(), self.STRENGTHS * self.TURNS))
            grey = F.avg_pool2d(grey, 2)
        return torch.cat(found, 1).sqrt() / 2

    def of(self, pictures: Tensor) -> Tensor:
        return torch.cat([self(chunk) for chunk in pictures.contiguous().split(64)])


def _counts(codes: Tensor, most: int) -> Tensor:
    """(B, H, W) codes -> (B, most) shares."""
    ones = torch.ones(len(codes), codes[0].numel())
    return torch.zeros(len(codes), most).scatter_add_(1, codes.flatten(1), ones) / ones.shape[1]


def learn(
    names: Sequence[str], features: Tensor, labels: Sequence[int], steps: int = 60, decay: float = 1e-4
) -> Judge:  # fmt: skip
    """Multinomial logistic regression by L-BFGS, every class counting alike; features (N, D), labels (N,) rows of
    names."""
    centre, target = features.mean(0), torch.as_tensor(labels)
    weight = 1 / torch.bincount(target, minlength=len(names)).clamp_min(1).float()
    linear = nn.Linear(features.shape[1], len(names))
    nn.init.zeros_(linear.weight), nn.init.zeros_(linear.bias)
    optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=steps, line_search_fn="strong_wolfe")
    x = (features - centre) * SHARP

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(linear(x), target, weight) + decay * linear.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return Judge(tuple(names), centre, linear.weight.detach(), linear.bias.detach())


VIEWS = 0, 2  # the plain view and a cropped one of every photo


def taught_judge(mobilenet: Path, world: World) -> Judge:
    """On MobileNet's features of photos, sharp and softened, which are kept in files."""
    found = []
    for soft in (False, True):
        for view in VIEWS:
            name = "judge-soft" if soft else "judge"
            made = answers(name, mobilenet_features(mobilenet, soft), world, view, lambda: world.pixels(view))
            found.append(torch.from_numpy(np.array(made)).float())
    return _of_all(found, world)


def taught_histograms(world: World) -> Judge:
    """On Histograms of the same photos."""
    found = []
    for change in (lambda x: x, softened):
        for view in VIEWS:
            pixels = world.pixels(view)
            parts = (change(to_images(pixels[at : at + 64])) for at in range(0, len(pixels), 64))
            found.append(torch.cat([Histograms()(part) for part in parts]))
    return _of_all(found, world)


def _of_all(found: list[Tensor], world: World) -> Judge:
    labels = np.tile(world.photos.group_rows(), len(found))
    return learn([group.name for group in world.groups], torch.cat(found), labels)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_world_arguments(parser)
    parser.add_argument("--mobilenet", type=Path, required=True, metavar="FILE", help="made by convert-mobilenet")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors to write")


def run(arguments: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    taught = read_photos(arguments, "train")
    judge, features = taught_judge(arguments.mobilenet, taught), mobilenet_features(arguments.mobilenet)
    save_judge(arguments.out, features, judge, {"photos": taught.key, "views": 2})
    say(f"{len(judge.names)} classes from {len(taught.photos.photos)} photos, sha256 {sha256_file(arguments.out)[:12]}")
