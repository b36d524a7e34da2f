"""Runs the stage `embed` or `imagine` in a separate process, which ends at a chosen point:
`python embed_in_a_process.py FOLDER POINT [embed arguments]`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fake_encoder import ColorEncoder
from PIL import Image

import realrag.files as files
import realrag.indexing.shards as embeddings
import realrag_train.retriever.imagine as imagine
from realrag_train.__main__ import main
from realrag_train.retriever import run as stages

SHARD = 4
PROMPTS = imagine.class_prompts(["red", "green", "blue"])


class Slow(ColorEncoder):
    def _images(self, x):
        time.sleep(0.2)
        return super()._images(x)


class Painter:
    """Draws one color per prompt and seed, and logs each picture it starts in drawn.log."""

    facts = {"name": "painter"}

    def __init__(self, folder, last=0):
        self.log, self.last = Path(folder) / "drawn.log", last

    def draw(self, prompt, seed):
        with open(self.log, "a") as log:
            log.write(f"{prompt}/{seed}\n")
        if len(self.log.read_text().splitlines()) == self.last:
            end()
        return Image.new("RGB", (60, 40), (len(prompt) * 9 % 256, seed * 90, 40))


def start(folder, point, *arguments, **environment):
    paths = [str(Path(__file__).parent), *(path for path in sys.path if path)]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, __file__, str(folder), point, *map(str, arguments)]
    return subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end():
    os.kill(os.getpid(), signal.SIGKILL)


def end_when(count, happens):
    """End this process at the `count`-th call for which happens(*arguments) is true."""
    left = [count]

    def check(*given):
        left[0] -= bool(happens(*given))
        if left[0] == 0:
            end()

    return check


def before(owner, name, check):
    """Call check(*arguments) before each call of owner.name."""
    real = getattr(owner, name)

    def checked(*given, **named):
        check(*given)
        return real(*given, **named)

    setattr(owner, name, checked)


def arm(point):
    if point == "first-batch":
        before(embeddings.AdaptiveBatch, "encode", end_when(1, lambda *given: True))
    elif point == "third-shard-half-written":  # its temporary file is complete but not yet renamed

        def in_work(source, target):
            return Path(target).parent.name == ".building" and ".tmp." in str(source)

        before(files.os, "replace", end_when(3, in_work))
    elif point == "packing":  # the embeddings have their final name, records and pictures not
        before(files.os, "replace", end_when(1, lambda source, target: Path(target).name.startswith("records-")))
    elif point == "before-the-manifest":
        before(files.os, "replace", end_when(1, lambda source, target: Path(target).name == "manifest.json"))
    elif point == "after-the-manifest":
        import realrag.indexing.build

        before(realrag.indexing.build, "_clean", end_when(1, lambda out: True))
    elif point == "second-picture-half-written":
        before(files.os, "replace", end_when(2, lambda source, target: str(target).endswith(".jpg")))
    elif point == "drawn-half-written":
        before(files.os, "replace", end_when(1, lambda source, target: str(target).endswith(imagine.DRAWN)))


if __name__ == "__main__":
    folder, point = Path(sys.argv[1]), sys.argv[2]
    arm(point)
    if sys.argv[3:]:
        encoder = Slow if point == "slow" else ColorEncoder
        stages.load_encoder, embeddings.SHARD = lambda name, device: encoder(), SHARD
        print("ready", flush=True)
        raise SystemExit(main(sys.argv[3:]))
    imagine.imagine(folder, PROMPTS, Painter(folder, 3 if point == "third-picture" else 0), ColorEncoder(), seeds=2)
