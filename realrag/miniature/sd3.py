"""A miniature of SD3.5 (MMDiT, arXiv 2403.03206) with ComfyUI's key names: its width is 64 times its depth, and
queries and keys are normalized. Depth 4: 9 M parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import FinalLayer, attention, initialize, modulate, rms_norm, split_heads, timestep_embedding

HEAD = 64
PATCH = 2


@dataclass(frozen=True)
class SD3Config:
    depth: int = 4  # also the number of heads
    context: int = 96  # width of the prompt's token states
    pooled: int = 256
    channels: int = 16
    grid: int = 16  # maximum patches per side: 256 pixels

    @property
    def width(self) -> int:
        return HEAD * self.depth


def grid_embedding(width: int, grid: int) -> Tensor:
    """(1, grid * grid, width): sines and cosines of the column, then of the row."""
    frequencies = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    each = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, width / 2)
    columns, rows = each[None].expand(grid, -1, -1), each[:, None].expand(-1, grid, -1)
    return torch.cat([columns, rows], dim=-1).reshape(1, grid * grid, width).float()


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HEAD))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight)


class Attention(nn.Module):
    """Projections of one stream; the attention itself is joint."""

    def __init__(self, width: int, last: bool):
        super().__init__()
        self.qkv, self.ln_q, self.ln_k = nn.Linear(width, 3 * width), Norm(), Norm()
        if not last:
            self.proj = nn.Linear(width, width)


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x), approximate="tanh"))


class Stream(nn.Module):
    """The text or image stream of a joint block. The last block's text stream only provides keys and values."""

    def __init__(self, width: int, last: bool = False):
        super().__init__()
        self.last = last
        self.attn = Attention(width, last)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, (2 if last else 6) * width))
        if not last:
            self.mlp = Mlp(width)

    def before(self, x: Tensor, vector: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """q, k and v of (B, heads, L, head), and the remaining modulations for `after`."""
        shift, scale, *rest = self.adaLN_modulation(vector)[:, None].chunk(2 if self.last else 6, dim=-1)
        q, k, v = split_heads(self.attn.qkv(modulate(x, shift, scale)), HEAD)
        return (self.attn.ln_q(q), self.attn.ln_k(k), v), tuple(rest)

    def after(self, x: Tensor, attended: Tensor, rest: tuple[Tensor, ...]) -> Tensor:
        gate, shift, scale, mlp_gate = rest
        x = x + gate * self.attn.proj(attended)
        return x + mlp_gate * self.mlp(modulate(x, shift, scale))


class JointBlock(nn.Module):
    def __init__(self, width: int, last: bool):
        super().__init__()
        self.context_block, self.x_block = Stream(width, last), Stream(width)

    def forward(self, context: Tensor, x: Tensor, vector: Tensor) -> tuple[Tensor | None, Tensor]:
        text, text_rest = self.context_block.before(context, vector)
        image, image_rest = self.x_block.before(x, vector)
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(text, image, strict=True))
        parts = attention(q, k, v).split([context.shape[1], x.shape[1]], dim=1)
        after = None if self.context_block.last else self.context_block.after(context, parts[0], text_rest)
        # Adding an adapter's output makes this tensor contiguous. Matrix products round differently for another layout,
        # so it is made contiguous without an adapter too: an adapter that adds zeros then changes no bit.
        return after, self.x_block.after(x, parts[1].contiguous(), image_rest)


class Embedder(nn.Module):
    def __init__(self, dim: int, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Patches(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, PATCH, PATCH)


class SD3(nn.Module):
    """Velocity (noise - latent) of a noisy latent."""

    family = "sd3"
    pos_embed: Tensor

    def __init__(self, config: SD3Config = SD3Config()):
        super().__init__()
        self.config, width = config, config.width
        self.x_embedder = Patches(config.channels, width)
        self.t_embedder, self.y_embedder = Embedder(256, width), Embedder(config.pooled, width)
        self.context_embedder = nn.Linear(config.context, width)
        self.register_buffer("pos_embed", grid_embedding(width, config.grid))
        self.joint_blocks = nn.ModuleList(JointBlock(width, i == config.depth - 1) for i in range(config.depth))
        self.final_layer = FinalLayer(width, PATCH * PATCH * config.channels)
        initialize(self, zero=("adaLN_modulation.1", "final_layer.linear"))

    def positions(self, height: int, width: int) -> Tensor:
        """(1, height * width, D) cropped from the center of the grid."""
        grid = self.config.grid
        top, left = (grid - height) // 2, (grid - width) // 2
        square = self.pos_embed.unflatten(1, (grid, grid))
        return square[:, top : top + height, left : left + width].flatten(1, 2)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        """x (B, C, H, W) with even sides, t (B,) in 0..1, context (B, T, `context`), pooled (B, `pooled`) -> like x."""
        height, width = x.shape[2] // PATCH, x.shape[3] // PATCH
        image = self.x_embedder.proj(x).flatten(2).transpose(1, 2) + self.positions(height, width)
        vector = self.t_embedder(timestep_embedding(t)) + self.y_embedder(pooled)
        text: Tensor | None = self.context_embedder(context)
        for block in self.joint_blocks:
            text, image = block(text, image, vector)
        patches = self.final_layer(image, vector).unflatten(1, (height, width)).unflatten(-1, (PATCH, PATCH, -1))
        return torch.einsum("nhwpqc->nchpwq", patches).reshape(x.shape)
