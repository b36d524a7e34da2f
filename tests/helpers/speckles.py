"""Random pictures of which no two look alike."""

import numpy as np
from PIL import Image


def speckled(seed: int, size=(48, 48), cells: int = 8) -> Image.Image:
    """Colored squares, by seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
