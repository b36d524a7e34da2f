"""The start of our autoencoder: taef2 (madebyollin/taesd, MIT), which encodes photos in 32 channels for FLUX.2.

Its outer layers are used unchanged; its inner ones, with attention-like pooling and twice the channels, teach smaller
ones.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from realrag.errors import RealRAGError
from realrag.miniature.autoencoder import CHANNELS, WIDTH, Autoencoder, Block, Clamp, conv

FRONT = 11  # layers of the encoder before its inner blocks: photo -> (B, 64, S/8, S/8)
BACK = 6  # first layer of the decoder after its inner blocks
TEACHER_CHANNELS = 32


class PooledBlock(Block):
    """A block of taef2's inner layers."""

    def __init__(self):
        super().__init__()
        wide = 4 * WIDTH
        self.pool = nn.Sequential(
            nn.Conv2d(WIDTH, wide, 1, bias=False),
            nn.GroupNorm(4, wide),
            nn.ReLU(),
            nn.Conv2d(wide, WIDTH, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.pool(x))


class Teacher(nn.Module):
    """taef2's inner layers, frozen: features of the front -> its latents -> features for the back."""

    def __init__(self):
        super().__init__()
        self.tail = nn.Sequential(PooledBlock(), PooledBlock(), PooledBlock(), conv(WIDTH, TEACHER_CHANNELS))
        self.head = nn.Sequential(
            Clamp(), conv(TEACHER_CHANNELS), nn.ReLU(), PooledBlock(), PooledBlock(), PooledBlock()
        )  # fmt: skip


def _layers(state: dict[str, Tensor], first: int, last: int) -> dict[str, Tensor]:
    """The entries of layers first..last-1, renumbered from 0."""
    parted = ((*name.split(".", 1), value) for name, value in state.items())
    return {f"{int(n) - first}.{rest}": value.float() for n, rest, value in parted if first <= int(n) < last}


def read_taef2(folder: Path) -> tuple[Teacher, Autoencoder]:
    """The teacher, and an autoencoder that starts with taef2's outer layers and the convolutions of its inner blocks."""
    try:
        states = [torch.load(folder / f"taef2_{part}.pth", weights_only=True) for part in ("encoder", "decoder")]
        teacher, ours = Teacher(), Autoencoder()
        teacher.tail.load_state_dict(_layers(states[0], FRONT, 15))
        teacher.head.load_state_dict(_layers(states[1], 0, BACK))
        for module, state in zip((ours.taesd_encoder, ours.taesd_decoder), states, strict=True):
            own = module.state_dict()
            module.load_state_dict(
                own | {n: v.float() for n, v in state.items() if n in own and own[n].shape == v.shape}
            )
    except (OSError, KeyError, RuntimeError) as error:
        raise RealRAGError(
            f"{folder} holds no usable taef2_encoder.pth and taef2_decoder.pth ({error}). Fetch both from madebyollin/taesd."
        ) from error
    return teacher.eval().requires_grad_(False), ours


@torch.no_grad()
def squeeze(teacher: Teacher, ours: Autoencoder, latents: Tensor) -> None:
    """Start our inner convolutions from the teacher's, projected to the 16 directions in which its latents (N, 32) vary
    most, rotated to equal variance per channel and scaled to unit variance."""
    mean = latents.mean(0)
    _, _, directions = torch.linalg.svd(latents - mean, full_matrices=False)
    rng = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=rng))[0]
    basis = rotation @ directions[:CHANNELS]  # (16, 32), orthonormal rows
    scale = 1 / ((latents - mean) @ basis.T).pow(2).mean().sqrt()
    last, theirs = ours.taesd_encoder[-1], teacher.tail[-1]
    last.weight.copy_(scale * torch.einsum("oc,cihw->oihw", basis, theirs.weight))
    last.bias.copy_(scale * basis @ (theirs.bias - mean))
    first, theirs = ours.taesd_decoder[1], teacher.head[1]
    first.weight.copy_(torch.einsum("ocxy,lc->olxy", theirs.weight, basis) / scale)
    first.bias.copy_(theirs.bias + theirs.weight.sum((2, 3)) @ mean)
