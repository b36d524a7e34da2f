"""Flow matching: Euler steps from noise to latents, like ComfyUI's sampler "euler" with the scheduler "simple"."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LATENT = 16  # of a picture of 128 pixels


@dataclass(frozen=True)
class Family:
    """ComfyUI's constants for a family. Its autoencoder's latents are ours / scale + shift."""

    name: str
    time_shift: float  # shift of the noise levels: 3 for SD3; 1 (none) for FLUX.1 schnell
    latent_scale: float
    latent_shift: float


FAMILIES = {"sd3": Family("sd3", 3.0, 1.5305, 0.0609), "flux": Family("flux", 1.0, 0.3611, 0.1159)}


class Velocity(Protocol):
    """A generator as `sample` calls it; its family is a key of FAMILIES."""

    family: str

    def __call__(self, x: Tensor, sigma: Tensor, states: Tensor, pooled: Tensor, /) -> Tensor:
        """x (B, C, h, w), sigma (B,), states (B, T, D), pooled (B, P) -> d x / d sigma, like x."""


def shifted(t: Tensor, shift: float) -> Tensor:
    """Noise levels of 0..1, shifted toward more noise (arXiv 2403.03206, equation 23)."""
    return shift * t / (1 + (shift - 1) * t)


def sigmas(steps: int, shift: float) -> Tensor:
    """(steps + 1,) noise levels from 1 to 0: every (1000 / steps)-th of ComfyUI's thousand, as "simple" picks them."""
    levels = shifted(torch.arange(1, 1001, dtype=torch.float32) / 1000, shift)
    return torch.stack([levels[-(1 + int(step * 1000 / steps))] for step in range(steps)] + [torch.zeros(())])


@torch.no_grad()
def sample(
    model: Velocity,
    noise: Tensor,
    positive: tuple[Tensor, Tensor],
    negative: tuple[Tensor, Tensor],
    *,
    steps: int = 20,
    cfg: float = 3.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """noise (B, 16, h, w) -> latents. `positive` and `negative` are states (B, T, C) and pooled (B, D); the negative is
    one row or B. `model` sees 2 B rows, the positive ones first; at a cfg of 1 it sees B, and the negative is not computed.
    """
    levels, x, both = sigmas(steps, FAMILIES[model.family].time_shift).to(noise.device), noise, cfg != 1
    states, pooled = positive
    if both:
        states, pooled = (torch.cat([yes, no.expand_as(yes)]) for yes, no in zip(positive, negative, strict=True))
    for step, (now, after) in enumerate(itertools.pairwise(levels)):
        rows = torch.cat([x, x]) if both else x
        velocity = model(rows, now.expand(len(rows)), states, pooled)
        if both:
            yes, no = velocity.chunk(2)
            velocity = no + cfg * (yes - no)
        x = x + (after - now) * velocity
        progress(step + 1, steps)
    return x
