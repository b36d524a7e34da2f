"""The stage `embed` or `imagine`, or a build, in a process of its own, which ends at a chosen point."""

import os
import signal
import time
from pathlib import Path

from child import Child
from fake_encoder import ColorEncoder
from PIL import Image

import realrag.files as files
import realrag.indexing.shards as embeddings
import realrag_train.retriever.imagine as imagine
from realrag.indexing.build import build
from realrag_train.__main__ import main
from realrag_train.retriever import run as stages
from realrag_train.retriever.prompts import class_prompts

SHARD = 4
PROMPTS = class_prompts(["red", "green", "blue"])


class Slow(ColorEncoder):
    def __init__(self, seconds=0.2):
        super().__init__()
        self.seconds = seconds

    def _images(self, x):
        print("batch", flush=True)
        time.sleep(self.seconds)
        return super()._images(x)


class Painter:
    """Draws a square on a color per prompt and seed, and logs each picture it starts in drawn.log."""

    metadata = {"name": "painter"}

    def __init__(self, folder, last=0):
        self.log, self.last = Path(folder) / "drawn.log", last

    def draw(self, prompt, seed):
        with open(self.log, "a") as log:
            log.write(f"{prompt}/{seed}\n")
        if len(self.log.read_text().splitlines()) == self.last:
            end()
        picture = Image.new("RGB", (60, 40), (len(prompt) * 9 % 256, seed * 90, 40))
        picture.paste((255, 255, 255), (10, 10, 30, 30))
        return picture


def start(folder, point, *arguments, **environment):
    """The stage `embed` with these arguments of the command; without any, the stage `imagine` in `folder`."""
    return Child(run_until, folder, point, *map(str, arguments), **environment)


def start_build(photos, out):
    """A slow build in shards of four photos. It writes a line as each batch of two begins."""
    return Child(build_slowly, photos, out)


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


def run_until(folder, point, *arguments):
    arm(point)
    if arguments:
        encoder = Slow if point == "slow" else ColorEncoder
        stages.load_encoder, embeddings.SHARD = lambda name, device: encoder(), SHARD
        return main(list(arguments))
    imagine.imagine(folder, PROMPTS, Painter(folder, 3 if point == "third-picture" else 0), ColorEncoder(), seeds=2)


def build_slowly(photos, out):
    embeddings.SHARD = SHARD
    build(photos, out, Slow(0.05), batch=2)
