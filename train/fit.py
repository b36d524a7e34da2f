"""Fits a reflective head to one generator (paper, eq. 5-8) on the vectors a bundle holds; stopped at any point, the same
command goes on from the last checkpoint."""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from realrag.bundle import Bundle
from realrag.errors import RealRAGError
from realrag.files import canonical_json, default_cache, sha256_bytes, sweep_temporaries, write_atomic
from realrag.head import ReflectiveHead, load_head, save_head
from realrag.retriever import own_encoder

from .fitting import FitConfig, Fitting
from .loss import KINDS, LossConfig
from .material import Prompt, load_material, prompts_hash, read_prompts
from .mine import read_drawn, read_negatives
from .mining import MineConfig

HELP = "fit a reflective head to a generator, on cached vectors"
STOPPED = 75  # exit status: unfinished, run the same command again
COLUMNS = ("step", "epoch", "loss", "rate", "tau")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keeping:
    """How often a run is kept and told of, in steps, and after how many minutes it stops of itself (0: never)."""

    every: int = 500
    log_every: int = 50
    max_minutes: float = 0.0


def fit_file(
    folder: Path,
    out: Path,
    config: FitConfig = FitConfig(),
    loss: LossConfig = LossConfig(),
    *,
    prompts_file: Path,
    negatives_file: Path | None = None,
    drawn_file: Path | None = None,
    encoder=None,
    device: str = "cpu",
    keeping: Keeping = Keeping(),
    generator: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ReflectiveHead | None:
    """Train and write the head `out`, its history beside it and a CSV log; None when it was stopped before the end.

    A head that is there and has the same inputs stays as it is. SIGTERM, and `keeping.max_minutes`, save and stop.
    Files beside `head.safetensors` are fit.json and fit.csv; beside another NAME.safetensors, NAME.fit.json and so on.
    """
    out, bundle, prompts = Path(out), Bundle(folder, default_cache()), read_prompts(prompts_file)
    negatives, mined = _negatives_for(bundle, prompts, loss, negatives_file)
    fingerprint = bundle.manifest.encoder["fingerprint"]
    drawn, made = read_drawn(drawn_file, fingerprint) if drawn_file and config.refresh else (None, {})
    facts = {
        "generator": generator or mined.get("generator") or made.get("generator") or "none",
        "encoder_fingerprint": fingerprint,
        "bundle_id": bundle.id,
        "loss": loss.kind,
        "lambda_ref": loss.lambda_ref,
        "seed": config.seed,
        "config": {"fit": asdict(config), "loss": asdict(loss)},
        "prompts": prompts_hash(prompts),
        "negatives": sha256_bytes(negatives.rows.tobytes()) if negatives else "",
        "drawn": sha256_bytes(drawn.tobytes()) if drawn is not None else "",
        "known_share": negatives.facts["known_share"] if negatives else None,
    }
    facts["key"] = key = sha256_bytes(canonical_json(facts))
    names = {kind: out.with_name(("" if out.stem == "head" else out.stem + ".") + f"fit.{kind}") for kind in ("json", "csv")}
    checkpoint = names["json"].with_suffix(".checkpoint.safetensors")
    if (kept := _finished(out, bundle.manifest.dim, key)) is not None:
        checkpoint.unlink(missing_ok=True)
        return kept
    mining = MineConfig(**mined["config"]) if mined else MineConfig()
    material = load_material(bundle, encoder or own_encoder(bundle, device), prompts)
    rows = None if negatives is None else negatives.rows
    fitting = Fitting(material, rows, config, loss, drawn=drawn, mining=mining, device=device)
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(out.parent)
    if checkpoint.is_file():
        found = fitting.resume(checkpoint, key)
        log.info("%s", f"going on after step {fitting.step}" if found else f"{checkpoint} is of another run: beginning anew")
    with _Watch(keeping, names["csv"], checkpoint, key, fitting, progress) as watch:
        finished = fitting.run(watch.after_step)
        watch.flush(save=not finished)
    if not finished:
        return None
    facts |= {"tau": fitting.tau.item(), "epochs": len(fitting.history), "steps": fitting.step, "pairs": len(fitting.pairs)}
    fitting.head.to("cpu").facts = facts
    if fitting.rank == 0:
        history = {"facts": facts, "history": fitting.history}
        write_atomic(names["json"], json.dumps(history, indent=1, ensure_ascii=False).encode())
        save_head(fitting.head, out)  # last: the head being there says that all is there
        checkpoint.unlink(missing_ok=True)
    return fitting.head


def _negatives_for(bundle: Bundle, prompts: list[Prompt], loss: LossConfig, path: Path | None):
    """The mined rows and what is written about them, checked to be of this bundle, these prompts and this kind of loss."""
    if not loss.uses_negatives:
        return None, {}
    if path is None:
        raise RealRAGError(f"The loss {loss.kind!r} needs negatives. Give --negatives FILE, or use --loss normal.")
    negatives, mined = read_negatives(path)
    for what, wanted, found in (
        ("bundle", bundle.id, mined.get("bundle_id")),
        ("prompts", prompts_hash(prompts), mined.get("prompts")),
        ("kind of loss", loss.kind, mined.get("config", {}).get("kind")),
    ):
        if wanted != found:
            raise RealRAGError(f"{path} was mined for another {what} ({str(found)[:12]}, not {wanted[:12]}). Mine again.")
    return negatives, mined


def _finished(path: Path, dim: int, key: str) -> ReflectiveHead | None:
    try:
        head = load_head(path, dim) if path.is_file() else None
    except RealRAGError:
        return None
    return head if head and head.facts.get("key") == key else None


class _Watch:
    """Keeps checkpoints and the CSV log while a run goes on, and ends it when time is up or the system asks (SIGTERM)."""

    def __init__(self, keeping: Keeping, csv_path: Path, checkpoint: Path, key: str, fitting: Fitting, progress):
        self.keeping, self.csv_path, self.checkpoint, self.key = keeping, csv_path, checkpoint, key
        self.fitting, self.progress, self.asked = fitting, progress, False
        self.until = time.monotonic() + 60 * keeping.max_minutes if keeping.max_minutes else float("inf")
        self.lines = self._earlier()

    def _earlier(self) -> list[list[str]]:
        """The log up to the checkpoint; what a killed run wrote after it comes again."""
        if not self.fitting.step or not self.csv_path.is_file():
            return []
        with open(self.csv_path, newline="") as file:
            rows = list(csv.reader(file))[1:]
        return [row for row in rows if len(row) == len(COLUMNS) and row[0].isdigit() and int(row[0]) <= self.fitting.step]

    def __enter__(self) -> _Watch:
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))
        return self

    def __exit__(self, *_exc) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def after_step(self, fitting: Fitting) -> bool:
        if fitting.step % self.keeping.log_every == 0 or fitting.done:
            rate, epoch = fitting.optimiser.param_groups[0]["lr"], (fitting.step - 1) // fitting.steps_each_epoch + 1
            values = fitting.step, epoch, fitting.mean_last_loss(), rate, fitting.tau.item()
            self.lines.append([f"{value:.9g}" for value in values])
            if fitting.rank == 0:
                self.progress(fitting.step, fitting.steps)
        if fitting.step % self.keeping.every == 0 and not fitting.done:
            self.flush(save=True)
        return not self._stop()

    def _stop(self) -> bool:
        stop = self.asked or time.monotonic() > self.until
        if self.fitting.world == 1:
            return stop
        if self.fitting.step % 20:
            return False  # ranks must stop at the same step; they ask each other now and then
        flag = torch.tensor(float(stop), device=self.fitting.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag.item())

    def flush(self, save: bool) -> None:
        if self.fitting.rank:
            return
        if save:
            self.fitting.save(self.checkpoint, self.key)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *self.lines])
        write_atomic(self.csv_path, text.getvalue().encode())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--negatives", type=Path, metavar="FILE", help="made by mine; not needed for --loss normal")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="default: prompts.jsonl beside the negatives")
    parser.add_argument("--drawn", type=Path, metavar="FILE", help="drawn.safetensors, for --refresh")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="head.safetensors to write")
    parser.add_argument("--generator", default="", help="its name, where the negatives do not say it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's own choice")
    parser.add_argument("--loss", choices=KINDS, default=LossConfig.kind)
    for owner in (LossConfig, FitConfig, Keeping):
        for field in fields(owner):
            if field.name != "kind":
                boolean = isinstance(field.default, bool)
                kind = {"action": argparse.BooleanOptionalAction} if boolean else {"type": type(field.default)}
                flag, told = "--" + field.name.replace("_", "-"), f"default {field.default}"
                parser.add_argument(flag, default=field.default, help=told, **kind)


