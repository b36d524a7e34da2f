"""A miniature of FLUX.1 schnell under the names of black-forest-labs/flux: heads of 128, rotary positions, two streams
that merge into one. Two double and four single blocks of width 256: 9 M parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import FinalLayer, attention, initialize, modulate, rms_norm, split_heads, timestep_embedding

HEAD = 128
AXES = (16, 56, 56)  # of a head: unused, row, column
THETA = 10000
PATCH = 2


@dataclass(frozen=True)
class FluxConfig:
    width: int = 256  # a multiple of 128
    double: int = 2
    single: int = 4
    context: int = 96  # width of the prompt's token states
    pooled: int = 256
    channels: int = 16


def rotations(ids: Tensor) -> tuple[Tensor, Tensor]:
    """(L, 3) positions -> cosines and sines, (L, 64) each: one angle for each pair of a head's channels."""
    angles = []
    for axis, dim in enumerate(AXES):
        frequencies = THETA ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=ids.device) / dim)
        angles.append(ids[:, axis, None].double() * frequencies)
    together = torch.cat(angles, dim=1)
    return together.cos().float(), together.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates each pair of channels of (B, heads, L, 128), in fp32. Equivalent to BFL's 2x2 matrices."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(HEAD))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.scale)


class QKNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.query_norm, self.key_norm = Scale(), Scale()


class Attention(nn.Module):
    """Projections of one stream; the attention itself is joint."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv, self.norm, self.proj = nn.Linear(width, 3 * width), QKNorm(), nn.Linear(width, width)


class Modulation(nn.Module):
    """(B, D) -> `count` shifts, scales and gates of (B, 1, D)."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.lin, self.count = nn.Linear(width, count * width), count

    def forward(self, vector: Tensor) -> tuple[Tensor, ...]:
        return self.lin(nn.functional.silu(vector))[:, None].chunk(self.count, dim=-1)


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))


class DoubleBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.img_mod, self.img_attn, self.img_mlp = Modulation(width, 6), Attention(width), mlp(width)
        self.txt_mod, self.txt_attn, self.txt_mlp = Modulation(width, 6), Attention(width), mlp(width)

    def forward(self, img: Tensor, txt: Tensor, vector: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        img_mods, txt_mods = self.img_mod(vector), self.txt_mod(vector)
        parts = []
        for x, mods, layer in ((txt, txt_mods, self.txt_attn), (img, img_mods, self.img_attn)):
            q, k, v = split_heads(layer.qkv(modulate(x, *mods[:2])), HEAD)
            parts.append((layer.norm.query_norm(q), layer.norm.key_norm(k), v))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(*parts, strict=True))
        attended = attention(rotate(q, *turn), rotate(k, *turn), v)
        txt_part, img_part = attended.split([txt.shape[1], img.shape[1]], dim=1)
        img = img + img_mods[2] * self.img_attn.proj(img_part)
        img = img + img_mods[5] * self.img_mlp(modulate(img, *img_mods[3:5]))
        txt = txt + txt_mods[2] * self.txt_attn.proj(txt_part)
        txt = txt + txt_mods[5] * self.txt_mlp(modulate(txt, *txt_mods[3:5]))
        return img, txt


class SingleBlock(nn.Module):
    """Attention and MLP side by side over text and picture in one sequence."""

    def __init__(self, width: int):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, 7 * width), nn.Linear(5 * width, width)
        self.norm, self.modulation = QKNorm(), Modulation(width, 3)

    def forward(self, x: Tensor, vector: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        shift, scale, gate = self.modulation(vector)
        width = x.shape[-1]
        qkv, inner = self.linear1(modulate(x, shift, scale)).split([3 * width, 4 * width], dim=-1)
        q, k, v = split_heads(qkv, HEAD)
        q, k = self.norm.query_norm(q), self.norm.key_norm(k)
        attended = attention(rotate(q, *turn), rotate(k, *turn), v)
        return x + gate * self.linear2(torch.cat([attended, nn.functional.gelu(inner, approximate="tanh")], dim=-1))


class Embedder(nn.Module):
    def __init__(self, dim: int, width: int):
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(dim, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(nn.functional.silu(self.in_layer(x)))


class Flux(nn.Module):
    """Velocity (noise - latent) of a noisy latent. Like schnell, without `guidance_in`."""

    family = "flux"

    def __init__(self, config: FluxConfig = FluxConfig()):
        super().__init__()
        self.config, width, inside = config, config.width, config.channels * PATCH * PATCH
        self.img_in, self.txt_in = nn.Linear(inside, width), nn.Linear(config.context, width)
        self.time_in, self.vector_in = Embedder(256, width), Embedder(config.pooled, width)
        self.double_blocks = nn.ModuleList(DoubleBlock(width) for _ in range(config.double))
        self.single_blocks = nn.ModuleList(SingleBlock(width) for _ in range(config.single))
        self.final_layer = FinalLayer(width, inside)
        initialize(self, zero=("mod.lin", "modulation.lin", "adaLN_modulation.1", "final_layer.linear"))

    def turn(self, text: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rotations of all tokens: text tokens at the origin, image tokens at their row and column."""
        rows = torch.arange(height, device=device).repeat_interleave(width)
        columns = torch.arange(width, device=device).repeat(height)
        ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=1)
        return rotations(torch.cat([ids.new_zeros(text, 3), ids]))

    def forward(self, x: Tensor, t: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        """x (B, C, H, W) with even sides, t (B,) in 0..1, context (B, T, `context`), pooled (B, `pooled`) -> like x."""
        height, width = x.shape[2] // PATCH, x.shape[3] // PATCH
        patches = x.unflatten(3, (width, PATCH)).unflatten(2, (height, PATCH))  # b c h ph w pw
        img = self.img_in(torch.einsum("bchpwq->bhwcpq", patches).flatten(3).flatten(1, 2))
        txt = self.txt_in(context)
        vector = self.time_in(timestep_embedding(t)) + self.vector_in(pooled)
        turn, text = self.turn(txt.shape[1], height, width, x.device), txt.shape[1]
        for block in self.double_blocks:
            img, txt = block(img, txt, vector, turn)
        both = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            both = block(both, vector, turn)
        out = self.final_layer(both[:, text:], vector).unflatten(1, (height, width)).unflatten(-1, (-1, PATCH, PATCH))
        return torch.einsum("bhwcpq->bchpwq", out).reshape(x.shape)
