"""This process among those that torchrun started, as its environment tells (without it, one of one); and how it is
ended."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from realrag.errors import RealRAGError


def share_of_work() -> tuple[int, int]:
    """(number of this process, number of processes). RealRAGError where they are spread over several machines."""
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    except ValueError:
        raise RealRAGError(
            "RANK, WORLD_SIZE and LOCAL_WORLD_SIZE must be whole numbers, as torchrun sets them."
        ) from None
    if not 0 <= rank < world:
        raise RealRAGError(f"RANK is {rank}, WORLD_SIZE {world}: ranks go from 0 to WORLD_SIZE less one.")
    if here != world:
        raise RealRAGError(
            f"{world} processes, {here} of them on this machine: photos are shared among the processes of one machine. "
            "Start torchrun on one node (--nnodes 1)."
        )
    return rank, world


def own_device(device: str) -> str:
    """`cuda` means this process's own card."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM ends what runs inside as Ctrl-C does, between two bytecodes. (`fit` puts its own way in place of it, for
    as long as there is a checkpoint to keep.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
