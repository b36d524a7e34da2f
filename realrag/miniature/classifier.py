"""The judge of generated pictures: MobileNet's features and a linear classifier, trained on photos only. It names the
class that a picture shows, and measures how close the picture is to a photo.

The image encoder that steers the miniatures was fine-tuned from the same MobileNet. The judge uses the original
weights."""

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
SHARP = 10  # factor on the features before the linear layer
CHUNK = 32


def softened(pictures: Tensor) -> Tensor:
    """(B, 3, S, S), blurred: a classifier trained on sharp photos alone mistakes blur for another class."""
    return 0.4 * pictures + 0.6 * F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")


class Features(nn.Module):
    """(B, 3, S, S) in 0..1 -> (B, 1024) of unit length: MobileNet V1 with its original weights."""

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
        """Features (N, 1024) of N pictures, computed in chunks."""
        return torch.cat([self(chunk.contiguous()) for chunk in pictures.split(CHUNK)])


@dataclass
class Classifier:
    """Linear classifier. names of the classes; center (D,) is subtracted from the features; weight (classes, D) and bias
    (classes,)."""

    names: tuple[str, ...]
    center: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(B, D) -> log-odds (B, classes)."""
        return F.linear((features - self.center) * SHARP, self.weight, self.bias)

    def margins(self, features: Tensor, labels: Sequence[int]) -> Tensor:
        """(B,) log-odds of the true class minus the highest of the others: above 0 where the prediction is right."""
        scores, own = self(features), torch.as_tensor(labels)[:, None]
        return (scores.gather(1, own) - scores.scatter(1, own, -torch.inf).amax(1, keepdim=True))[:, 0]


COPY_QUANTILE = 0.99  # of the photos' own nearest-neighbor similarities: a picture at or above it counts as a copy


def copied(features: Tensor, photos: Tensor, quantile: float = COPY_QUANTILE) -> Tensor:
    """(N,) bools for pictures (N, D): True where the similarity to the nearest photo (M, D) reaches the 99th percentile
    of the photos' own nearest-neighbor similarities."""
    own = photos @ photos.T
    own.fill_diagonal_(-1)
    return (features @ photos.T).amax(1) >= own.amax(1).quantile(quantile)


def save_judge(path: Path, features: Features, classifier: Classifier, training: dict) -> None:
    """Features and classifier in one file, fp16. training: metadata on the training photos."""
    state = {f"net.{name}": value for name, value in features.net.state_dict().items()}
    state |= {"centre": classifier.center, "weight": classifier.weight, "bias": classifier.bias}
    metadata = {
        "format": FORMAT, "version": VERSION, "names": json.dumps(classifier.names), "mean": json.dumps(features.mean),
        "std": json.dumps(features.std), "training": json.dumps(training, sort_keys=True),
    }  # fmt: skip
    half = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in state.items()}
    artifact.write(path, half, metadata)


def load_judge(path: Path) -> tuple[Features, Classifier]:
    """RealRAGError if the file is not a judge of this format and version."""
    state, metadata = artifact.read(path, FORMAT, VERSION, "a judge of pictures", CURE)
    try:
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        net = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
        names, mean, std = (strict_json(metadata[key].encode()) for key in ("names", "mean", "std"))
        features = Features(net, mean, std)
        classifier = Classifier(tuple(names), state["centre"], state["weight"], state["bias"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RealRAGError(
            f"The judge {path} does not hold what its metadata describe ({brief(error)}). {CURE}"
        ) from error
    return features, classifier
