"""Every malformed bundle through `verify`, `search` and, in a ComfyUI, the node that loads it, each in a process of its own:
refused in one sentence, or answered; no other exception, no signal, at most 5 s of CPU time and 1 GB.

    [COMFYUI_PATH=...] python tests/attacks/bundles.py [EVERY]

EVERY: only every so manieth bundle.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "helpers"), str(TESTS / "comfyui")]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the children are forks, and threads do not survive a fork

import torch
from limits import Limits
from made_photos import photo_bytes
from malformed import cases
from tiny_encoders import write_tiny_clip, write_tiny_small

from realrag.bundle.bundle import Bundle
from realrag.bundle.edit_heads import change_heads
from realrag.encoders.load import load_encoder
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import RealRAGError
from realrag.indexing.build import build
from realrag.indexing.options import IndexOptions
from realrag.indexing.shards import Sizes
from realrag.retriever import Retriever

# Faults that only reading everything shows: a search may answer in spite of them.
USES = ("verify", "search", "node")


def good_bundles(folder: Path) -> dict[str, Path]:
    """Bundles of four photos: plain, with two heads, and with a carried encoder of either kind."""
    photos = folder / "photos"
    photos.mkdir()
    for seed in range(4):
        (photos / f"{seed}.jpg").write_bytes(photo_bytes((200, 9, 9), seed, size=(120, 90)))
    encoders = {
        "plain": load_encoder(),
        "heads": load_encoder(),
        "small": load_encoder(str(write_tiny_small(folder / "tiny small"))),
        "open_clip": load_encoder(str(write_tiny_clip(folder / "tiny clip"))),
    }
    for name, encoder in encoders.items():
        options = IndexOptions(sizes=Sizes(thumbnail=64), with_encoder=name in ("small", "open_clip"))
        build(photos, folder / name, encoder, options)
    heads = {name: folder / f"{name}.safetensors" for name in ("flux", "sd35")}
    for at, path in enumerate(heads.values()):
        save_head(ReflectiveHead(encoders["heads"].dim, 4 + at, {"generator": path.stem}), path)
    change_heads(folder / "heads", heads)
    return {name: folder / name for name in encoders}


def verify(folder: Path) -> None:
    Bundle(folder).verify()


def search(folder: Path) -> None:
    Retriever.open(folder, cache=folder.parent / "cache").search("red", k=2)


def node(comfyui: str) -> Callable[[Path], None]:
    """The loading and the retrieving node on a bundle in models/realrag."""
    import importlib
    import importlib.util

    import tiny_models

    root = TESTS.parent
    tiny_models.import_comfyui(Path(comfyui))
    spec = importlib.util.spec_from_file_location("pack", root / "__init__.py", submodule_search_locations=[str(root)])
    module = sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import folder_paths

    load = importlib.import_module("pack.nodes.retrieval.load_retriever").LoadReflectiveRetriever
    retrieve = importlib.import_module("pack.nodes.retrieval.retrieve").RetrieveRealReferences
    error = importlib.import_module("pack.realrag.errors").RealRAGError

    def use(folder: Path) -> None:
        folder_paths.folder_names_and_paths["realrag"] = ([str(folder.parent)], {"folder"})
        folder_paths.set_user_directory(str(folder.parent))
        folder_paths.set_temp_directory(str(folder.parent / "temp"))
        load.define_schema()
        load.fingerprint_inputs(folder.name, "auto")
        said = load.validate_inputs(folder.name, "auto")
        try:
            if said is not True:
                raise RealRAGError(said)
            retrieve.execute(load.execute(folder.name).result[0], "red", 2, 0.0, 0.0)
        except error as refusal:
            raise RealRAGError(str(refusal)) from None

    return use


def outcome(use: Callable[[Path], None], folder: Path) -> str:
    """ "refused", "read", or what is bad about it."""
    limits = Limits()
    try:
        with limits, contextlib.redirect_stderr(io.StringIO()):
            use(folder)
        found = "read"
    except RealRAGError as error:
        found = "refused" if "\n" not in str(error) and len(str(error)) < 2000 else f"no sentence: {str(error)[:200]}"
    except BaseException as error:
        found = f"{type(error).__name__}: {str(error)[:200]}"
    return limits.exceeded or found


def in_a_child(run: Callable[[], object]) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, json.dumps(run()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    _, status = os.waitpid(child, 0)
    return json.loads(data) if data and not status else f"the process ended with {status}"


def attack(bundle: Path, name: str, change: Callable[[Path], None], uses: dict, work: Path) -> dict[str, str]:
    """{use: outcome} of one malformed bundle."""
    folder = Path(shutil.copytree(bundle, work / "b"))
    try:
        change(folder)
        return {use: outcome(run, folder) for use, run in uses.items()}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main(every: int = 1) -> int:
    torch.set_num_threads(1)
    uses = {"verify": verify, "search": search}
    if comfyui := os.environ.get("COMFYUI_PATH"):
        uses["node"] = node(comfyui)
    totals, bad, number, began = {use: Counter() for use in uses}, 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["REALRAG_CACHE"] = f"{folder}/cache"
        good = good_bundles(Path(folder))
        for kind, bundle in good.items():
            found = in_a_child(lambda: attack(bundle, "good", lambda _: None, uses, Path(folder) / "work"))
            assert set(found.values()) == {"read"}, f"{kind}: the good bundle is {found}"
        todo = [(kind, *case) for kind, bundle in good.items() for case in cases(bundle).items()][::every]
        for kind, name, change in todo:
            found = in_a_child(lambda: attack(good[kind], name, change, uses, Path(folder) / "work"))
            number += 1
            for use in uses:
                what = found if isinstance(found, str) else found[use]
                right = what == "refused" or (what == "read" and use != "verify")
                totals[use][what if right else "bad"] += 1
                if not right:
                    bad += 1
                    print(f"{kind}, {name}: {use}: {what}", flush=True)
    for use, counts in totals.items():
        print(f"{use:6s} {dict(counts)}")
    print(f"{number} malformed bundles in {time.monotonic() - began:.0f} s, {bad} bad outcomes")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
