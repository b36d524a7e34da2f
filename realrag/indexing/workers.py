"""Several processes of one machine encode one library: process r of w writes every w-th shard, beginning with shard r.

They never talk. What each has done is told by the shards that are there, and that it lives by a lock with its number.
Process 0 waits for the others, encodes what those have left that ended too early, and alone touches the bundle.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import RealRAGError
from ..files import FolderLock
from ..photos.scan import Progress

GRACE = 60.0  # seconds that a process may take to come up, or to go on to its next shard, without a lock to show for it
LOOK = 0.2  # seconds between two looks


def checked(share: tuple[int, int]) -> tuple[int, int]:
    rank, world = share
    if not 0 <= rank < world:
        raise RealRAGError(f"Process {rank} of {world}: processes are numbered from 0 to their number less one.")
    return rank, world


@contextmanager
def at_work(work: Path, rank: int) -> Iterator[None]:
    """Make the folder `work` and hold a lock in it, which tells the others that process `rank` lives."""
    work.mkdir(parents=True, exist_ok=True)
    with _lock(work, rank):
        yield
    if rank:
        with suppress(OSError):  # shards are in it as a rule; empty where process 0 was done before this one began
            work.rmdir()


def _lock(work: Path, rank: int) -> FolderLock:
    return FolderLock(work / ("lock" if rank == 0 else f"lock-{rank}"))


def wait_for_others(parts: list[tuple[Path, list]], work: Path, world: int, progress: Progress) -> None:
    """Return when all shards are there, or when nobody is left who would write those that are not.

    parts: (file, photos) of each shard, of which process number i mod `world` writes the i-th. progress may raise.
    """
    total, last_sign, there = sum(len(part) for _, part in parts), time.monotonic(), -1
    while True:
        missing = {number for number, (path, _) in enumerate(parts) if not path.is_file()}
        if not missing:
            return
        progress(sum(len(part) for number, (_, part) in enumerate(parts) if number not in missing), total)
        live = any(_lock(work, number % world).owner for number in missing if number % world)
        if live or len(missing) != there:
            last_sign, there = time.monotonic(), len(missing)
        elif time.monotonic() - last_sign > GRACE:
            return
        time.sleep(LOOK)
