"""What was worked out for a noise level, kept for the next picture on the same schedule, never above a cap."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

CAP = 256 << 20  # bytes on the generator's device


class SigmaCache:
    """Schedules go round and round, so when full the first ones are kept (the least recently used would all be gone by
    the time their turn comes); after a whole round in which nothing kept was asked for, everything is dropped."""

    def __init__(self, cap: int = CAP):
        self.cap, self.size, self.full = cap, 0, False
        self.last, self.hits, self.began_full = 0.0, 0, False  # of the round that is going on
        self.entries: dict[Hashable, tuple[Tensor, ...]] = {}

    def begin(self, sigma: float) -> None:
        """A model call at this noise level begins. When noise goes up again, a new round has begun."""
        if sigma > self.last:
            if self.began_full and not self.hits:
                self.clear()
            self.hits, self.began_full = 0, self.full
        self.last = sigma

    def get(self, key: Hashable, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        if key in self.entries:
            self.hits += 1
            return self.entries[key]
        made = make()
        size = sum(tensor.numel() * tensor.element_size() for tensor in made)
        self.full = self.full or self.size + size > self.cap
        if not self.full:
            self.entries[key] = made
            self.size += size
        return made

    def to(self, where) -> None:
        """Leave with the generator: what lies on another device is dropped."""
        if isinstance(where, torch.dtype):
            return
        if any(tensor.device != torch.device(where) for made in self.entries.values() for tensor in made):
            self.clear()

    def clear(self) -> None:
        self.entries.clear()
        self.size, self.full = 0, False
