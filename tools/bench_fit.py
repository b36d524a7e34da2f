"""Measures how fast a head is trained at a given size, beside the bounds of this machine: matrix products, memory and
kernel launches."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..contrastive.fit_config import FitConfig
from ..contrastive.loss import LossConfig
from ..contrastive.trainer import ContrastiveTraining
from ..dataset import Material
from ..flags import add_flags, chosen

TARGET_SECONDS = 30.0  # for 1.3M pairs, 10 epochs, on one H200-class GPU
ON_CPU = 65_536  # photos in memory without a GPU: the time of a step does not depend on their number


@dataclass(frozen=True)
class BenchSize:
    """The size that is timed: by default that of ImageNet with CLIP ViT-L/14."""

    pairs: int = 1_300_000
    epochs: int = 10
    dim: int = 768
    hidden: int = 768
    batch: int = 4096
    negatives: int = 1  # per prompt
    classes: int = 1000
    steps: int = 20  # timed


def bench_fit(size: BenchSize = BenchSize(), device: str | None = None, seed: int = 0) -> dict:
    """Seconds a step, the whole run estimated from it, and three bounds. The masks of same-class photos are on.

    bounds, in seconds a step: `products` from the rate of one (batch, dim) x (dim, batch) product measured here,
    `memory` from the rate of a copy measured here with every value of the step written and read once, `launches` from a
    step of two pairs, which has all of the calls and none of the work.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    held = size.pairs if device != "cpu" else max(size.batch, min(size.pairs, ON_CPU))
    material, rows = _made(held, size, seed)
    config = FitConfig(epochs=size.epochs, batch=size.batch, hidden=size.hidden, seed=seed)
    training = ContrastiveTraining(material, rows, config, LossConfig(), device=device)
    begin = time.perf_counter()
    training._rows()
    plan = (time.perf_counter() - begin) * size.pairs / held
    step = _seconds(_stepping(training), size.steps, device)
    alone = ContrastiveTraining(
        material, rows, FitConfig(epochs=10**6, batch=2, hidden=size.hidden), LossConfig(), device=device
    )
    launches = _seconds(_stepping(alone), size.steps, device)
    one, other = torch.randn(size.batch, size.dim, device=device), torch.randn(size.dim, size.batch, device=device)
    product = _seconds(lambda: one @ other, size.steps, device)
    source = torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    copy = _seconds(lambda: target.copy_(source), size.steps, device)
    flop, moved = work(size.batch, size.dim, size.hidden, size.negatives)
    flops, bandwidth = 2 * size.batch * size.batch * size.dim / product, 2 * source.nbytes / copy
    all_steps = size.epochs * (size.pairs // size.batch)
    return {
        "machine": torch.cuda.get_device_name() if device != "cpu" else f"{_cpu()}, {torch.get_num_threads()} threads",
        "device": device,
        "gpu": "measured" if device != "cpu" else "unmeasured on a GPU here",
        "size": {name: value for name, value in asdict(size).items() if name not in ("classes", "steps")},
        "photos_held": held,
        "step_s": step,
        "steps_per_s": 1 / step,
        "epoch_plan_s": plan,
        "steps": all_steps,
        "whole_run_s": all_steps * step + size.epochs * plan,
        "bounds_s": {"products": flop / flops, "memory": moved / bandwidth, "launches": launches},
        "tflops_of_a_product": flops / 1e12,
        "gb_per_s_of_a_copy": bandwidth / 1e9,
    }


def work(batch: int, dim: int, hidden: int, negatives: int) -> tuple[int, int]:
    """(floating-point operations, bytes) of one step, at the least. The prompts and the photos' vectors take no
    gradient."""
    rows = batch * (1 + negatives)
    layers = (
        rows * dim * hidden * 2 * (2 + 3)
    )  # both forward; backward both weights, and through the second to the first
    scores = 2 * (2 * batch * batch * dim)  # forward, and backward to the photos
    values = 4 * batch * batch + rows * (
        4 * dim + 4 * hidden
    )  # scores, masked, exponentials, gradient; layers both ways
    return layers + scores, 2 * 4 * values


def _made(held: int, size: BenchSize, seed: int) -> tuple[Material, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    photos = F.normalize(torch.randn(held, size.dim, generator=generator), dim=1).numpy()
    queries = F.normalize(torch.randn(size.classes, size.dim, generator=generator), dim=1).numpy()
    rows = torch.randint(0, held, (size.classes, size.negatives), generator=generator).numpy()
    return Material(photos, np.arange(held) % size.classes, queries, np.arange(size.classes)), rows


def _stepping(training: ContrastiveTraining) -> Callable[[], None]:
    """A step of the first epoch, again and again: the end of an epoch is not timed."""

    def step() -> None:
        if training.step >= training.steps_each_epoch - 1:
            training.step = 0
        training.advance()

    return step


def _seconds(work: Callable[[], object], times: int, device: str) -> float:
    """Median seconds a call; on a GPU the mean of calls in a row, as they are queued in a run."""
    for _ in range(3):
        work()
    if device == "cpu":
        taken = []
        for _ in range(times):
            begin = time.perf_counter()
            work()
            taken.append(time.perf_counter() - begin)
        return float(np.median(taken))
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / times


def _cpu() -> str:
    return f"{platform.processor() or platform.machine()} with {os.cpu_count()} cores"


def format_report(result: dict) -> str:
    size, bounds = result["size"], result["bounds_s"]
    lines = [
        f"{result['machine']}: {size['pairs']:,} pairs x {size['epochs']} epochs, d = {size['dim']}, hidden {size['hidden']}, "
        f"batch {size['batch']}, {size['negatives']} reflective negatives a prompt, masks on",
        f"step {1e3 * result['step_s']:.2f} ms, {result['steps_per_s']:.2f} steps/s; at least, from what was measured here:",
        *(f"  {name:>9} {1e3 * seconds:9.3f} ms" for name, seconds in bounds.items()),
        f"  (a product alone {result['tflops_of_a_product']:.2f} TFLOP/s, a copy {result['gb_per_s_of_a_copy']:.1f} GB/s)",
        f"the whole run: {result['steps']:,} steps, {result['whole_run_s']:.0f} s, estimated from the step "
        f"and {result['epoch_plan_s']:.2f} s to order an epoch",
    ]
    if result["photos_held"] < size["pairs"]:
        lines.append(f"({result['photos_held']:,} photos were held in memory.)")
    if result["device"] == "cpu":
        lines.append(f"The aim of {TARGET_SECONDS:.0f} s on one H200-class GPU: unmeasured on a GPU here.")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, BenchSize)
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    result = bench_fit(chosen(arguments, BenchSize()), device=arguments.device)
    log(format_report(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