def run(arguments: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    given = vars(arguments)
    pick = lambda owner: {f.name: given[f.name] for f in fields(owner) if f.name != "kind"}  # noqa: E731
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = _join_ranks(arguments.device)
    torch.set_float32_matmul_precision("high")  # TF32 on a card that has it; no change on a CPU
    prompts = arguments.prompts or (arguments.negatives and arguments.negatives.with_name("prompts.jsonl"))
    if prompts is None:
        raise RealRAGError("Which prompts? Give --prompts FILE.")
    began = time.monotonic()

    def progress(done: int, total: int) -> None:
        say(f"step {done} of {total}, {time.monotonic() - began:.0f} s")

    head = fit_file(
        arguments.bundle, arguments.out, FitConfig(**pick(FitConfig)), LossConfig(arguments.loss, **pick(LossConfig)),
        prompts_file=prompts, negatives_file=arguments.negatives, drawn_file=arguments.drawn, device=device,
        keeping=Keeping(**pick(Keeping)), generator=arguments.generator, progress=progress,
    )  # fmt: skip
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # a rank that leaves early may take the others down with it
        torch.distributed.destroy_process_group()
    if int(os.environ.get("RANK", "0")):
        say = lambda line: None  # noqa: E731 - the first process speaks for all
    if head is None:
        say("stopped and kept; the same command goes on from there")
        raise SystemExit(STOPPED)
    say(f"wrote {arguments.out} after {head.facts['steps']} steps of {head.facts['pairs']} pairs")


def _join_ranks(device: str) -> str:
    """Under torchrun: join the other processes, and take this one's own card."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        if device.startswith("cuda"):
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device
