"""How fast a head is fitted at a given size, beside what the machine's matrix products, memory and launches would
allow."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..dataset import Material
from .loss import LossConfig
from .trainer import FitConfig, Fitting

HELP = "measure how fast `fit` trains on this machine"
TARGET_SECONDS = 30.0  # for 1.3M pairs, 10 epochs, on one H200-class GPU
ON_CPU = 65_536  # photos held where there is no GPU: a step does not depend on how many there are


def bench_fit(
    *,
    pairs: int = 1_300_000,
    epochs: int = 10,
    dim: int = 768,
    hidden: int = 768,
    batch: int = 4096,
    negatives: int = 1,
    classes: int = 1000,
    steps: int = 20,
    device: str | None = None,
    seed: int = 0,
) -> dict:
    """Seconds a step, the whole run reckoned from it, and three bounds. The masks of same-class photos are on.

    bounds, in seconds a step: `products` from the rate of one (batch, dim) x (dim, batch) product measured here,
    `memory` from the rate of a copy measured here with every value of the step written and read once, `launches` from a
    step of two pairs, which has all of the calls and none of the work.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    held = pairs if device != "cpu" else max(batch, min(pairs, ON_CPU))
    material, rows = _made(held, dim, classes, negatives, seed)
    config = FitConfig(epochs=epochs, batch=batch, hidden=hidden, seed=seed)
    fitting = Fitting(material, rows, config, LossConfig(), device=device)
    begin = time.perf_counter()
    fitting._rows()
    plan = (time.perf_counter() - begin) * pairs / held
    step = _seconds(_stepping(fitting), steps, device)
    alone = Fitting(material, rows, FitConfig(epochs=10**6, batch=2, hidden=hidden), LossConfig(), device=device)
    launches = _seconds(_stepping(alone), steps, device)
    one, other = torch.randn(batch, dim, device=device), torch.randn(dim, batch, device=device)
    product = _seconds(lambda: one @ other, steps, device)
    source = torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    copy = _seconds(lambda: target.copy_(source), steps, device)
    flop, moved = work(batch, dim, hidden, negatives)
    rate, bandwidth = 2 * batch * batch * dim / product, 2 * source.nbytes / copy
    all_steps = epochs * (pairs // batch)
    return {
        "machine": torch.cuda.get_device_name() if device != "cpu" else f"{_cpu()}, {torch.get_num_threads()} threads",
        "device": device,
        "gpu": "measured" if device != "cpu" else "unmeasured on a GPU here",
        "size": {
            "pairs": pairs,
            "epochs": epochs,
            "dim": dim,
            "hidden": hidden,
            "batch": batch,
            "negatives": negatives,
        },
        "photos_held": held,
        "step_s": step,
        "steps_per_s": 1 / step,
        "epoch_plan_s": plan,
        "steps": all_steps,
        "whole_run_s": all_steps * step + epochs * plan,
        "bounds_s": {"products": flop / rate, "memory": moved / bandwidth, "launches": launches},
        "tflops_of_a_product": rate / 1e12,
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


def _made(held: int, dim: int, classes: int, negatives: int, seed: int) -> tuple[Material, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    photos = F.normalize(torch.randn(held, dim, generator=generator), dim=1).numpy()
    queries = F.normalize(torch.randn(classes, dim, generator=generator), dim=1).numpy()
    rows = torch.randint(0, held, (classes, negatives), generator=generator).numpy()
    return Material(photos, np.arange(held) % classes, queries, np.arange(classes)), rows


def _stepping(fitting: Fitting) -> Callable[[], None]:
    """A step of the first epoch, over and over: what ends an epoch is no part of it."""

    def step() -> None:
        if fitting.step >= fitting.steps_each_epoch - 1:
            fitting.step = 0
        fitting.advance()

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
        f"the whole run: {result['steps']:,} steps, {result['whole_run_s']:.0f} s, reckoned from the step "
        f"and {result['epoch_plan_s']:.2f} s to order an epoch",
    ]
    if result["photos_held"] < size["pairs"]:
        lines.append(f"({result['photos_held']:,} photos were held in memory.)")
    if result["device"] == "cpu":
        lines.append(f"The aim of {TARGET_SECONDS:.0f} s on one H200-class GPU: unmeasured on a GPU here.")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, default in (
        ("pairs", 1_300_000), ("epochs", 10), ("dim", 768), ("hidden", 768), ("batch", 4096), ("negatives", 1),
        ("classes", 1000), ("steps", 20),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help="default %(default)s")
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")


def run(arguments: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    sizes = ("pairs", "epochs", "dim", "hidden", "batch", "negatives", "classes", "steps")
    result = bench_fit(**{name: getattr(arguments, name) for name in sizes}, device=arguments.device)
    say(format_report(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
