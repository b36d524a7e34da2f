"""One computation in two processes that train together over gloo."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from child import METHOD
from torch import Tensor

needs_gloo = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="this torch has no gloo"
)


def in_two_ranks(work: Callable[..., list[Tensor]], folder: Path, *arguments) -> list[list[Tensor]]:
    """The results of work(rank, *arguments) on rank 0 and rank 1, with one thread each.

    New processes import `work` by name, so it must be defined in this folder and not in a test module."""
    mp.start_processes(_rank, (work, folder, arguments), nprocs=2, start_method=METHOD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def _rank(rank: int, work: Callable[..., list[Tensor]], folder: Path, arguments: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    dist.barrier()  # a rank that exits early can break the other
    dist.destroy_process_group()
