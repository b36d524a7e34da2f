"""A mask drawn on the picture -> one value for each of the generator's image tokens, area for area."""

from __future__ import annotations

import torch
from torch import Tensor


def token_mask(mask: Tensor, height: int, width: int, patch: int = 2) -> Tensor:
    """Mask (H, W) in 0..1, stretched over a latent of height x width -> (ceil(height/patch) * ceil(width/patch),).

    A token's value is the mask's mean over the token's own part of the picture. With odd sides the last row or column of
    tokens is padded: only the part inside the picture counts, and no other token shifts.
    """
    mask = mask.detach().to("cpu", torch.float64).clamp(0, 1)
    rows, columns = (_overlaps(source, side, patch) for source, side in zip(mask.shape, (height, width), strict=True))
    return (rows @ mask @ columns.T).clamp(0, 1).float().flatten()


def _overlaps(source: int, side: int, patch: int) -> Tensor:
    """(tokens, source): the share of each source pixel in each token along one axis; rows sum to 1."""
    edges = torch.arange(0, side + patch, patch, dtype=torch.float64).clamp(max=side) * source / side
    pixels = torch.arange(source, dtype=torch.float64)
    start, end = edges[:-1, None], edges[1:, None]
    covered = (torch.minimum(end, pixels + 1) - torch.maximum(start, pixels)).clamp(min=0)
    return covered / (end - start)
