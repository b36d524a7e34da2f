"""ComfyUI's pictures, (B, H, W, C) in 0..1, as the rest of the pack expects them."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def rgb(image: Tensor) -> Tensor:
    """(..., C) -> (..., 3): gray with or without alpha is spread over the colors, alpha is dropped."""
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(*image.shape[:-1], 3)


def pixels(picture: Tensor) -> np.ndarray:
    """One picture (H, W, C) in 0..1 -> (H, W, 3) uint8."""
    return (rgb(picture).clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()


def to_pil(image: Tensor) -> Image.Image:
    """The first picture of an IMAGE (B, H, W, C) in 0..1 -> RGB."""
    return Image.fromarray(pixels(image[0]))


def png(values: np.ndarray) -> bytes:
    """(H, W, 3) uint8 -> the bytes of a PNG file, made fast."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def jpeg(image: Image.Image, quality: int = 92, subsampling: int = 0) -> bytes:
    """RGB -> the bytes of a JPEG file. subsampling: 0 keeps a color for each pixel, 2 one for four."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()
