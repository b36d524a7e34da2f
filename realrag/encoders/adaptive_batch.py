"""As many photos at once as the memory holds: a batch that does not fit is halved and tried again."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ..errors import EncoderError
from .base import Encoder

log = logging.getLogger(__name__)


class AtOnce:
    """How many photos go through the encoder at once: `size`, halved for good each time they do not fit into memory."""

    def __init__(self, size: int):
        self.size = size

    def encode(self, encoder: Encoder, pixels: list[Tensor]) -> Tensor:
        """N times (3, S, S) uint8 -> (N, D) float32 on the CPU. EncoderError where a single photo does not fit."""
        rows: list[Tensor] = []
        at = 0
        while at < len(pixels):
            part = pixels[at : at + self.size]
            try:
                rows.append(encoder.encode_images(torch.stack(part)))
                at += len(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                where = encoder.place[0]
            # Out here, for the error holds on to the tensors of the call that failed.
            torch.cuda.empty_cache()
            if len(part) == 1:
                raise EncoderError(
                    f"{encoder.name} does not fit into the memory of {where}, not even with one photo at a time. Close "
                    "what else uses it, or take --device cpu or a smaller encoder."
                )
            self.size = len(part) // 2
            log.warning("Out of memory on %s: going on with %d photos at once.", where, self.size)
        return torch.cat(rows)


def out_of_memory(error: Exception) -> bool:
    """Whether torch failed for want of memory: its own error on a GPU, words in a plain one on other devices."""
    words = str(error).lower()
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or any(
        said in words for said in ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")
    )
