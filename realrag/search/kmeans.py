"""Spherical k-means by torch, on any device, for the centres of faiss's inverted lists; faiss itself searches on the
CPU.

Lloyd's iterations by inner product, with the centres made unit after each, as faiss's own `spherical` clustering does.
It is for GPUs, of which none was at hand to time it: on a CPU faiss does the same in two thirds of the time, and stays
in use there (see `ivf.build_lists`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 16_384  # rows compared with all centres at once: at most 1 GB of scores
APART = 1 / 1024  # by which the two halves of a large cluster are moved apart, as in faiss


def nearest(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """rows (N, D), centres (L, D) -> the largest inner product of each row (N,) and its centre (N,) int64, the first of
    equals."""
    best = [(part.to(centres.device, torch.float32) @ centres.T).max(1) for part in rows.split(BLOCK)]
    return torch.cat([part.values for part in best]), torch.cat([part.indices for part in best])


def spherical_kmeans(
    rows: np.ndarray,
    lists: int,
    iterations: int,
    seed: int,
    device: str = "cpu",
    step: Callable[[], None] = lambda: None,
) -> Tensor:
    """rows (N, D) float32 of unit length, N >= lists -> (lists, D) float32 unit centres on `device`.

    The start is `lists` different rows drawn by `seed`. step() comes before each iteration and may raise to stop. On a
    CPU the same input gives the same bits on the same machine, versions and number of threads; on a GPU sums are added in any order, and their last bits may differ.
    """
    chosen = np.random.Generator(np.random.PCG64(seed)).choice(len(rows), lists, replace=False)
    sample = torch.from_numpy(rows).to(device)
    centres = sample[torch.from_numpy(np.sort(chosen)).to(device)].clone()
    for _ in range(iterations):
        step()
        sums, counts = torch.zeros_like(centres), torch.zeros(lists, dtype=torch.int64, device=device)
        for part in sample.split(BLOCK):
            _, owner = nearest(part, centres)
            sums.index_add_(0, owner, part)
            counts += torch.bincount(owner, minlength=lists)
        means = F.normalize(sums, dim=1)
        centres = torch.where(means.any(1, keepdim=True), means, centres)  # rows that cancel out leave it where it was
        split_largest(centres, counts.cpu().numpy())
    return centres


def split_largest(centres: Tensor, counts: np.ndarray) -> None:
    """Give each empty cluster half of the largest one, in place: two unit centres a little to either side of the old
    one.

    centres: (L, D). counts: (L,) int64, rows of each. An empty list would never be looked into, and the largest ones
    cost the most to look into.
    """
    counts = counts.copy()
    sides = 1 + APART * torch.where(torch.arange(centres.shape[1], device=centres.device) % 2 == 0, 1.0, -1.0)
    for empty in np.flatnonzero(counts == 0):
        largest = int(counts.argmax())
        centres[empty] = F.normalize(centres[largest] * sides, dim=0)
        centres[largest] = F.normalize(centres[largest] * (2 - sides), dim=0)
        counts[empty] = counts[largest] // 2
        counts[largest] -= counts[empty]
