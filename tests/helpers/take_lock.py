"""Takes a folder's lock repeatedly, in a separate process: `python take_lock.py FOLDER ROUNDS SEED`. Fails with
FileExistsError if another process holds the lock at the same time; prints how often it held the lock."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from realrag.errors import BusyError
from realrag.locks import FolderLock


def start(folder, *arguments):
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, __file__, str(folder), *map(str, arguments)]
    return subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def take(folder: Path, rounds: int, seed: int) -> int:
    rng, held = random.Random(seed), 0
    for _ in range(rounds):
        try:
            with FolderLock(folder / "work" / "lock"):
                handle = os.open(folder / "inside", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                time.sleep(rng.random() * 0.002)
                os.close(handle)
                os.unlink(folder / "inside")
                held += 1
        except BusyError:
            pass
        time.sleep(rng.random() * 0.002)
    return held


if __name__ == "__main__":
    if sys.argv[2] == "hold":
        with FolderLock(Path(sys.argv[1]) / "work" / "lock"):
            print("held", flush=True)
            time.sleep(600)
    print(take(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
