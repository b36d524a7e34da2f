"""`realrag index` killed (SIGKILL) again and again at seeded times, until it is through; the bundle is then the one of a run
that nobody killed: `python tests/attacks/kill.py [KILLS [SEED]]`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "helpers")]

from bundle_content import content
from made_photos import photo_bytes

from realrag.bundle.bundle import Bundle
from realrag.errors import BundleError


def index(photos: Path, out: Path, seconds: float | None = None) -> bool:
    """Whether it ended before it was killed."""
    given = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "realrag", "index", str(photos), "--out", str(out)],
        env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    assert process.returncode == 0
    return True


def main(kills: int = 50, seed: int = 0) -> int:
    rng, killed, rounds = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        photos, whole = Path(folder) / "photos", Path(folder) / "whole"
        photos.mkdir()
        for number in range(600):
            (photos / f"{number}.jpg").write_bytes(photo_bytes((number % 250, 20, 90), number, (320, 240)))
        index(photos, whole)
        while killed < kills:
            out, rounds = Path(folder) / f"out{rounds}", rounds + 1
            while killed < kills and not index(photos, out, 1.5 + 8 * rng.random()):
                killed += 1
                try:
                    Bundle(out).verify()  # what is there at any moment is a whole bundle or none
                except BundleError as error:
                    assert "No manifest.json" in str(error), error
            index(photos, out)
            assert content(out) == content(whole)
        print(f"{killed} kills over {rounds} bundles of 600 photos: each ended as the bundle of a run without kills")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
