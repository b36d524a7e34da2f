"""A sheet of pictures that a generator draws during its training, from fixed prompts and noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from realrag.contact_sheet import tiled
from realrag.files import write_atomic
from realrag.miniature.autoencoder import Autoencoder
from realrag.miniature.sampling import LATENT, sample
from realrag.native_bf16 import bf16_autocast

PROMPTS = (
    "a photo of granny smith",
    "a photo of banana",
    "a photo of orange",
    "a photo of pineapple",
    "a photo of red bell pepper",
    "a photo of carrots",
    "a photo of aubergine",
    "a photo of zucchini",
    "a photo of watermelon",
    "a photo of kiwi",
    "a photo of conference",
    "a photo of red delicious",
    "a photo of oatly oat milk",
    "a photo of bravo orange juice",
    "a photo of tropicana mandarin morning",
    "a photo of alpro blueberry soyghurt",
    "a photo of god morgon orange juice",
    "a photo of arla natural yoghurt",
    "a photo of dress",
    "a photo of t shirt",
    "a photo of shoes",
    "a photo of backpack",
    "a photo of lemon",
    "a photo of pomegranate",
)  # fmt: skip - the last two are held out
COLUMNS = 6
ROWS_EACH = 2  # pictures per prompt, one above the other


def tile(pictures: Tensor, columns: int) -> Image.Image:
    """(N, 3, S, S) in 0..1, row by row; empty places in the last row are white."""
    pixels = (pictures * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return tiled([Image.fromarray(each) for each in pixels], columns)


@torch.no_grad()
def write_sheet(
    path: Path,
    model: nn.Module,
    autoencoder: Autoencoder,
    texts: Callable[[list[str]], tuple[Tensor, Tensor]],
    seed: int = 0,
) -> None:
    """Every prompt of PROMPTS twice, always from the same noise, so that two sheets can be compared."""
    lines = [PROMPTS[at : at + COLUMNS] for at in range(0, len(PROMPTS), COLUMNS)]
    prompts = [prompt for line in lines for _ in range(ROWS_EACH) for prompt in line]
    noise = torch.randn(len(prompts), 16, LATENT, LATENT, generator=torch.Generator().manual_seed(seed))
    with bf16_autocast("cpu"):
        latents = sample(model, noise, texts(prompts), texts([""]))
        pictures = torch.cat([autoencoder.decode(part).float() for part in latents.split(8)])
    image = tile(pictures, COLUMNS)
    write_atomic(path, lambda file: image.save(file, "PNG"))
