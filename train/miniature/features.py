"""Outputs of frozen layers for every view of the world, computed once and memory-mapped from files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from realrag.files import sha256_bytes, write_atomic
from realrag.native_bf16 import bf16_autocast

from .world import Progress, World

CHUNK = 32


def weights_key(layers: torch.nn.Module) -> str:
    return sha256_bytes(b"".join(value.detach().numpy().tobytes() for value in layers.state_dict().values()))[:12]


def to_images(pixels: np.ndarray) -> Tensor:
    """(B, 3, S, S) uint8 -> the same in 0..1, in channels-last memory."""
    return (torch.from_numpy(np.array(pixels)).float() / 255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def cached_outputs(
    name: str,
    layers: torch.nn.Module,
    world: World,
    view: int,
    inputs: Callable[[], np.ndarray],
    progress: Progress = lambda done, total: None,
) -> np.ndarray:
    """(N, C, h, w) float16: `layers` applied to each row of `inputs()`. name: part of the file name."""
    path = world.scratch / f"{name}-{world.key}-{weights_key(layers)}-{view}.npy"
    if not path.exists():
        rows, made = inputs(), []
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            x = to_images(chunk) if chunk.dtype == np.uint8 else torch.from_numpy(np.array(chunk)).float()
            with bf16_autocast("cpu"):
                made.append(layers(x).half().contiguous().numpy())
            progress(min(start + CHUNK, len(rows)), len(rows))
        write_atomic(path, lambda file: np.save(file, np.concatenate(made)))
    return np.load(path, mmap_mode="r")
