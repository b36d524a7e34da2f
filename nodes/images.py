"""ComfyUI's pictures, (B, H, W, C) in 0..1, as the rest of the pack expects them."""

from __future__ import annotations

from torch import Tensor


def rgb(image: Tensor) -> Tensor:
    """(..., C) -> (..., 3): gray with or without alpha is spread over the colors, alpha is dropped."""
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(*image.shape[:-1], 3)
