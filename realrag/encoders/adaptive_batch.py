"""Halves the batch on out-of-memory errors and tries again."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ..errors import EncoderError
from .base import Encoder

log = logging.getLogger(__name__)


class AdaptiveBatch:
    """Encodes `size` photos per step. `size` is halved, for good, each time a step runs out of memory."""

    def __init__(self, size: int):
        self.size = size

    def encode(self, encoder: Encoder, pixels: list[Tensor]) -> Tensor:
        """N times (3, S, S) uint8 -> (N, D) float32 on the CPU. Raises EncoderError if even one photo does not fit."""
        rows: list[Tensor] = []
        done = 0
        while done < len(pixels):
            part = pixels[done : done + self.size]
            try:
                rows.append(encoder.encode_images(torch.stack(part)))
                done += len(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                device = encoder.place[0]
            # Outside the except block: the error keeps the tensors of the failed call alive.
            torch.cuda.empty_cache()
            if len(part) == 1:
                raise EncoderError(
                    f"{encoder.name} does not fit into the memory of {device}, not even with one photo at a time. Close "
                    "other programs that use it, or choose --device cpu or a smaller encoder."
                )
            self.size = len(part) // 2
            log.warning("Out of memory on %s: continuing with %d photos per step.", device, self.size)
        return torch.cat(rows)


def out_of_memory(error: Exception) -> bool:
    """Whether an error means out of memory. torch has its own error class on a GPU; elsewhere only the message says so."""
    message = str(error).lower()
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or any(
        phrase in message
        for phrase in ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")
    )
