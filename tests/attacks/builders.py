"""Two builders of one bundle, again and again: each round is done or told that the other is at work, never both at once.

python tests/attacks/builders.py [ROUNDS]
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "helpers")]
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # the children are forks, and threads do not survive a fork

from fake_encoder import ColorEncoder
from made_photos import photo_bytes

from realrag.bundle.bundle import Bundle
from realrag.errors import BusyError
from realrag.indexing.build import build
from realrag.locks import FolderLock


def guarded(inside: Path) -> None:
    """Let the lock of this process leave a file while it is held. FileExistsError where another holds one too."""
    enter, leave = FolderLock.__enter__, FolderLock.__exit__

    def entered(lock: FolderLock) -> FolderLock:
        made = enter(lock)
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        return made

    def left(lock: FolderLock, *error) -> None:
        inside.unlink()
        leave(lock, *error)

    FolderLock.__enter__, FolderLock.__exit__ = entered, left  # type: ignore[method-assign]


def builder(photos: Path, out: Path, rounds: int, seed: int) -> tuple[int, int]:
    """(rounds that were done, rounds that were refused), each with one photo more or less."""
    rng, done, refused = random.Random(seed), 0, 0
    guarded(out.parent / "inside")
    for number in range(rounds):
        extra = photos / f"extra{seed}.jpg"
        extra.write_bytes(photo_bytes((9, 9, 200), 1000 * seed + number)) if number % 2 else extra.unlink(
            missing_ok=True
        )
        try:
            build(photos, out, ColorEncoder(), max_removed=100)
            done += 1
        except BusyError:
            refused += 1
        time.sleep(rng.random() * 0.02)
    return done, refused


def main(rounds: int = 200) -> int:
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder) / "photos", Path(folder) / "bundle"
        photos.mkdir()
        for seed in range(3):
            (photos / f"{seed}.jpg").write_bytes(photo_bytes((200, 9, 9), seed))
        pipes, children = [], []
        for seed in (1, 2):
            reading, writing = os.pipe()
            if not (child := os.fork()):
                try:
                    os.write(writing, repr(builder(photos, out, rounds, seed)).encode())
                except BaseException as error:
                    os.write(writing, f"{type(error).__name__}: {error}".encode())
                os._exit(0)
            os.close(writing)
            pipes.append(reading)
            children.append(child)
        found = []
        for reading, child in zip(pipes, children, strict=True):
            with os.fdopen(reading) as file:
                found.append(file.read())
            os.waitpid(child, 0)
        Bundle(out).verify()
    print(f"two builders x {rounds} rounds, (done, refused): {' and '.join(found)}; the bundle is right")
    return 0 if all(text.startswith("(") for text in found) else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
