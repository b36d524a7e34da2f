"""EfficientNet-Lite0 (arXiv 1905.11946, without squeeze-and-excitation and with ReLU6) in plain torch, batch norm folded
in. Cut into a trunk and a tail, so that two tails can share one trunk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fused import conv_relu6

# (expansion, channels, repeats, stride of the first, kernel) of the stages; a stem to STEM channels comes before them, a
# 1x1 convolution to HEAD channels after them.
STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
STEM, HEAD = 32, 1280
CUT = 14  # blocks in the trunk, of 16
# On a CPU the stem and the first EARLY blocks, whose results outgrow its cache, take TOGETHER photos at once.
EARLY, TOGETHER = 11, 4


def same_pad(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME padding of (B, C, H, W): an odd row goes below, an odd column right."""
    (top, bottom), (left, right) = (
        (total // 2, total - total // 2)
        for total in (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    )
    return F.pad(x, (left, right, top, bottom))


class MobileBlock(nn.Module):
    """1x1 expansion (none at `expansion` 1), depthwise convolution, 1x1 projection; the input is added where it has the
    shape of the output."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, stride: int, kernel: int):
        super().__init__()
        wide = channels_in * expansion
        self.expand = nn.Conv2d(channels_in, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, channels_out, 1)
        self.stride, self.kernel, self.adds = stride, kernel, stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        wide = conv_relu6(x, self.expand) if isinstance(self.expand, nn.Conv2d) else x
        inside = self.stride == 1  # SAME is then the same all round, and the convolution pads by itself
        wide = wide if inside else same_pad(wide, self.kernel, self.stride)
        out = self.project(conv_relu6(wide, self.depthwise, self.kernel // 2 if inside else 0))
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

    def early(self, x: Tensor) -> Tensor:
        """The stem and the first blocks. Channels-last, the fastest layout for depthwise convolutions on a CPU."""
        x = conv_relu6(same_pad(x.contiguous(memory_format=torch.channels_last), 3, 2), self.stem)
        for block in self.blocks[:EARLY]:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.is_grad_enabled() or x.device.type != "cpu"
        x = self.early(x) if whole else torch.cat([self.early(part) for part in x.split(TOGETHER)])
        for block in self.blocks[EARLY:]:
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
        return conv_relu6(x, self.head)
