"""Ctrl-C (SIGINT) at seeded moments of three commands: the exit code is 130, or 0 where the command was through, and no
traceback is printed.

python tests/attacks/interrupt.py [TIMES]
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "helpers")]

from made_photos import write_photos

# The interpreter's own start-up is not ours: a signal that comes before it runs the first line of the command ends it.
CODE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background jobs ignore it
    "import sys, realrag.__main__ as m; print('up', file=sys.stderr, flush=True); sys.exit(m.main())"
)


def run(command: list[str], seconds: float | None) -> tuple[int, str]:
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *command], env=given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    process.stderr.readline()
    if seconds is not None:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    return process.returncode, errors


def main(times: int = 20) -> int:
    rng, bad = random.Random(0), 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["REALRAG_CACHE"] = f"{folder}/cache"
        write_photos(Path(folder) / "photos")
        commands = {
            "verify": ["verify", "sample"],
            "search": ["search", "sample", "green apples"],
            "index": ["index", f"{folder}/photos", "--out", f"{folder}/bundle"],
        }
        for name, command in commands.items():
            takes, found = 1e9, Counter()
            for _ in range(3):
                began = time.monotonic()
                assert run(command, None)[0] == 0
                takes = min(takes, time.monotonic() - began)
            for _ in range(times):
                code, errors = run(command, takes * rng.random())
                right = code in (0, 130) and "Traceback" not in errors and "Error" not in errors
                found[code if right else "bad"] += 1
                if not right:
                    bad += 1
                    print(f"{name}: {code}: {errors[-300:]}")
            print(f"{name}: {times} interrupts in {takes:.1f} s, exit codes {dict(found)}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
