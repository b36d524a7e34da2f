"""A mask drawn on the picture -> one value for each of the generator's image tokens, area for area."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """Where in the whole latent a model call's part of it lies, in latent pixels: area prompts hand the model a part."""

    whole: tuple[int, int]  # height, width
    corner: tuple[int, int]  # top, left


def token_mask(mask: Tensor, height: int, width: int, patch: int = 2, cut: Cut | None = None) -> Tensor:
    """Mask (H, W) in 0..1, stretched over the whole latent -> (ceil(height/patch) * ceil(width/patch),).

    height x width is the latent, or with `cut` the part of it that the model sees. A token's value is the mask's mean
    over the token's own part of the picture. With odd sides the last row or column of tokens is padded: only the part
    inside counts, and no other token shifts.
    """
    mask = mask.detach().to("cpu", torch.float64).clamp(0, 1)
    cut = cut or Cut((height, width), (0, 0))
    sides = zip(mask.shape, (height, width), cut.whole, cut.corner, strict=True)
    rows, columns = (_overlaps(source, side, patch, whole, start) for source, side, whole, start in sides)
    return (rows @ mask @ columns.T).clamp(0, 1).float().flatten()


def _overlaps(source: int, side: int, patch: int, whole: int, start: int) -> Tensor:
    """(tokens, source): the share of each source pixel in each token along one axis; rows sum to 1."""
    edges = (start + torch.arange(0, side + patch, patch, dtype=torch.float64).clamp(max=side)) * source / whole
    pixels = torch.arange(source, dtype=torch.float64)
    lower, upper = edges[:-1, None], edges[1:, None]
    covered = (torch.minimum(upper, pixels + 1) - torch.maximum(lower, pixels)).clamp(min=0)
    return covered / (upper - lower)
