"""`realrag bench inject`: what references cost a Flux step in ComfyUI, beside what they must by count of operations."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import RealRAGError

CHILD = Path(__file__).resolve().parents[1] / "nodes" / "bench.py"
TOKENS = {"flux-xlabs": 16, "flux-instantx": 128}
GOAL = 1.03  # measured ratio over 1 + theoretical share


@dataclass(frozen=True)
class Shape:
    """The sizes of a Flux model and of one picture."""

    width: int
    double: int
    single: int
    text: int  # tokens of the prompt
    image: int  # tokens of the picture


SIZES = {"full": (3072, 19, 38, 512), "tiny": (256, 2, 2, 16)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", choices=sorted(TOKENS), default="flux-xlabs", help="which kind of adapter")
    sizes = dict(choices=sorted(SIZES), default="full", help="full: Flux.1, 24 GB in bf16; tiny: for tests")
    parser.add_argument("--size", **sizes)
    parser.add_argument("--side", type=int, default=1024, help="side of the picture in pixels")
    parser.add_argument("--references", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="steps timed each way, in turns; medians count")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")


def shape_of(size: str, side: int) -> Shape:
    width, double, single, text = SIZES[size]
    return Shape(width, double, single, text, (side // 16) ** 2)


def operations(shape: Shape) -> int:
    """Multiplications and additions of one step of Flux for one picture: linear layers and attention.

    Each token passes 12 W^2 weights in every block (qkv 3, output 1, MLP 8), two operations a weight; attention over L
    tokens takes 4 L^2 W a block.
    """
    tokens, blocks = shape.text + shape.image, shape.double + shape.single
    return blocks * (2 * 12 * shape.width**2 * tokens + 4 * tokens**2 * shape.width)


def extra_operations(shape: Shape, family: str, references: int) -> int:
    """Of attention to the references: 4 L T W in each block that they enter, L being the rows that see them."""
    tokens = TOKENS[family] * references
    rows = shape.double * shape.image
    if family == "flux-instantx":
        rows += shape.single * (shape.text + shape.image)
    return 4 * rows * tokens * shape.width


def run(args: argparse.Namespace) -> dict:
    """Time steps with and without references in the ComfyUI at COMFYUI_PATH, in a process of its own."""
    folder = os.environ.get("COMFYUI_PATH", "")
    if not (Path(folder) / "comfy").is_dir() or not folder:
        raise RealRAGError(
            f"COMFYUI_PATH is {folder!r}; it must name a ComfyUI folder (and COMFYUI_PYTHON its Python, if another)."
        )
    if not CHILD.is_file():
        raise RealRAGError("This benchmark needs RealRAG's whole folder, as it lies in custom_nodes.")
    if min(args.references, args.batch, args.rounds) < 1 or args.side < 16 or args.side % 16:
        raise RealRAGError("References, batch and rounds are 1 or more; the side is a multiple of 16.")
    shape = shape_of(args.size, args.side)
    job = dict(
        asdict(shape), comfyui=folder, family=args.family, tokens=TOKENS[args.family], side=args.side,
        references=args.references, batch=args.batch, rounds=args.rounds, device=args.device,
    )  # fmt: skip
    python = os.environ.get("COMFYUI_PYTHON") or sys.executable
    done = subprocess.run([python, str(CHILD), json.dumps(job)], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RealRAGError(f"The benchmark stopped: {last}. With little GPU memory use --size tiny or --device cpu.")
    measured = json.loads(done.stdout.strip().splitlines()[-1])
    share = extra_operations(shape, args.family, args.references) / operations(shape)
    ratio = measured["with_ms"] / measured["without_ms"]
    return {
        **measured, "family": args.family, "size": args.size, "side": args.side, "references": args.references,
        "batch": args.batch, "theoretical_share": share, "ratio": ratio, "over_theory": ratio / (1 + share),
        "goal": GOAL,
    }  # fmt: skip


def format_report(result: dict) -> str:
    return (
        f"{result['family']}, {result['references']} references, {result['batch']} x {result['side']} px, "
        f"{result['size']} Flux on {result['device']} ({result['dtype']}), ComfyUI {result['comfyui']}\n"
        f"a step without references   {result['without_ms']:10.2f} ms\n"
        f"a step with references      {result['with_ms']:10.2f} ms\n"
        f"ratio                       {result['ratio']:10.4f}\n"
        f"theoretical extra share     {result['theoretical_share']:10.4%}\n"
        f"ratio over 1 + that share   {result['over_theory']:10.4f}   (goal on a GPU: at most {result['goal']})"
    )
