"""Pictures from a miniature generator with a reference adapter, outside ComfyUI."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..adapters.hooks import Steered
from ..encoders.small_net import TextTower
from ..native_bf16 import bf16_autocast
from . import flux, sd3
from .autoencoder import Autoencoder
from .sampling import LATENT, sample
from .text import encode_prompts

FAMILY_NAMES = {"sd3": "SD3", "flux": "Flux"}
HEADS = {"sd3": sd3.HEAD, "flux": flux.HEAD}  # channels of a head
STEPS, CFG = 20, 3.0
CHUNK = (
    8  # pictures at a time; larger batches spill out of a CPU's cache (9.3 pictures per second and core; 8.1 with 32)
)


class Miniature:
    """A miniature SD3 or Flux with the interface that adapters expect of a base."""

    def __init__(self, net: sd3.SD3 | flux.Flux, name: str = ""):
        self.net, self.family = net, net.family
        self.name = name or f"the miniature {FAMILY_NAMES[net.family]}"
        blocks: nn.ModuleList = getattr(net, "double_blocks" if self.family == "flux" else "joint_blocks")
        self.width, self.blocks = net.config.width, len(blocks)
        self.heads = self.width // HEADS[self.family]

    def velocity(self, x: Tensor, sigma: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        return self.net(x, sigma, states, pooled)


class Guided:
    """A steered generator with the interface of `sample`. With guidance, the second half of the rows has no reference, as
    in ComfyUI."""

    def __init__(self, steered: Steered, features: Tensor | None):
        self.steered, self.features, self.family = steered, features, steered.base.family

    def __call__(self, x: Tensor, sigma: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        features, shown = self.features, None
        if features is not None and len(x) > len(features):
            shown = torch.arange(len(x), device=x.device) < len(features)
            features = torch.cat((features, features))
        return self.steered.velocity(x, sigma, states, pooled, features, shown)


def noise_of(count: int, seed: int) -> Tensor:
    """(count, 16, 16, 16) initial noise for pictures of 128 pixels. Noise i does not depend on `count`."""
    rng = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(16, LATENT, LATENT, generator=rng) for _ in range(count)])


@torch.no_grad()
def paint(
    steered: Steered,
    autoencoder: Autoencoder,
    text: TextTower,
    prompts: list[str],
    noise: Tensor,
    features: Tensor | None = None,
    *,
    steps: int = STEPS,
    cfg: float = CFG,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """One picture for each of B prompts, (B, 3, S, S) in 0..1, rounded to steps of 1/255 as in an 8-bit file.

    noise (B, 16, S / 8, S / 8); features (B, L, E) or (B, R, L, E): hidden states of each picture's references,
    None for no references."""
    nothing, made = encode_prompts(text, [""]), []
    for start in range(0, len(prompts), CHUNK):
        rows = slice(start, start + CHUNK)
        model = Guided(steered, None if features is None else features[rows])
        with bf16_autocast(noise.device.type):
            latents = sample(model, noise[rows], encode_prompts(text, prompts[rows]), nothing, steps=steps, cfg=cfg)
            made.append(autoencoder.decode(latents).float())
        progress(min(start + CHUNK, len(prompts)), len(prompts))
    return (torch.cat(made) * 255).round() / 255
