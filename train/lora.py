"""Low-rank weights: LoRA updates of frozen weights (arXiv 2106.09685), and linear layers factorized from the start."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRankUpdate(nn.Module):
    """W (out, in, ...) -> W + alpha / rank * B A, with A (rank, in) random and B (out, rank) zero, so that W is unchanged
    at first."""

    def __init__(self, weight: Tensor, rank: int, alpha: float):
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)
        self.scale = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, columns, dtype=weight.dtype, device=weight.device))
        self.b = nn.Parameter(torch.zeros(rows, rank, dtype=weight.dtype, device=weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.b @ self.a).view_as(weight)


def add_lora(module: nn.Module, inside: tuple[str, ...], rank: int, alpha: float) -> dict[str, nn.Parameter]:
    """Adapt every linear map of the sub-modules whose names begin with one of `inside`: Linear layers, 1x1
    convolutions, and the one tensor in which nn.MultiheadAttention keeps query, key and value (adapted jointly, as PEFT
    does with fused ones). Returns the new weights by name; there are none where nothing is linear.
    """
    for name, part in list(module.named_modules()):
        if not (name + ".").startswith(inside):
            continue
        if isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None:
            weight = "in_proj_weight"
        elif isinstance(part, nn.Linear) or (
            isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1
        ):
            weight = "weight"
        else:
            continue
        parametrize.register_parametrization(part, weight, LowRankUpdate(getattr(part, weight), rank, alpha))
    return {name: weight for name, weight in module.named_parameters() if name.endswith((".0.a", ".0.b"))}


def merge_lora(module: nn.Module) -> None:
    """Add the products to the weights for good: the module has its old structure again, with new values."""
    for part in module.modules():
        if parametrize.is_parametrized(part):
            for weight in list(part.parametrizations):
                parametrize.remove_parametrizations(part, weight, leave_parametrized=True)


class LowRankLinear(nn.Module):
    """Replaces a linear layer while it is trained: W = up down, so that fewer weights and moments are stored.

    zero: start with W = 0; else both factors are random, scaled as a layer's own start."""

    def __init__(self, layer: nn.Linear, rank: int, zero: bool, rng: torch.Generator):
        super().__init__()
        out, into = layer.weight.shape
        rank = min(rank, out, into)
        self.down = nn.Parameter(torch.randn(rank, into, generator=rng) * into**-0.5)
        self.up = nn.Parameter(torch.zeros(out, rank) if zero else torch.randn(out, rank, generator=rng) * rank**-0.5)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(F.linear(x, self.down.to(x)), self.up.to(x))
        return out if self.bias is None else out + self.bias.to(x)


def merge_low_rank(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which each NAME.up and NAME.down of a LowRankLinear is one NAME.weight."""
    whole = {}
    for name, tensor in state.items():
        if name.endswith(".up"):
            whole[name.removesuffix(".up") + ".weight"] = tensor @ state[name.removesuffix(".up") + ".down"]
        elif not name.endswith(".down"):
            whole[name] = tensor
    return whole
