"""The autoencoder of the miniature models: TAESD's layout (madebyollin/taesd, MIT) with 16 channels, which ComfyUI
loads as taesd3 or taef1. Encoder and decoder have 1.2 M parameters each. One latent covers 8 x 8 pixels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from .. import artifact
from ..errors import RealRAGError, brief

CHANNELS = 16
WIDTH = 64
FORMAT, VERSION = "realrag-miniature-autoencoder", "1"
CURE = "Download it again, or train it again."


class Clamp(nn.Module):
    """Soft bounds at -3 and 3, so that an extreme latent cannot destabilize the decoder."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """Three 3x3 convolutions with a skip connection."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


def conv(channels_in: int = WIDTH, channels_out: int = WIDTH, **more) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, **more)


def encoder(channels: int = CHANNELS) -> nn.Sequential:
    """(B, 3, H, W) in 0..1 -> (B, channels, H/8, W/8)."""
    layers: list[nn.Module] = [conv(3), Block()]
    for _ in range(3):
        layers += [conv(stride=2, bias=False), Block(), Block(), Block()]
    return nn.Sequential(*layers, conv(WIDTH, channels))


def decoder(channels: int = CHANNELS) -> nn.Sequential:
    """(B, channels, h, w) -> (B, 3, 8h, 8w), about 0..1."""
    layers: list[nn.Module] = [Clamp(), conv(channels), nn.ReLU()]
    for _ in range(3):
        layers += [Block(), Block(), Block(), nn.Upsample(scale_factor=2), conv(bias=False)]
    return nn.Sequential(*layers, Block(), conv(WIDTH, 3))


class Autoencoder(nn.Module):
    """Its latents, of about unit variance, are the generators' input. ComfyUI passes latents between nodes in each
    family's own scale; `state_for` stores that scale."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.taesd_encoder = encoder(channels)
        self.taesd_decoder = decoder(channels)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1, sides multiples of 8 -> (B, 16, H/8, W/8)."""
        return self.taesd_encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 16, h, w) -> (B, 3, 8h, 8w) in 0..1."""
        return self.taesd_decoder(latents).clamp(0, 1)

    def state_for(self, scale: float, shift: float) -> dict[str, Tensor]:
        """ComfyUI's state dict for a family whose latents are ours / scale + shift (comfy.latent_formats)."""
        return {**self.state_dict(), "vae_scale": torch.tensor(float(scale)), "vae_shift": torch.tensor(float(shift))}


def load_autoencoder(path: Path) -> Autoencoder:
    """fp32, in eval mode. RealRAGError if the file is not an autoencoder of this format."""
    state, _ = artifact.read(path, FORMAT, VERSION, "a miniature's autoencoder", CURE)
    model = Autoencoder()
    try:
        model.load_state_dict({name: value.float() for name, value in state.items()})
    except RuntimeError as error:
        raise RealRAGError(f"{path} does not hold an autoencoder's weights ({brief(error)}). {CURE}") from error
    return model.to(memory_format=torch.channels_last).eval().requires_grad_(False)
