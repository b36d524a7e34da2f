"""Features that nothing has learned: histograms of colors and of gradients. A judge on them shares no weights with any
network.

`GradientEncoder` keeps where things are, in 8 x 8 cells; the experiment uses it. `Histograms` counts over the whole
picture at three scales; the miniatures are measured with it. Published figures come from both, so both stay."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag.encoders.base import Encoder
from realrag.encoders.preprocess import Preprocess

CELLS, TURNS = 8, 8  # cells along a side, directions of a gradient


class PictureEncoder(Encoder):
    """An encoder without a text tower."""

    kind, has_text_tower = "judge", False


class GradientEncoder(PictureEncoder):
    """Histograms of oriented gradients in 8 x 8 cells (Dalal & Triggs 2005, without their overlapping blocks), and the
    mean colors of the cells: D = 8 x 8 x (8 + 3)."""

    name, dim = "gradients", CELLS * CELLS * (TURNS + 3)

    def __init__(self, size: int = 64):
        super().__init__()
        self.preprocess = Preprocess(size, "squash", "bilinear", (0, 0, 0), (1, 1, 1))
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)  # so that the encoder has a device

    def _images(self, x: Tensor) -> Tensor:
        across, down, turn = gradients(F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), "replicate"))
        strength, place = (across**2 + down**2).sqrt(), turn * TURNS
        # Each pixel's strength is divided between the two nearest directions.
        parts = torch.cat(
            [strength * (1 - ((place - i + TURNS / 2) % TURNS - TURNS / 2).abs()).clamp_min(0) for i in range(TURNS)], 1
        )
        cells = F.adaptive_avg_pool2d(parts, CELLS)
        cells = (cells / (cells.pow(2).sum(1, keepdim=True) + 1e-3).sqrt()).flatten(1)
        colors = F.adaptive_avg_pool2d(x - x.mean((2, 3), keepdim=True), CELLS).flatten(1)
        return self.weight * torch.cat([cells, 2 * colors], 1)


class Histograms(nn.Module):
    """(B, 3, S, S) in 0..1 -> (B, 656): square roots of the fractions of pixels with each of 8 x 8 x 8 colors and, at
    three scales, each strength and direction of gradients."""

    LEVELS, STRENGTHS, TURNS, SCALES = 8, 6, TURNS, 3

    def forward(self, pictures: Tensor) -> Tensor:
        level = (pictures * (self.LEVELS - 1e-3)).long()
        found = [_fractions((level[:, 0] * self.LEVELS + level[:, 1]) * self.LEVELS + level[:, 2], self.LEVELS**3)]
        gray = pictures.mean(1)
        for _ in range(self.SCALES):
            across, down, turn = gradients(gray)
            strength = (8 * torch.hypot(across, down)).clamp_max(1) * (self.STRENGTHS - 1e-2)
            direction = (turn * self.TURNS).clamp_max(self.TURNS - 1)
            found.append(_fractions(strength.long() * self.TURNS + direction.long(), self.STRENGTHS * self.TURNS))
            gray = F.avg_pool2d(gray, 2)
        return torch.cat(found, 1).sqrt() / 2

    def of(self, pictures: Tensor) -> Tensor:
        """The same for any number of pictures, 64 at a time."""
        return torch.cat([self(chunk) for chunk in pictures.contiguous().split(64)])


def gradients(gray: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(..., H, W) brightness -> horizontal and vertical central differences and direction (half turns, 0 to 1), each
    (..., H - 2, W - 2)."""
    across, down = gray[..., 1:-1, 2:] - gray[..., 1:-1, :-2], gray[..., 2:, 1:-1] - gray[..., :-2, 1:-1]
    return across, down, torch.atan2(down, across) % math.pi / math.pi


def _fractions(codes: Tensor, most: int) -> Tensor:
    """(B, H, W) codes below `most` -> (B, most) fractions of the pixels."""
    ones = torch.ones(len(codes), codes[0].numel())
    return torch.zeros(len(codes), most).scatter_add_(1, codes.flatten(1), ones) / ones.shape[1]
