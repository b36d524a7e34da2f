"""Miniatures of random weights, in the layouts and under the names of those that ship."""

from __future__ import annotations

from pathlib import Path

import synthetic_adapters
import torch
from comfy_server import ROOT
from safetensors.torch import save_file
from torch import nn

from realrag.adapters import reading
from realrag.encoders.load import load_encoder
from realrag.miniature.autoencoder import FORMAT, VERSION, Autoencoder
from realrag.miniature.flux import Flux
from realrag.miniature.generator import save_generator
from realrag.miniature.sd3 import SD3


def write(folder: Path) -> None:
    """{sd3,flux,autoencoder}.safetensors in fp16 as shipped, {sd3,flux}_adapter.safetensors for the shipped encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # for what the layers themselves start with
    for net in (SD3, Flux):
        model = shaken(net())
        save_generator(folder / f"{model.family}.safetensors", model, model.state_dict(), {"random": True})
    autoencoder = shaken(Autoencoder())
    nn.init.constant_(autoencoder.taesd_decoder[-1].bias, 0.5)  # gray: a picture at its bounds would hide a difference
    half = {key: value.detach().half().contiguous() for key, value in autoencoder.state_dict().items()}
    save_file(half, folder / "autoencoder.safetensors", {"format": FORMAT, "version": VERSION})
    instantx = synthetic_adapters.instantx(width=256, blocks=4, encoder=1024, tokens=18, own_keys=False)
    xlabs = synthetic_adapters.xlabs(width=256, blocks=2, encoder=1024, tokens=36, spatial=True)
    for family, layout, weights in (("sd3", "sd35-instantx", instantx), ("flux", "flux-xlabs", xlabs)):
        about = dict(
            format=reading.FORMAT, version=reading.VERSION, base=f"a {family} of random weights", family=layout
        )
        about |= dict(encoder="realrag-small", encoder_sha256=load_encoder().weights_sha256)
        save_file(weights, folder / f"{family}_adapter.safetensors", about)


@torch.no_grad()
def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight moved at random, those too that start as zero, so that each one matters to the picture."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        spread = 0.5 / max(1, weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.1
        weight.add_(torch.randn(weight.shape, generator=generator) * spread)
    return model


def pack_with_random_miniatures(pack: Path) -> Path:
    """This pack by links, file for file, but with miniatures of random weights."""
    miniatures = Path("realrag/assets/miniature")
    for folder in (Path("."), *(path for path in reversed(miniatures.parents) if path.name)):
        (pack / folder).mkdir(parents=True, exist_ok=True)
        for item in (ROOT / folder).iterdir():
            if folder / item.name not in (miniatures, *miniatures.parents) and item.name[0] != ".":
                (pack / folder / item.name).symlink_to(item)
    write(pack / miniatures)
    return pack
