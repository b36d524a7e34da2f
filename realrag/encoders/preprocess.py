"""PIL picture -> the square of pixels that an encoder was trained on, in the three modes of open_clip."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import EncoderError

MODES = {
    "crop": "shorter side to `size`, center crop (CLIP)",
    "squash": "both sides to `size`, aspect ratio not kept (SigLIP)",
    "pad": "longer side to `size`, the rest filled with black",
}

WIDEST = 64  # aspect ratio; a 20,000 x 1 picture would otherwise be enlarged to gigabytes before the crop


def _without_far_ends(image):
    """Cut off, from pictures thinner than 1 : WIDEST, ends that a center crop drops anyway."""
    width, height = image.size
    long = WIDEST * min(image.size)
    if max(image.size) <= long:
        return image
    left, top = max(0, (width - long) // 2), max(0, (height - long) // 2)
    return image.crop((left, top, left + min(width, long), top + min(height, long)))


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing: side length in pixels, mode (see MODES), resampling, and mean and std per channel in 0..1."""

    size: int
    mode: str = "crop"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self):
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if self.mode not in MODES or self.interpolation not in ("bicubic", "bilinear"):
            raise EncoderError(
                f"Preprocessing {self.mode!r} with {self.interpolation!r} is unknown; modes are {', '.join(MODES)}, "
                "interpolations bicubic and bilinear."
            )
        if not 1 <= int(self.size) <= 4096 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise EncoderError(
                f"Preprocessing {asdict(self)} is not usable: size 1..4096, three means, three stds above 0."
            )

    def pixels(self, image) -> Tensor:
        """PIL image -> (3, size, size) uint8, resized by Pillow with antialiasing, as torchvision does for PIL input."""
        from PIL import Image

        resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[self.interpolation]
        image, size = image.convert("RGB"), self.size
        if self.mode == "squash":
            image = image.resize((size, size), resample)
        elif self.mode == "crop":
            image = _without_far_ends(image)
            short = min(image.size)
            # torchvision's arithmetic: the long side is cut to whole pixels, the crop starts at the rounded half
            width, height = (int(size * side / short) for side in image.size)
            image = image.resize((width, height), resample) if (width, height) != image.size else image
            left, top = round((width - size) / 2.0), round((height - size) / 2.0)
            image = image.crop((left, top, left + size, top + size))
        else:
            long = max(image.size)
            width, height = (max(1, round(size * side / long)) for side in image.size)
            canvas = Image.new("RGB", (size, size))
            canvas.paste(image.resize((width, height), resample), ((size - width) // 2, (size - height) // 2))
            image = canvas
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def normalize(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, 3, S, S) uint8 -> (B, 3, S, S) of `dtype`: (x / 255 - mean) / std."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels.float() / 255).sub_(mean).div_(std).to(dtype)
