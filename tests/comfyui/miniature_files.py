"""Miniatures of random weights, in the layouts and under the names of those that ship."""

from __future__ import annotations

from pathlib import Path

import torch
from comfy_server import ROOT
from safetensors.torch import save_file
from torch import nn

from realrag.miniature.autoencoder import FORMAT, VERSION, Autoencoder
from realrag.miniature.flux import Flux
from realrag.miniature.generator import save_generator
from realrag.miniature.sd3 import SD3


def write(folder: Path) -> None:
    """{sd3,flux,autoencoder}.safetensors, in fp16 as shipped."""
    folder.mkdir(parents=True, exist_ok=True)
    for net in (SD3, Flux):
        model = shaken(net())
        save_generator(folder / f"{model.family}.safetensors", model, model.state_dict(), {"random": True})
    autoencoder = shaken(Autoencoder())
    nn.init.constant_(autoencoder.taesd_decoder[-1].bias, 0.5)  # grey: a picture at its bounds would hide a difference
    half = {key: value.detach().half().contiguous() for key, value in autoencoder.state_dict().items()}
    save_file(half, folder / "autoencoder.safetensors", {"format": FORMAT, "version": VERSION})


@torch.no_grad()
def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight moved at random, those too that start as zero, so that each one matters to the picture."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        spread = 0.5 / max(1, weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.1
        weight.add_(torch.randn(weight.shape, generator=generator) * spread)
    return model


def pack_with_random_miniatures(pack: Path) -> Path:
    """This pack by links, file for file, but with generators and an autoencoder of random weights."""
    miniatures = Path("realrag/assets/miniature")
    for folder in (Path("."), *(path for path in reversed(miniatures.parents) if path.name)):
        (pack / folder).mkdir(parents=True, exist_ok=True)
        for item in (ROOT / folder).iterdir():
            if folder / item.name not in (miniatures, *miniatures.parents) and item.name[0] != ".":
                (pack / folder / item.name).symlink_to(item)
    write(pack / miniatures)
    for adapter in (ROOT / miniatures).glob("*_adapter.safetensors"):
        (pack / miniatures / adapter.name).symlink_to(adapter)
    return pack
