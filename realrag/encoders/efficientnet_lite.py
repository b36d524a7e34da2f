"""EfficientNet-Lite0 (arXiv 1905.11946, without squeeze-and-excitation and with ReLU6) in plain torch, batch norm folded
in. Cut into a trunk and a tail, so that two tails can share one trunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .fused import conv

# (expansion, channels, repeats, stride of the first, kernel) of the stages; a stem to STEM channels comes before them, a
# 1x1 convolution to HEAD channels after them.
STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
STEM, HEAD = 32, 1280
CUT = 14  # blocks in the trunk, of 16


class MobileBlock(nn.Module):
    """1x1 expansion (none at `expansion` 1), depthwise convolution, 1x1 projection; the input is added where it has the
    shape of the output."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, stride: int, kernel: int):
        super().__init__()
        wide = channels_in * expansion
        self.expand = nn.Conv2d(channels_in, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, channels_out, 1)
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        wide = conv(x, self.expand) if isinstance(self.expand, nn.Conv2d) else x
        out = conv(conv(wide, self.depthwise, same=True), self.project, relu6=False)
        if not self.adds:
            return out
        return out + x if torch.is_grad_enabled() else out.add_(x)


def scaled(channels: int, width: float) -> int:
    return max(8, int(width * channels))


def blocks_of(width: float) -> list[MobileBlock]:
    """All blocks in order. width: of the channels, 1 in Lite0."""
    at, blocks = scaled(STEM, width), []
    for expansion, count, repeats, stride, kernel in STAGES:
        for number in range(repeats):
            blocks.append(MobileBlock(at, scaled(count, width), expansion, stride if number == 0 else 1, kernel))
            at = scaled(count, width)
    return blocks


class Trunk(nn.Module):
    """(B, 3, S, S) normalized -> (B, 192 * width, S/32, S/32)."""

    def __init__(self, width: float = 1.0):
        super().__init__()
        self.stem = nn.Conv2d(3, scaled(STEM, width), 3, 2)
        self.blocks = nn.ModuleList(blocks_of(width)[:CUT])

    def forward(self, x: Tensor) -> Tensor:
        """Channels-last, the fastest layout for depthwise convolutions on a CPU."""
        x = conv(x.contiguous(memory_format=torch.channels_last), self.stem, same=True)
        for block in self.blocks:
            x = block(x)
        return x


class Tail(nn.Module):
    """What a trunk gives -> (B, dim, S/32, S/32)."""

    def __init__(self, width: float = 1.0):
        super().__init__()
        self.blocks = nn.ModuleList(blocks_of(width)[CUT:])
        self.dim = scaled(HEAD, width)
        self.head = nn.Conv2d(scaled(STAGES[-1][1], width), self.dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return conv(x, self.head)
