"""`realrag bench inject`: time that references add to a step of Flux or SD3.5 in ComfyUI, compared with the count of
operations."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import RealRAGError
from .inside_comfyui import comfyui_folder, in_comfyui

JOB = "run.py"
TOKENS = {"flux-xlabs": 16, "flux-instantx": 128, "sd35-instantx": 64}  # of one reference
FAMILIES = (*TOKENS, "flux-shared", "sd35-shared")  # shared attention: references of the picture's own size
GOALS = {"cuda": 1.03, "cpu": 1.05}  # measured ratio over 1 + theoretical fraction


@dataclass(frozen=True)
class Shape:
    """The sizes of a generator and of one picture."""

    width: int
    double: int
    single: int
    text: int  # tokens of the prompt
    image: int  # tokens of the picture


SIZES = {  # generator -> size -> width, double blocks, single blocks, tokens of the prompt
    "flux": {"full": (3072, 19, 38, 512), "eighth": (384, 19, 38, 64), "tiny": (256, 2, 2, 16)},
    "sd35": {"full": (2432, 38, 0, 154), "eighth": (320, 5, 0, 77), "tiny": (128, 2, 0, 16)},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", choices=sorted(FAMILIES), default="flux-xlabs", help="which kind of adapter")
    sizes = "full: Flux.1, 24 GB in bf16, or SD3.5 Large, 16 GB; eighth: for a CPU; tiny: for tests"
    parser.add_argument("--size", choices=("full", "eighth", "tiny"), default="full", help=sizes)
    parser.add_argument("--side", type=int, default=1024, help="side of the picture in pixels")
    parser.add_argument("--references", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="timed steps with and without, in turns; medians count")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    other = "also time another node pack's apply node: the pack's folder, as in custom_nodes"
    parser.add_argument("--other-pack", type=Path, metavar="FOLDER", help=other)
    parser.add_argument("--other-node", metavar="NODE_CLASS", help="the class name of its node that outputs a MODEL")
    inputs = 'its inputs; {"node": NAME, "inputs": {...}, "output": 0} stands for the output of another node'
    parser.add_argument("--other-inputs", default="{}", metavar="JSON", help=inputs)


def shape_of(size: str, side: int, family: str = "flux-xlabs") -> Shape:
    width, double, single, text = SIZES[family.split("-")[0]][size]
    return Shape(width, double, single, text, (side // 16) ** 2)


def operations(shape: Shape) -> int:
    """Multiplications and additions of one step for one picture: linear layers and attention.

    Each token passes 12 W^2 weights in every block (qkv 3, output 1, MLP 8), two operations per weight; attention over L
    tokens takes 4 L^2 W per block. (SD3.5's last block leaves the prompt's MLP out: less than 0.1 % at full size.)
    """
    tokens, blocks = shape.text + shape.image, shape.double + shape.single
    return blocks * (2 * 12 * shape.width**2 * tokens + 4 * tokens**2 * shape.width)


def extra_operations(shape: Shape, family: str, references: int) -> int:
    """Operations of attention to the references: 4 L T W per block that uses them, L rows attending to T tokens.

    SD3.5 InstantX attends to the picture's own L keys once more beside them. Shared attention runs the model on each
    reference, as large as the picture, and attends to its tokens in every block.
    """
    if family.endswith("shared"):
        blocks = shape.double + shape.single
        return references * (operations(shape) + 4 * blocks * shape.image**2 * shape.width)
    tokens = TOKENS[family] * references + (shape.image if family == "sd35-instantx" else 0)
    rows = shape.double * shape.image
    if family == "flux-instantx":
        rows += shape.single * (shape.text + shape.image)
    return 4 * rows * tokens * shape.width


def run(args: argparse.Namespace) -> dict:
    """Time steps with and without references in the ComfyUI at COMFYUI_PATH, in a process of its own."""
    folder = comfyui_folder(JOB)
    if min(args.references, args.batch, args.rounds) < 1 or args.side < 16 or args.side % 16:
        raise RealRAGError("References, batch and rounds are 1 or more; the side is a multiple of 16.")
    shape = shape_of(args.size, args.side, args.family)
    job = dict(
        asdict(shape), comfyui=folder, family=args.family, tokens=TOKENS.get(args.family, 0), side=args.side,
        references=args.references, batch=args.batch, rounds=args.rounds, device=args.device,
        other=other_of(args),
    )  # fmt: skip
    measured = in_comfyui(
        JOB, job, lambda last: f"The benchmark stopped: {last}. With little GPU memory use --size tiny or --device cpu."
    )
    fraction = extra_operations(shape, args.family, args.references) / operations(shape)
    ratio = measured["ratio"]
    return {
        **measured, "family": args.family, "size": args.size, "side": args.side, "references": args.references,
        "batch": args.batch, "theoretical_share": fraction, "over_theory": ratio / (1 + fraction),
        "goal": GOALS[args.device],
    }  # fmt: skip


def other_of(args: argparse.Namespace) -> dict | None:
    """The node of another pack to time, or None."""
    if (args.other_pack is None) != (args.other_node is None):
        raise RealRAGError("--other-pack and --other-node belong together: a folder, and the class of its apply node.")
    try:
        inputs = json.loads(args.other_inputs)
    except ValueError as error:
        raise RealRAGError(f"--other-inputs is not JSON ({error}); write it as '{{\"weight\": 0.7}}'.") from None
    if not isinstance(inputs, dict):
        raise RealRAGError(f"--other-inputs is {args.other_inputs}; it must be an object: '{{\"weight\": 0.7}}'.")
    if args.other_pack is None:
        return None
    return {"pack": str(args.other_pack.expanduser().resolve()), "node": args.other_node, "inputs": inputs}


def format_report(result: dict) -> str:
    generator = "SD3.5" if result["family"].startswith("sd35") else "Flux"
    lines = [
        f"{result['family']}, {result['references']} references, {result['batch']} x {result['side']} px, "
        f"{result['size']} {generator} on {result['device']} ({result['dtype']}), ComfyUI {result['comfyui']}",
        f"a step without references   {result['without_ms']:10.2f} ms",
        f"a step with references      {result['with_ms']:10.2f} ms",
        f"ratio                       {result['ratio']:10.4f}",
        f"theoretical extra fraction  {result['theoretical_share']:10.4%}",
        f"ratio over 1 + fraction     {result['over_theory']:10.4f}   (goal: at most {result['goal']})",
    ]
    if "held_bytes" in result:
        lines.append(f"tensors that are left behind {result['held_bytes']:9} bytes")
    if "other_ms" in result:
        lines.append(f"a step with the other node  {result['other_ms']:10.2f} ms")
        lines.append(f"its ratio                   {result['other_ms'] / result['without_ms']:10.4f}")
        if not result["other_at_work"]:
            lines.append("The other node did not change the model's output: check its inputs.")
        if not result["other_leaves_model_clean"]:
            lines.append(
                "The other node changed the model it was given, so all three were timed on that changed model."
            )
    return "\n".join(lines)
