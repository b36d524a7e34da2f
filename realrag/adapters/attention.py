"""The few tensor operations that every adapter family shares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CAST_LIMIT = 1 << 26  # weights converted at a time: 256 MB in fp32. Flux InstantX has a layer of 1.2 billion
COMPLEX = ("cpu", "cuda")  # device types that compute with complex numbers


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer in the precision and on the device of `x`, whatever its weights are stored in.

    A layer of another class (the trainer's low-rank ones) does its own work.
    """
    if not isinstance(layer, nn.Linear):
        return layer(x)
    weight, bias = layer.weight, None if layer.bias is None else layer.bias.to(x)
    if weight.numel() <= CAST_LIMIT or (weight.dtype, weight.device) == (x.dtype, x.device):
        return F.linear(x, weight.to(x), bias)
    rows = max(1, CAST_LIMIT // weight.shape[1])
    out = torch.cat([F.linear(x, part.to(x)) for part in weight.split(rows)], -1)
    return out if bias is None else out + bias


def layer_norm(layer: nn.Module, x: Tensor) -> Tensor:
    """LayerNorm in the precision and on the device of `x`."""
    assert isinstance(layer, nn.LayerNorm)
    weight, bias = (None, None) if layer.weight is None else (layer.weight.to(x), layer.bias.to(x))
    return F.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight.to(x)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, H*D) or (B, L, H, D) -> (B, H, L, D)"""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, L, D) -> (B, L, H*D)"""
    return x.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias) v on (B, H, L, D); keys and values of one row serve every row of q."""
    k, v = (t.to(q).expand(q.shape[0], -1, -1, -1) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q))


def unrotate(x: Tensor, pe: Tensor | None) -> Tensor:
    """Undo a rotary position embedding: multiply each pair of channels by the transposed rotation.

    x (B, H, L, D), pe (B or 1, 1, L, D/2, 2, 2) as Flux makes it (rotated_i = sum_j pe[i, j] x_j). A rotation is
    orthogonal, so its transpose is its inverse. None means that nothing was rotated.

    Where the device computes with complex numbers, a pair of channels is one, and turning it back is one product: on a
    CPU a tenth of the time.
    """
    if pe is None:
        return x
    if pe.dtype == torch.float32 and pe.device.type in COMPLEX:
        back = torch.complex(pe[..., 0, 0], -pe[..., 1, 0])
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * back).flatten(-2).to(x.dtype)
    even, odd = x.to(pe.dtype).unflatten(-1, (-1, 2)).unbind(-1)
    halves = (pe[..., 0, 0] * even + pe[..., 1, 0] * odd, pe[..., 0, 1] * even + pe[..., 1, 1] * odd)
    return torch.stack(halves, -1).flatten(-2).to(x.dtype)
