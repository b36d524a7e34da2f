"""The rank of this process among those of torchrun, from its environment (0 of 1 without torchrun); and SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from realrag.errors import RealRAGError


def rank_and_world_size(several_machines: bool = False) -> tuple[int, int]:
    """(rank, number of processes). RealRAGError where the processes are spread over several machines, unless the work can be:
    that of processes that share a folder and nothing else."""
    try:
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    except ValueError:
        raise RealRAGError(
            "RANK, WORLD_SIZE and LOCAL_WORLD_SIZE must be whole numbers, as torchrun sets them."
        ) from None
    if not 0 <= rank < world_size:
        raise RealRAGError(f"RANK is {rank}, WORLD_SIZE {world_size}: ranks run from 0 to WORLD_SIZE - 1.")
    if here != world_size and not several_machines:
        raise RealRAGError(
            f"{world_size} processes, {here} of them on this machine: work is shared among the processes of one machine "
            "only. Start torchrun on one node (--nnodes 1)."
        )
    return rank, world_size


def own_device(device: str) -> str:
    """`cuda` means the GPU of this process."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt inside, as Ctrl-C does. (`Watch` replaces both handlers while it trains.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
