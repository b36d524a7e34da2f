"""Low-rank adaptation (LoRA, arXiv 2106.09685): a weight stays as it is and a product of two thin matrices is added to
it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W (out, in, ...) -> W + alpha / rank * B A, with A (rank, in) drawn and B (out, rank) zero: at first nothing is
    added."""

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
        parametrize.register_parametrization(part, weight, LowRank(getattr(part, weight), rank, alpha))
    return {name: weight for name, weight in module.named_parameters() if name.endswith((".0.a", ".0.b"))}


def merge_lora(module: nn.Module) -> None:
    """Put the products into the weights for good, so that the module is what it was before `add_lora`, with other
    values."""
    for part in module.modules():
        if parametrize.is_parametrized(part):
            for weight in list(part.parametrizations):
                parametrize.remove_parametrizations(part, weight, leave_parametrized=True)
