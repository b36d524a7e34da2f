"""Several references in one block: their attention branches brought together, with weights and masks.

Modes as in ComfyUI's IPAdapter_plus (combine_embeds), here on the branches' outputs, so that each reference may have
its own weight and mask; `concat` is one softmax over all tokens, with log(weight) added to the scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

MODES = ("concat", "sum", "average", "norm average", "subtract")
TINY = 1e-12

# branch(picks, bias): attention to the picked references in one softmax -> (B, L, C). bias (len(picks), L or 1) is
# added to the scores of every token of a reference, or None.
Branch = Callable[[Sequence[int], "Tensor | None"], Tensor]


class Mixer:
    """Weights and masks made ready for one model call, so that nothing in a block waits for the host.

    weights: N floats > 0. masks: (N, L) in 0..1, or None for everywhere. A mask scales what its reference adds; where
    masks overlap, concat and the averages share out between them, sum adds up.
    """

    def __init__(self, mode: str, weights: Sequence[float], masks: Tensor | None = None, device=None):
        if mode not in MODES:
            raise ValueError(f"{mode!r} is no way to combine references; there are {', '.join(MODES)}.")
        self.mode, self.weights = mode, tuple(weights)
        masks = None if masks is None else masks.to(device, torch.float32)
        cover = None if masks is None else masks.amax(0)  # (L,)
        self.masks, self.cover = masks, None if cover is None else cover[:, None]
        # A lone reference's weight means nothing inside its own softmax, but does beside the picture's own tokens.
        self.bias: Tensor | None = None
        self.shares: Tensor | None = None
        if mode == "concat" and (masks is not None or any(weight != 1 for weight in self.weights)):
            self.bias = torch.tensor([math.log(weight) for weight in self.weights]).to(device)[:, None]
            if masks is not None and cover is not None:
                share = torch.where(cover > 0, masks / cover.clamp(min=TINY), torch.ones_like(cover))
                self.bias = self.bias + share.log()
        if mode.endswith("average"):
            amounts = torch.tensor(self.weights).to(device)[:, None]
            amounts = amounts if masks is None else amounts * masks
            self.shares = (amounts / amounts.sum(0).clamp(min=TINY))[..., None]  # (N, L or 1, 1)

    def __call__(self, branch: Branch) -> Tensor:
        """What the references add together at strength 1: (B, L, C)."""
        if self.mode == "concat":
            out = branch(range(len(self.weights)), self.bias)
            return out if self.cover is None else out * self.cover.to(out)
        added = [branch([i], None) for i in range(len(self.weights))]
        if self.mode == "sum":
            return reduce(torch.add, (self._amount(i, one) for i, one in enumerate(added)))
        if self.mode == "subtract":
            others = [self._amount(i, one) for i, one in enumerate(added[1:], 1)]
            first = self._amount(0, added[0])
            return first - sum(others) / len(others) if others else first
        assert self.shares is not None  # made for both averages
        shares = self.shares.to(added[0])
        if self.mode == "norm average":
            sizes = [one.float().square().mean(-1, keepdim=True).sqrt() for one in added]
            size = sum(share * one for share, one in zip(shares, sizes, strict=True))
            added = [one * (size / own.clamp(min=TINY)).to(one) for one, own in zip(added, sizes, strict=True)]
        out = reduce(torch.add, (share * one for share, one in zip(shares, added, strict=True)))
        return out if self.cover is None else out * self.cover.to(out)

    def _amount(self, i: int, one: Tensor) -> Tensor:
        scaled = one if self.weights[i] == 1 else one * self.weights[i]
        return scaled if self.masks is None else scaled * self.masks[i][:, None].to(one)


def balance(added: Tensor, base: Tensor, most: float) -> Tensor:
    """Scale `added` (B, L, C) down where its RMS would exceed `most` times that of `base` (B, L', C); never up."""

    def rms(x: Tensor) -> Tensor:
        return x.float().square().mean((1, 2), keepdim=True).sqrt()

    return added * (most * rms(base) / rms(added).clamp(min=TINY)).clamp(max=1).to(added)


def per_token(bias: Tensor | None, tokens: int) -> Tensor | None:
    """(N, L) for each reference -> (L, N * tokens) for each of its tokens."""
    return None if bias is None else bias.T.repeat_interleave(tokens, 1)
