"""Several processes encode one library, on one machine or on several that share its folder: rank r of `world_size` writes
every `world_size`-th shard.

Workers do not communicate. Finished shards show progress; a lock per rank shows which workers are alive. Rank 0 waits,
encodes what dead workers left, and alone writes the bundle.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ..errors import BusyError, RealRAGError
from ..locks import FolderLock
from ..photos.scan import Progress

GRACE = 60.0  # seconds that a worker may take to start, or to begin its next shard, without holding its lock
LOOK = 0.2  # seconds between two looks


def check_rank(rank: int, world_size: int) -> None:
    """RealRAGError where there is no such worker."""
    if not 0 <= rank < world_size:
        raise RealRAGError(f"There is no rank {rank} among {world_size} workers: ranks go from 0 to {world_size - 1}.")


def rank_lock(work: Path, rank: int) -> FolderLock:
    """The lock that the worker of this rank holds in the folder `work` while it lives."""
    return FolderLock(work / ("lock" if rank == 0 else f"lock-{rank}"))


def sweep_locks(work: Path) -> None:
    """Delete the lock files that killed workers left; those of living ones go as they end."""
    for path in work.glob("lock-*"):
        if path.suffix != ".holder":
            with suppress(BusyError), FolderLock(path):
                pass


def wait_for_others(parts: list[tuple[Path, list]], work: Path, world_size: int, progress: Progress) -> None:
    """Return when all shards are there, or when no living worker is left to write the missing ones.

    parts: (file, photos) of each shard; rank i mod `world_size` writes the i-th. progress may raise.
    """
    total, last_sign, there = sum(len(part) for _, part in parts), time.monotonic(), -1
    while True:
        missing = {number for number, (path, _) in enumerate(parts) if not path.is_file()}
        if not missing:
            return
        progress(sum(len(part) for number, (_, part) in enumerate(parts) if number not in missing), total)
        ranks = {number % world_size for number in missing} - {0}
        if any(rank_lock(work, rank).held for rank in ranks) or len(missing) != there:
            last_sign, there = time.monotonic(), len(missing)
        elif time.monotonic() - last_sign > GRACE:
            return
        time.sleep(LOOK)
