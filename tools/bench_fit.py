"""Measures how fast a head is trained at a given size, beside the bounds of this machine: matrix products, memory and
kernel launches."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from realrag.errors import RealRAGError

from ..contrastive.fit_config import FitConfig
from ..contrastive.loss import LossConfig
from ..contrastive.trainer import ContrastiveTraining
from ..dataset import Material
from ..flags import add_flags, chosen

HERE = Path(__file__).resolve().parents[1]
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
    few = _made(max(64, size.classes), size, seed)
    alone = ContrastiveTraining(*few, FitConfig(epochs=10**6, batch=2, hidden=size.hidden), LossConfig(), device=device)
    launches = _seconds(_stepping(alone), size.steps, device)
    one, other = torch.randn(size.batch, size.dim, device=device), torch.randn(size.dim, size.batch, device=device)
    product = _seconds(lambda: one @ other, size.steps, device)
    source = torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    copy = _seconds(lambda: target.copy_(source), size.steps, device)
    prompts = prompts_of_a_step(training)
    flop, moved = work(size.batch, prompts, size.dim, size.hidden, size.negatives)
    flops, bandwidth = 2 * size.batch * size.batch * size.dim / product, 2 * source.nbytes / copy
    all_steps = size.epochs * (size.pairs // size.batch)
    return {
        "machine": torch.cuda.get_device_name() if device != "cpu" else f"{_cpu()}, {torch.get_num_threads()} threads",
        "device": device,
        "gpu": "measured" if device != "cpu" else "unmeasured on a GPU here",
        "size": {name: value for name, value in asdict(size).items() if name not in ("classes", "steps")},
        "photos_held": held,
        "prompts_of_a_step": prompts,
        "step_s": step,
        "steps_per_s": 1 / step,
        "epoch_plan_s": plan,
        "steps": all_steps,
        "whole_run_s": all_steps * step + size.epochs * plan,
        "bounds_s": {"products": flop / flops, "memory": moved / bandwidth, "launches": launches},
        "tflops_of_a_product": flops / 1e12,
        "gb_per_s_of_a_copy": bandwidth / 1e9,
    }


def compared(size: BenchSize, before: Path, turns: int, device: str | None = None) -> dict:
    """Steps in the checkout `before` and here, one of each in turns, in a process for each: the medians of the seconds by the
    clock and of CPU time, and of the ratios of a turn. RealRAGError where the other checkout cannot take part."""
    given = json.dumps({"size": asdict(size), "device": device or ("cuda" if torch.cuda.is_available() else "cpu")})
    taken: list[list[list[float]]] = [[], []]
    with ExitStack() as stack:
        both = [stack.enter_context(_stepper(checkout, given)) for checkout in (before, HERE)]
        for _ in range(turns):
            for found, child in zip(taken, both, strict=True):
                child.stdin.write("\n")
                child.stdin.flush()
                found.append(json.loads(child.stdout.readline()))
    old, new = np.array(taken).transpose(0, 2, 1)
    return {
        "before_s": np.median(old, axis=1).tolist(),
        "now_s": np.median(new, axis=1).tolist(),
        "times": np.median(old / new, axis=1).tolist(),
        "turns": turns,
    }


@contextmanager
def _stepper(checkout: Path, given: str) -> Iterator[subprocess.Popen]:
    """tools/fit_turns.py in `checkout`, ready to step."""
    script = Path(__file__).with_name("fit_turns.py")
    if not (checkout / "tools" / "bench_fit.py").is_file():
        raise RealRAGError(
            f"{checkout} cannot be timed: it has no tools/bench_fit.py. Name a checkout of RealRAG that has bench-fit."
        )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(script), given], cwd=checkout, **pipes) as child:
        if child.stdout.readline() != "ready\n":
            why = (child.communicate()[1].strip().splitlines() or ["no message"])[-1]
            raise RealRAGError(f"{checkout} cannot be timed: {why}. Name a checkout of RealRAG that has bench-fit.")
        try:
            yield child
        finally:
            child.stdin.close()


def prompts_of_a_step(training: ContrastiveTraining) -> int:
    """How many different prompts a step has, in the mean over an epoch."""
    return round(np.mean([len(training._rows(step)[1]) for step in range(training.steps_each_epoch)]))


def work(batch: int, prompts: int, dim: int, hidden: int, negatives: int) -> tuple[int, int]:
    """(floating-point operations, bytes) of one step, at the least. The prompts and the photos' vectors take no
    gradient, and a prompt that occurs several times in the batch counts once, with its negatives."""
    rows = batch + prompts * negatives
    layers = (
        rows * dim * hidden * 2 * (2 + 3)
    )  # both forward; backward both weights, and through the second to the first
    scores = 2 * (2 * prompts * batch * dim)  # forward, and backward to the photos
    values = 4 * prompts * batch + rows * (
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
        f"batch {size['batch']} with {result['prompts_of_a_step']} different prompts, {size['negatives']} reflective negatives "
        "a prompt, masks on",
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


def _ms(seconds: list[float]) -> str:
    return f"{1e3 * seconds[0]:.0f} ms ({1e3 * seconds[1]:.0f} of CPU time)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, BenchSize)
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="time another checkout in turns with this one")


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    size = chosen(arguments, BenchSize())
    result = bench_fit(size, device=arguments.device)
    log(format_report(result))
    if arguments.before:
        result["compared"] = both = compared(size, arguments.before, size.steps, arguments.device)
        log(
            f"{size.steps} steps of each in turns: {_ms(both['before_s'])} a step in {arguments.before}, {_ms(both['now_s'])} here: "
            f"{both['times'][0]:.2f} times the steps by the clock, {both['times'][1]:.2f} by CPU time"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
