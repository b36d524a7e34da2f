"""Experimental, no adapter file: the picture attends to the generator's own keys and values of a noised reference.

Shared attention as in StyleAligned (arXiv 2312.02133); frequency-scaled reference keys as in arXiv 2602.05013.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapters.attention import attend


def content_seed(image: Tensor) -> int:
    """The same picture (H, W, 3) in 0..1 has the same noise everywhere: a seed from its size and its 8-bit pixels."""
    pixels = (image.float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).contiguous()
    digest = hashlib.sha256(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).digest()
    return int.from_bytes(digest[:7], "big")


def fixed_noise(latent: Tensor, seed: int) -> Tensor:
    """Gaussian noise in the latent's shape, made on the CPU so that it is the same on every device."""
    return torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def noised(latent: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """The reference at the sampler's noise level on the straight path of a flow model: (1 - sigma) x + sigma eps."""
    return (1 - sigma) * latent + sigma * noise


def frequency_scale(axes: Sequence[int], high: float = 1.05, low: float = 3.0, beta: float = 50.0) -> Tensor:
    """Factors (D,) for rotated reference keys: s_d = high + (low - high) (d / D_axis)^beta, equal within a pair.

    d counts the pairs of an axis from the fastest rotation to the slowest. Slow pairs carry what a place looks like and
    are amplified; fast pairs fix the exact place and would copy the layout. The first axis does not rotate: all `low`.
    """
    pairs = [torch.full((axes[0] // 2,), low)]
    for size in axes[1:]:
        d = torch.arange(size // 2, dtype=torch.float64) / (size // 2)
        pairs.append((high + (low - high) * d**beta).float())
    return torch.cat(pairs).repeat_interleave(2)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation over tokens, (B, H, 1, D) each."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, x: Tensor, eps: float = 1e-5, weights: Tensor | None = None) -> Statistics:
        """Of x (B, H, L, D); weights (L,), such as 2 for every token of a picture that counts twice."""
        x = x.float()
        if weights is None:
            return cls(x.mean(2, keepdim=True), (x.var(2, keepdim=True, correction=0) + eps).sqrt())
        shares = (weights / weights.sum()).to(x)[:, None]
        mean = (shares * x).sum(2, keepdim=True)
        return cls(mean, ((shares * (x - mean).square()).sum(2, keepdim=True) + eps).sqrt())


def adain(x: Tensor, target: Statistics, amount: float = 1.0) -> Tensor:
    """Give x (B, H, L, D) the reference's mean and deviation per channel; `amount` blends from x (0) to that (1)."""
    own = Statistics.of(x)
    moved = (x.float() - own.mean) / own.std * target.std + target.mean
    return torch.lerp(x.float(), moved, amount).to(x.dtype)


def attend_to_both(
    q: Tensor, k: Tensor, v: Tensor, k_ref: Tensor, v_ref: Tensor, strength: float, mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention over [own; reference] keys, reference scores + log(strength); 1 is plain concatenation.

    q (B, H, L, D), k and v (B, H, M, D), k_ref and v_ref (B or 1, H, R, D), strength > 0; `mask` for the own keys is
    (L, M), (B, L, M) or (B, H, L, M), added to the scores or, if boolean, True where a key may be seen. `bias` (L or 1,
    R) is added to the reference scores as well.
    """
    k_ref, v_ref = (t.to(q).expand(q.shape[0], -1, -1, -1) for t in (k_ref, v_ref))
    k_all, v_all = torch.cat((k, k_ref), 2), torch.cat((v, v_ref), 2)
    if mask is None and bias is None and strength == 1:
        return attend(q, k_all, v_all)
    own = as_bias(mask, q) if mask is not None else q.new_zeros((1, 1, 1, k.shape[2]))
    reference = q.new_full((*own.shape[:-1], k_ref.shape[2]), math.log(strength))
    if bias is not None:
        reference = reference + bias.to(q)
        own = own.expand(*reference.shape[:-1], -1)
    return attend(q, k_all, v_all, torch.cat((own, reference), -1))


def as_bias(mask: Tensor, q: Tensor) -> Tensor:
    """A mask of 2 to 4 axes, boolean or added -> added to the scores, 4 axes, in q's precision."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    if mask.ndim == 2:
        mask = mask[None]
    return (mask[:, None] if mask.ndim == 3 else mask).to(q)


def fit(width: int, height: int, tokens: int, longest: int, patch: int = 16) -> tuple[int, int]:
    """The largest size in pixels, never larger than the photo and in its proportions, with at most `tokens` patches.

    Both sides are multiples of `patch`, at most `longest` patches and at least one.
    """
    scale = min(1.0, math.sqrt(tokens * patch * patch / (width * height)), longest * patch / max(width, height))
    columns, rows = (max(1, math.floor(side * scale / patch)) for side in (width, height))
    return columns * patch, rows * patch
