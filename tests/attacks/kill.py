"""Kills (SIGKILL) what writes, again and again at seeded times, until it is through. After each kill, what was there
still opens; in the end the files are those of a run that nobody killed.

    python tests/attacks/kill.py [--kills N] [--seed S] [index add heads cache pull]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "helpers")]
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # the children are forks, and threads do not survive a fork

import torch
from bundle_content import content
from fake_encoder import ColorEncoder
from fake_hub import FakeHub, Repository
from made_photos import COLORS, photo_bytes

import realrag.library
import realrag.search.index
from realrag.bundle.bundle import Bundle
from realrag.bundle.edit_heads import change_heads
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import BundleError
from realrag.hub.pull import pull
from realrag.indexing.build import build
from realrag.indexing.options import IndexOptions
from realrag.retriever import Retriever


@dataclass(frozen=True)
class Deed:
    """What is killed. begin(folder): what is there before. run(folder): the deed itself. check(folder): asserts that what
    is there after a kill can be used. result(folder): what must be equal to that of a run without kills."""

    begin: Callable[[Path], None]
    run: Callable[[Path], None]
    check: Callable[[Path], None]
    result: Callable[[Path], object]


class Stage:
    """Photos, heads and a hub, made once."""

    def __init__(self, folder: Path, photos: int = 48):
        self.folder = folder
        for part in ("first", "more"):
            for number in range(photos):
                name, color = list(COLORS.items())[number % 3]
                seed = number + photos * (part == "more")
                path = folder / part / name / f"{seed}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(photo_bytes(color, seed, (160, 120)))
        for at in range(3):
            save_head(ReflectiveHead(13, 64 + at, {"generator": f"toy{at}"}), folder / f"head{at}.safetensors")
        build(folder / "first", folder / "bundle", ColorEncoder())
        self.hub = FakeHub()
        files = {
            path.relative_to(folder / "bundle").as_posix(): path.read_bytes() for path in (folder / "bundle").iterdir()
        }
        self.hub.repositories["ann/photos"] = Repository()
        self.commit = self.hub.repositories["ann/photos"].commit(files)

    def deeds(self) -> dict[str, Deed]:
        first, more, bundle = self.folder / "first", self.folder / "more", self.folder / "bundle"
        heads = {f"head{at}": self.folder / f"head{at}.safetensors" for at in range(3)}

        def copy(to: Path) -> None:
            shutil.copytree(bundle, to / "b")

        def whole_or_none(to: Path) -> None:
            try:
                Bundle(to / "b").verify()
            except BundleError as error:
                assert "No manifest.json" in str(error), error

        def whole(to: Path) -> None:
            Bundle(to / "b").verify()

        def files(to: Path) -> object:
            return content(to / "b")

        def answers(to: Path) -> object:
            opened = Retriever.open(to / "b", encoder=ColorEncoder(), cache=to / "cache")
            return [(item.id, round(item.score, 4)) for text in COLORS for item in opened.search(text, k=5).items]

        add = IndexOptions(mode="add", batch=4)
        return {
            "index": Deed(
                lambda to: None, lambda to: build(first, to / "b", ColorEncoder(), IndexOptions(batch=4)), whole_or_none, files
            ),
            "add": Deed(copy, lambda to: build(more, to / "b", ColorEncoder(), add), whole, files),
            "heads": Deed(copy, lambda to: change_heads(to / "b", heads, first="head1"), whole, files),
            "cache": Deed(copy, answers, answers, answers),
            "pull": Deed(
                lambda to: None, lambda to: pull("ann/photos", self.commit, to / "b"), whole_or_none, files
            ),
        }  # fmt: skip


def in_a_child(run: Callable[[], object], seconds: float | None = None) -> bool:
    """Run it in a fork. Whether it was through before it was killed."""
    child = os.fork()
    if not child:
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")
            torch.set_num_threads(1)
            run()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the deed failed by itself: {status}"
    return status == 0


def kill(name: str, deed: Deed, folder: Path, kills: int, rng: random.Random) -> str:
    whole = folder / "whole"
    whole.mkdir(parents=True)
    deed.begin(whole)
    began = time.monotonic()
    assert in_a_child(lambda: deed.run(whole))
    takes = time.monotonic() - began
    wanted, killed, rounds = deed.result(whole), 0, 0
    while killed < kills:
        out, rounds = folder / f"round{rounds}", rounds + 1
        out.mkdir()
        deed.begin(out)
        through = False
        while killed < kills and not through:
            through = in_a_child(lambda: deed.run(out), takes * rng.random())
            killed += not through
            deed.check(out)
        assert through or in_a_child(lambda: deed.run(out))
        assert deed.result(out) == wanted, f"{name}, round {rounds}: another result"
        shutil.rmtree(out)
    return f"{name}: {killed} kills in {rounds} rounds of {takes:.2f} s"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deeds", nargs="*", default=["index", "add", "heads", "cache", "pull"])
    parser.add_argument("--kills", type=int, default=50, help="of each deed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    realrag.library.EXACT_LIMIT = realrag.search.index.EXACT_LIMIT = 0  # so that an index is built of few photos too
    with tempfile.TemporaryDirectory() as folder:
        os.environ["REALRAG_CACHE"] = f"{folder}/cache"
        stage = Stage(Path(folder) / "stage")
        os.environ.update(
            HF_ENDPOINT=stage.hub.url, HF_HUB_DISABLE_XET="1", HF_HOME=f"{folder}/hub", NO_PROXY="127.0.0.1"
        )
        deeds = stage.deeds()
        for name in args.deeds:
            print(
                kill(name, deeds[name], Path(folder) / name, args.kills, random.Random(f"{name} {args.seed}")),
                flush=True,
            )
        stage.hub.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
