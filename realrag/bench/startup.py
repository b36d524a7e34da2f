"""`realrag bench startup`: what the pack, and others beside it, add to ComfyUI's start, as medians of fresh processes."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from ..errors import RealRAGError
from .inside_comfyui import comfyui_folder, in_comfyui

ROOT = Path(__file__).resolve().parents[2]
JOB = "startup.py"
PATIENCE = 600  # seconds for one process, on a machine that has much else to do
SHOWN = 12  # packages that are named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each pack, in turns; medians count")
    other = "also measure another node pack: its folder, as in custom_nodes (repeat for more)"
    parser.add_argument("--other-pack", type=Path, action="append", default=[], metavar="FOLDER", help=other)


def run(args: argparse.Namespace) -> dict:
    """Load each pack in ComfyUI processes of its own. One round before the first is not counted: it compiles and warms up."""
    folder = comfyui_folder(JOB)
    if args.rounds < 1:
        raise RealRAGError(f"rounds is {args.rounds}; give 1 or more.")
    packs = {ROOT.name: ROOT}
    for pack in args.other_pack:
        if not (pack / "__init__.py").is_file():
            raise RealRAGError(f"{pack} is no node pack: it holds no __init__.py. Give its folder in custom_nodes.")
        packs[pack.resolve().name] = pack.resolve()
    found: dict[str, list[dict]] = {name: [] for name in packs}
    with tempfile.TemporaryDirectory() as base:
        for number in range(args.rounds + 1):
            for name, pack in packs.items():
                one = _measured(folder, base, pack)
                found[name] += [one] * (number > 0)
    return {
        "rounds": args.rounds,
        "comfyui_cpu_s": statistics.median(one["comfyui_cpu_s"] for each in found.values() for one in each),
        "packs": {name: _summary(each) for name, each in found.items()},
    }


def _measured(comfyui: str, base: str, pack: Path) -> dict:
    answer = in_comfyui(
        JOB, {"comfyui": comfyui, "base": base, "pack": str(pack)},
        lambda last: f"ComfyUI did not load {pack.name}: {last}. Start it by hand to see more.", PATIENCE,
    )  # fmt: skip
    if not answer["loaded"]:
        raise RealRAGError(f"ComfyUI could not import {pack.name}. Start it by hand to see why.")
    return answer


def _summary(rounds: list[dict]) -> dict:
    return {
        "added_s": statistics.median(one["pack_s"] for one in rounds),
        "added_cpu_s": statistics.median(one["pack_cpu_s"] for one in rounds),
        "new_modules": rounds[-1]["new_modules"],
    }


def format_report(result: dict) -> str:
    lines = [f"ComfyUI without packs: {result['comfyui_cpu_s']:.2f} s of CPU time (median)."]
    for name, one in result["packs"].items():
        new = one["new_modules"]
        more = f" and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
        lines.append(
            f"{name} adds {one['added_s']:.3f} s by the clock, {one['added_cpu_s']:.3f} s of CPU time (medians of "
            f"{result['rounds']}). Packages that it imports beyond ComfyUI's: {', '.join(new[:SHOWN]) or 'none'}{more}."
        )
    return "\n".join(lines)
