"""Mutants of every kind of file that strangers send, against the reader of that kind: each is refused in one sentence, or
read. `make fuzz` runs this for a bounded time:

    python tests/attacks/attack.py [--count N] [--seconds S] [--seed S] [KIND ...]

Mutants are made from a seed, by bytes (flipped, zeroed, cut, doubled, put in) and by structure (a value of the JSON or
TOML inside is replaced): of a file of a bundle one in five, of others every second. Each may take 5 s of CPU time and
1 GB. Nothing but our own readers sees a file before it passed their checks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "helpers")]

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib
import torch
from bundle_content import file_of, replace_hashed, rewrite
from fake_encoder import ColorEncoder
from limits import Limits
from made_photos import write_photos
from tiny_encoders import write_tiny_clip, write_tiny_small

from realrag import artifact
from realrag.adapters.reading import read_metadata, read_weights
from realrag.bundle.bundle import Bundle
from realrag.bundle.edit_heads import change_heads
from realrag.encoders.load import load_encoder
from realrag.encoders.reflective_head import ReflectiveHead, load_head, save_head
from realrag.errors import RealRAGError
from realrag.indexing.build import build
from realrag.injection.reference_pack import (
    FEATURES,
    PackedReference,
    PackMetadata,
    ReferencePack,
    open_pack,
    save_pack,
)
from realrag.photos.tables import read_table
from realrag_train.adapter.recipe import read_adapter_recipe
from realrag_train.dataset import read_prompts
from realrag_train.generators.comfyui import ComfyUI
from realrag_train.reproduce.config import read_plan
from realrag_train.retriever.recipe import read_recipe

VALUES = [
    None, True, False, 0, -1, 1, 1.5, -0.0, 1 << 31, 1 << 40, 1 << 62, 1 << 63, 10**39, 1e300, "", "x", "a" * 70_000, "\x00",
    "\x1b[2J", "../x", "/x", "C:\\x", "con", "a/b", "\ud800", "\u202e", [], {}, [[]], {"a": {"b": [1]}}, [0] * 5000,
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """make(folder): a good file. use(file): reads it as its user does, and raises RealRAGError where it is refused."""

    make: Callable[[Path], Path]
    use: Callable[[Path], object]
    structured: int = 2  # one mutant of so many is made by structure


def a_bundle(folder: Path) -> Path:
    write_photos(folder / "photos")
    build(folder / "photos", folder / "b", ColorEncoder())
    save_head(ReflectiveHead(13, 4, {"generator": "toy"}), folder / "head.safetensors")
    change_heads(folder / "b", {"toy": folder / "head.safetensors"})
    return folder / "b"


def of_bundle(role: str) -> Kind:
    """A file of a bundle, hashed by its author after he changed it; the manifest's own checksum too."""

    def make(folder: Path) -> Path:
        bundle = a_bundle(folder)
        return bundle / "manifest.json" if role == "manifest" else file_of(bundle, role)

    def use(file: Path) -> None:
        if role == "manifest":
            with contextlib.suppress(ValueError, AttributeError, RecursionError):  # no JSON object: refused as it is
                rewrite(file.parent, lambda manifest: manifest)
            Bundle(file.parent).verify()
            return
        keep = (file.parent / "manifest.json").read_bytes()
        try:
            replace_hashed(file.parent, role, file.read_bytes())
            Bundle(file.parent).verify()
        finally:
            (file.parent / "manifest.json").write_bytes(keep)

    return Kind(make, use, structured=5)


def a_head(folder: Path) -> Path:
    save_head(ReflectiveHead(8, 4, {"generator": "toy", "seed": 1}), folder / "head.safetensors")
    return folder / "head.safetensors"


def a_pack(folder: Path) -> Path:
    metadata = PackMetadata(FEATURES, "flux-xlabs", "toy", "0" * 64, "toy", "flux", 16, 2, 1, 1, 0)
    items = tuple(PackedReference(f"photo {number}", 0.5) for number in range(2))
    save_pack(ReferencePack(metadata, items, (torch.ones(2, 3, 4),)), folder / "pack.safetensors")
    return folder / "pack.safetensors"


