"""The judge of pictures: a linear classifier on MobileNet's features, taught on real photos alone, sharp and softened. It
shares nothing with what it judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag.small_encoder import MobileNet

from ..small_encoder.convert_mobilenet import load_mobilenet

SIDE = 192  # pictures of 128 pixels are enlarged: MobileNet was made for 224


def softened(pictures: Tensor) -> Tensor:
    """(B, 3, S, S) less sharp: a judge that knows only sharp photos takes every softness for another class."""
    return 0.4 * pictures + 0.6 * F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")


class Features(nn.Module):
    """(B, 3, S, S) in 0..1 -> (B, 1024) of unit length: MobileNet V1 as it came."""

    def __init__(self, mobilenet: Path, soft: bool = False):
        super().__init__()
        state, about = load_mobilenet(mobilenet)
        self.net, self.soft = MobileNet(), soft
        self.net.load_state_dict(state)
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.mean, self.std = about["mean"], about["std"]

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        x = softened(pictures) if self.soft else pictures
        x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            answer = self.net((x - self.mean) / self.std)
        return F.normalize(answer.float().mean((2, 3)), dim=1)


class Judge:
    """`learn` from features and labels; then `judge(features)` gives log-odds (B, classes)."""

    def learn(self, features: Tensor, labels: Sequence[int], classes: int, steps: int = 60, decay: float = 1e-4) -> None:
        """Multinomial logistic regression by L-BFGS, every class counting alike; features (N, D), labels (N,) codes."""
        self.centre = features.mean(0)
        target = torch.as_tensor(labels)
        weight = 1 / torch.bincount(target, minlength=classes).clamp_min(1).float()
        linear = nn.Linear(features.shape[1], classes)
        nn.init.zeros_(linear.weight), nn.init.zeros_(linear.bias)
        optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=steps, line_search_fn="strong_wolfe")
        x = (features - self.centre) * 10

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = F.cross_entropy(linear(x), target, weight) + decay * linear.weight.square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        self.linear = linear.requires_grad_(False)

    def __call__(self, features: Tensor) -> Tensor:
        return self.linear((features - self.centre) * 10)


def class_accuracy(scores: Tensor, labels: Sequence[int]) -> float:
    """Mean over the classes that occur of the share of their rows (N, classes) whose greatest score is their own."""
    right, labels = (scores.argmax(1) == torch.as_tensor(labels)).float().numpy(), np.asarray(labels)
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
