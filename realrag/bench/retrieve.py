"""`realrag bench retrieve`: what the node *Retrieve Real References* takes in ComfyUI beside its encoder, and what opening its
library takes."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from ..errors import RealRAGError
from .inside_comfyui import comfyui_folder, in_comfyui

JOB = "retrieve.py"
CLASSES = 2000
ROWS = 16_384


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--bundle", type=Path, help="a library of your own (default: the shipped one)")
    source.add_argument(
        "--rows",
        type=int,
        help="a seeded library of so many photos, which repeat the shipped ones (a million: 2 GB, a minute)",
    )
    parser.add_argument("--prompts", type=int, default=8, help="different prompts, of class names of the library")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--top-k", type=int, default=4)
    parser.add_argument("--scratch", type=Path, help="folder for the files of the run")


def run(args: argparse.Namespace) -> dict:
    """Time the node in the ComfyUI at COMFYUI_PATH, in processes of their own: one fills the caches, the next is timed."""
    from ..library import shipped_bundle

    folder = comfyui_folder(JOB)
    if min(args.prompts, args.rounds, args.top_k) < 1 or (args.rows is not None and args.rows < 1000):
        raise RealRAGError("Prompts, rounds and top-k are 1 or more; --rows is 1,000 or more.")
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        bundle = args.bundle or shipped_bundle()
        if args.rows:
            bundle = seeded_bundle(args.rows, Path(scratch) / "seeded")
        job = {
            "comfyui": folder, "bundle": str(Path(bundle).resolve()), "cache": str(Path(scratch, "cache").resolve()),
            "temp": str(Path(scratch, "temp").resolve()), "prompts": args.prompts, "rounds": args.rounds, "top_k": args.top_k,
        }  # fmt: skip
        _measured({**job, "rounds": 1, "prompts": 1})
        return _measured(job)


def _measured(job: dict) -> dict:
    return in_comfyui(JOB, job, lambda last: f"The benchmark stopped: {last}. Check COMFYUI_PYTHON and the bundle.")


def seeded_bundle(rows: int, out: Path, seed: int = 0) -> Path:
    """A library of `rows` clustered vectors with captions of 22 words in 2,000 classes, whose photos are the shipped ones."""
    from ..bundle.bundle import CHECKSUM, manifest_bytes, matrix_header, read_manifest
    from ..files import canonical_json, sha256_file
    from ..library import shipped_bundle
    from .clustered_vectors import clustered_rows
    from .find import captions, spelled

    shipped = shipped_bundle()
    manifest = read_manifest(shipped)
    (records,) = manifest.of("records")
    lines = [json.loads(line) for line in (shipped / records.path).read_bytes().splitlines()]
    out.mkdir(parents=True)
    with open(out / "embeddings.safetensors", "wb") as file:
        file.write(matrix_header(rows, manifest.dim))
        for chunk in clustered_rows(rows, manifest.dim, seed=seed):
            file.write(chunk.astype(np.float16).tobytes())
    with open(out / "records.jsonl", "wb") as file:
        for number, caption in enumerate(captions(rows, seed)):
            sha, name = (
                hashlib.sha256(b"%d" % number).hexdigest(),
                f"{spelled(number % CLASSES)} {spelled(number % 97)}",
            )
            record = {
                **lines[number % len(lines)], "sha256": sha, "id": sha[:16], "class": name, "caption": caption, "file": f"{number}.jpg"
            }  # fmt: skip
            file.write(canonical_json(record) + b"\n")
    listed = [("embeddings", "embeddings.safetensors"), ("records", "records.jsonl")]
    for role in ("pictures", "thumbnails"):
        for pack in manifest.of(role):
            shutil.copy(shipped / pack.path, out / pack.path)
            listed.append((role, pack.path))
    files = [
        {"role": role, "path": path, "bytes": (out / path).stat().st_size, "sha256": sha256_file(out / path)}
        for role, path in listed
    ]
    content = {key: value for key, value in manifest.content.items() if key not in ("names", CHECKSUM)}
    (out / "manifest.json").write_bytes(
        manifest_bytes({**content, "count": rows, "files": files, "licences": {"seeded": rows}})
    )
    return out


def format_report(result: dict) -> str:
    lines = [
        f"{result['photos']:,} photos, {result['index']} search, {result['answers']} answers of up to {result['top_k']} photos, ComfyUI "
        f"{result['comfyui']}; medians, one thread",
        f"{'':32} {'by the clock':>12} {'CPU time':>10}",
    ]
    for name, text in (
        ("again", "photos that were shown before"), ("first", "photos not shown before"), ("encoder", "of these the encoder alone")
    ):  # fmt: skip
        wall, cpu = result[f"{name}_ms"]
        lines.append(f"{text:32} {wall:9.1f} ms {cpu:7.1f} ms")
    lines.append(f"opening, with its caches made and its files in memory: {1e3 * result['open_s']:.0f} ms")
    return "\n".join(lines)