def an_adapter(folder: Path) -> Path:
    metadata = {
        "format": "realrag-adapter", "version": "1", "family": "flux-xlabs", "base": "toy", "encoder": "toy",
        "encoder_sha256": "0" * 64,
    }  # fmt: skip
    tensors = {f"blocks.{number}.weight": torch.ones(4, 4) for number in range(3)}
    artifact.write(folder / "adapter.safetensors", tensors, metadata)
    return folder / "adapter.safetensors"


def use_adapter(file: Path) -> None:
    read_weights(file)
    read_metadata(file)


def a_table(folder: Path) -> Path:
    rows = [
        {"file": f"{number}.jpg", "caption": "a red apple, on a table", "license": "CC0-1.0"} for number in range(5)
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "captions.jsonl"


def a_csv(folder: Path) -> Path:
    (folder / "captions.csv").write_text('file,caption,author\n1.jpg,"red ""apple"",\non a table",Ann\n2.jpg,pear,\n')
    return folder / "captions.csv"


def a_recipe(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "recipe.toml").write_text(as_toml(RECIPES[name]))
        return folder / "recipe.toml"

    return make


RECIPES = {
    "retriever": {
        "data": {"photos": "photos", "template": "a photo of a {}", "picture_size": 512, "max_rejected": 5.0},
        "imagine": {"generator": "stand-in", "seeds": 4, "unknown": 16, "unknown_classes": ["apple"]},
        "fit": {"epochs": 10, "batch": 256}, "start": {"parts": [0.5, 0.25, 0.25], "least": 0.4},
        "evaluate": {"arms": ["zero", "normal", "reflective"], "seeds": 5},
    },
    "adapter": {"fit": {"steps": 100, "batch": 8}, "guard": {"every": 10, "patience": 0}},
    "world": {"world": {"generator": 60}, "painting": {"steps": 8, "cfg": 7.0}, "experiment": {"noises": 4}},
}  # fmt: skip


def as_toml(content: object) -> str:
    """TOML of sections with plain values; what is no table of tables becomes a text that is no TOML."""
    if not isinstance(content, dict):
        return inline(content)
    lines = [f"{inline(key)} = {inline(value)}" for key, value in content.items() if not isinstance(value, dict)]
    for key, section in content.items():
        if isinstance(section, dict):
            lines += [f"[{inline(key)}]", *(f"{inline(name)} = {inline(value)}" for name, value in section.items())]
    return "\n".join(lines) + "\n"


def inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inline(key)} = {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())


def a_workflow(folder: Path) -> Path:
    graph = {
        "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["3", 0]}, "_meta": {"title": "Prompt"}},
        "2": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 4}, "_meta": {"title": "Seed"}},
        "3": {"class_type": "CLIPLoader", "inputs": {"name": "t5"}},
    }  # fmt: skip
    (folder / "workflow.json").write_text(json.dumps(graph))
    return folder / "workflow.json"


