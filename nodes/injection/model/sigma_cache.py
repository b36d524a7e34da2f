"""Results for each noise level, cached for the next picture on the same schedule, never above a cap."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from torch import Tensor

CAP = 256 << 20  # bytes on the generator's device


class SigmaCache:
    """A schedule comes around again with each picture, so a full cache keeps its first entries: the least recently used
    would all be gone by the time their turn comes. After a whole round without a hit it drops everything."""

    def __init__(self, cap: int = CAP):
        self.cap, self.size, self.full = cap, 0, False
        self.last, self.hits, self.began_full = 0.0, 0, False  # of this round
        self.entries: dict[Hashable, tuple[Tensor, ...]] = {}

    def begin(self, sigma: float) -> None:
        """A model call at this noise level begins. When the noise goes up again, a new round has begun."""
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

    def clear(self) -> None:
        self.entries.clear()
        self.size, self.full = 0, False
