"""The judge of pictures: a linear classifier on MobileNet's features that has seen photos alone, no drawing. It tells
what a picture shows, and how near it comes to a photo.

The image encoder that steers the miniatures began as the same MobileNet and was trained further; the judge's has not
been."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import artifact
from ..encoders.small_net import MobileNet
from ..errors import RealRAGError, brief
from ..native_bf16 import bf16_autocast
from ..validation import strict_json

FORMAT, VERSION = "realrag-judge", "1"
CURE = "Download it again, or train it again."
SIDE = 192  # pictures of 128 pixels are enlarged: MobileNet was made for 224
SHARP = 10  # what features are multiplied by before the linear layer
CHUNK = 32


def softened(pictures: Tensor) -> Tensor:
    """(B, 3, S, S) less sharp: a judge that knows only sharp photos takes every softness for another class."""
    return 0.4 * pictures + 0.6 * F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")


class Features(nn.Module):
    """(B, 3, S, S) in 0..1 -> (B, 1024) of unit length: MobileNet V1 as it came."""

    def __init__(self, state: dict[str, Tensor], mean: float, std: float, soft: bool = False):
        super().__init__()
        self.net, self.soft, self.mean, self.std = MobileNet(), soft, mean, std
        self.net.load_state_dict(state)
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        x = softened(pictures) if self.soft else pictures
        x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        with bf16_autocast(pictures.device.type):
            answer = self.net((x - self.mean) / self.std)
        return F.normalize(answer.float().mean((2, 3)), dim=1)

    def of(self, pictures: Tensor) -> Tensor:
        """The same of any number of pictures, some at a time."""
        return torch.cat([self(chunk.contiguous()) for chunk in pictures.split(CHUNK)])


@dataclass
class Judge:
    """names: what the classes are called. centre (D,), weight (classes, D) and bias (classes,) of the linear layer."""

    names: tuple[str, ...]
    centre: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(B, D) -> log-odds (B, classes)."""
        return F.linear((features - self.centre) * SHARP, self.weight, self.bias)

    def margins(self, features: Tensor, labels: Sequence[int]) -> Tensor:
        """(B,) log-odds of the row's own class less the greatest of another: above 0 where the judge names it."""
        scores, own = self(features), torch.as_tensor(labels)[:, None]
        return (scores.gather(1, own) - scores.scatter(1, own, -torch.inf).amax(1, keepdim=True))[:, 0]


COPY_QUANTILE = 0.99  # of the photos' own similarities: what is nearer to a photo counts as its copy


def copied(features: Tensor, photos: Tensor, quantile: float = COPY_QUANTILE) -> Tensor:
    """(N,) bools for pictures (N, D): True where the similarity to the nearest photo (M, D) reaches the 99th percentile
    of the photos' own nearest-neighbor similarities."""
    own = photos @ photos.T
    own.fill_diagonal_(-1)
    return (features @ photos.T).amax(1) >= own.amax(1).quantile(quantile)


def save_judge(path: Path, features: Features, judge: Judge, about: dict) -> None:
    """Features and classifier in one file, fp16; `about` tells what photos taught it."""
    state = {f"net.{name}": value for name, value in features.net.state_dict().items()}
    state |= {"centre": judge.centre, "weight": judge.weight, "bias": judge.bias}
    metadata = {
        "format": FORMAT, "version": VERSION, "names": json.dumps(judge.names), "mean": json.dumps(features.mean),
        "std": json.dumps(features.std), "training": json.dumps(about, sort_keys=True),
    }  # fmt: skip
    half = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in state.items()}
    artifact.write(path, half, metadata)


def load_judge(path: Path) -> tuple[Features, Judge]:
    """RealRAGError when the file is no judge of this version."""
    state, metadata = artifact.read(path, FORMAT, VERSION, "a judge of pictures", CURE)
    try:
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        net = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
        names, mean, std = (strict_json(metadata[key].encode()) for key in ("names", "mean", "std"))
        features = Features(net, mean, std)
        judge = Judge(tuple(names), state["centre"], state["weight"], state["bias"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RealRAGError(
            f"The judge {path} does not hold what its metadata describe ({brief(error)}). {CURE}"
        ) from error
    return features, judge