def some_prompts(folder: Path) -> Path:
    lines = [{"prompt": f"a photo of a {name}", "class": name} for name in ("apple", "pear", "plum")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "prompts.jsonl"


def an_archive(suffix: str) -> Callable[[Path], Path]:
    """Photos with their captions, as they are in a .zip or .tar."""

    def make(folder: Path) -> Path:
        write_photos(folder / "photos")
        (folder / "archive").mkdir()
        made = shutil.make_archive(str(folder / "archive" / "photos"), suffix, folder / "photos")
        return Path(made)

    return make


def index(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build(file.parent, Path(folder) / "b", ColorEncoder())
        Bundle(Path(folder) / "b").verify()


def carried(file: Path) -> None:
    load_encoder("carried", folder=file.parent, offline=True)


KINDS = {
    **{f"bundle {role}": of_bundle(role) for role in ("manifest", "records", "embeddings", "pictures", "head")},
    "head": Kind(a_head, lambda file: load_head(file, 8)),
    "pack": Kind(a_pack, open_pack),
    "adapter": Kind(an_adapter, use_adapter),
    "small encoder": Kind(lambda folder: write_tiny_small(folder) / "small_encoder.safetensors", carried),
    "open_clip config": Kind(lambda folder: write_tiny_clip(folder) / "open_clip_config.json", carried),
    "captions jsonl": Kind(a_table, read_table),
    "captions csv": Kind(a_csv, read_table),
    "recipe retriever": Kind(a_recipe("retriever"), lambda file: read_recipe(file).as_json()),
    "recipe adapter": Kind(a_recipe("adapter"), lambda file: read_adapter_recipe(str(file)).settled()),
    "recipe world": Kind(a_recipe("world"), read_plan),
    "workflow": Kind(a_workflow, ComfyUI),
    "photos zip": Kind(an_archive("zip"), index),
    "photos tar": Kind(an_archive("tar"), index),
    "prompts": Kind(some_prompts, read_prompts),
}


def by_bytes(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 8, 64, 4096))
    how = rng.choice(("flip", "zero", "random", "cut", "double", "insert", "remove"))
    if how == "flip" and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if how == "cut":
        return data[:at]
    if how == "double":
        return data[:at] + data[at : at + size] + data[at:]
    if how == "insert":
        return data[:at] + rng.randbytes(size) + data[at:]
    if how == "remove":
        return data[:at] + data[at + size :]
    size = min(size, len(data) - at)
    return data[:at] + (bytes(size) if how == "zero" else rng.randbytes(size)) + data[at + size :]


def by_structure(data: bytes, rng: random.Random) -> bytes:
    """Replace a value of the JSON or TOML that the file is, that one of its lines is, or that its header is."""
    with contextlib.suppress(ValueError):
        if content := tomllib.loads(data.decode()):
            return as_toml(changed(content, rng)).encode(errors="surrogatepass")
    try:
        return json.dumps(changed(json.loads(data), rng)).encode()
    except ValueError:
        pass
    if 0 < (length := int.from_bytes(data[:8], "little")) < len(data) - 7:
        try:
            header = json.dumps(changed(json.loads(data[8 : 8 + length]), rng)).encode()
            return len(header).to_bytes(8, "little") + header + data[8 + length :]
        except ValueError:
            pass
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    try:
        lines[at] = json.dumps(changed(json.loads(lines[at]), rng)).encode()
    except ValueError:
        lines[at] = by_bytes(lines[at], rng)
    return b"\n".join(lines)


def changed(value: object, rng: random.Random, depth: int = 0) -> object:
    """The value with one of its parts replaced, dropped or renamed; texts that hold JSON are changed inside."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.8):
        key = rng.choice(sorted(value))
        rest = {name: item for name, item in value.items() if name != key}
        how = rng.random()
        if how < 0.1:
            return rest
        return {**rest, (key if how > 0.2 else rng.choice(("x", key.upper(), ""))): changed(value[key], rng, depth + 1)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], changed(value[at], rng, depth + 1), *value[at + 1 :]]
    if isinstance(value, str) and value[:1] in "{[" and rng.random() < 0.8:
        try:
            return json.dumps(changed(json.loads(value), rng, depth + 1))
        except ValueError:
            pass
    return rng.choice(VALUES)


def attack(name: str, count: int, seed: int, seconds: float = 1e9) -> Counter:
    """{"refused": .., "read": .., "bad": ..} of so many mutants of this kind; prints each bad one with its number."""
    kind, found, until = KINDS[name], Counter(), time.monotonic() + seconds
    limits = Limits()
    with tempfile.TemporaryDirectory() as folder:
        file = kind.make(Path(folder))
        kind.use(file)  # else every mutant would be refused for a reason that they share
        good = file.read_bytes()
        for number in range(count):
            rng = random.Random(f"{name} {seed} {number}")
            mutant = good
            while mutant == good:
                mutant = (by_bytes if number % kind.structured else by_structure)(good, rng)
            file.write_bytes(mutant)
            fault = ""
            try:
                with limits:
                    kind.use(file)
                outcome = "read"
            except RealRAGError as error:
                outcome = "refused"
                fault = "more than one line" * ("\n" in str(error))
            except Exception as error:
                fault = f"{type(error).__name__}: {str(error)[:200]}"
            if fault := fault or limits.exceeded:
                outcome = "bad"
                print(f"{name}, mutant {number} of seed {seed}: {fault}")
            found[outcome] += 1
            file.write_bytes(good)
            if time.monotonic() > until:
                break
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60, help="of each kind at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    total = Counter()
    for name in args.kinds:
        found = attack(name, args.count, args.seed, args.seconds)
        print(f"{name:18s} {dict(sorted(found.items()))}", flush=True)
        total += found
    print(f"{'all':18s} {dict(sorted(total.items()))}")
    return 1 if total["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
