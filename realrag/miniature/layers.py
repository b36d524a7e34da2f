"""Layers shared by both families of miniature models."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(x: Tensor, head: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, 3 * heads * head) -> q, k and v of (B, heads, L, head)."""
    q, k, v = x.unflatten(-1, (3, -1, head)).permute(2, 0, 3, 1, 4)
    return q, k, v


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, heads, L, head) each -> (B, L, heads * head)"""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def timestep_embedding(t: Tensor, dim: int = 256) -> Tensor:
    """(B,) of 0..1 -> (B, dim): cosines, then sines, of 1000 t at `dim`/2 frequencies."""
    frequencies = torch.exp(
        -math.log(10000) * torch.arange(dim // 2, device=t.device, dtype=torch.float32) / (dim // 2)
    )
    angles = 1000 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights, then shift and scale of (B, D) or (B, 1, D)."""
    shift, scale = (y if y.ndim == 3 else y[:, None] for y in (shift, scale))
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps=1e-6)


class FinalLayer(nn.Module):
    """(B, L, width) and the vector (B, width) of time and prompt -> (B, L, out)."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        return self.linear(modulate(x, *self.adaLN_modulation(vector).chunk(2, dim=-1)))


def initialize(model: nn.Module, zero: tuple[str, ...]) -> None:
    """Xavier for matrices, zero for biases and for the layers whose name ends in one of `zero`: modulations and the
    last layer, so that every block starts as the identity (DiT, arXiv 2212.09748)."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.zeros_(module.weight) if name.endswith(zero) else nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
