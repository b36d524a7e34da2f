"""Runs a training: checkpoints, the log (CSV, and TensorBoard on request), the time limit, and a clean stop.

SIGTERM and Ctrl-C both save and stop within a step. The same command then resumes.
"""

from __future__ import annotations

import csv
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from realrag.errors import RealRAGError
from realrag.files import sha256_bytes, sweep_temporaries

from ..tables import read_csv, write_csv
from .training import StepAbandoned, Training

AGREE_STEPS = 20  # steps between two questions among ranks whether to stop: all must stop at the same step
SECOND_SIGNAL = 2.0  # seconds: a second Ctrl-C ends the step at once; sooner ones are torchrun's copies of the first


@dataclass(frozen=True)
class WatchConfig:
    """How often a run is saved and logged, and when it stops."""

    save_steps: int = 500  # 0: not by steps
    save_minutes: float = 5.0  # beside save_steps: 500 steps of a tower may take an hour
    log_steps: int = 50
    sheet_minutes: float = 20.0  # between two sheets of sample pictures, where the training draws some; 0: never
    max_minutes: float = 0.0  # 0: no limit
    tensorboard: bool = False  # write event files beside the CSV log
    wandb: str = ""  # also log to this project of Weights & Biases; WANDB_MODE=offline sends nothing


def _nothing(*_given: Any) -> None:
    return None


@dataclass
class RunFiles:
    """The checkpoint and the log of a run."""

    checkpoint: Path
    log: Path

    @classmethod
    def beside(cls, out: Path, folder: Path | None = None) -> RunFiles:
        """NAME.checkpoint.safetensors and NAME.csv, in the folder of `out` or in `folder`."""
        folder = folder or out.parent
        return cls(folder / f"{out.stem}.checkpoint.safetensors", folder / f"{out.stem}.csv")


@dataclass
class Hooks:
    """What a run calls: `log` with lines to print, `progress` with (step, steps) at each log line, `saved` after each
    checkpoint, `resumed` after one was loaded, `sheet` every `sheet_minutes`."""

    log: Callable[[str], None] = _nothing
    progress: Callable[[int, int], None] = _nothing
    saved: Callable[[], None] = _nothing
    resumed: Callable[[], None] = _nothing
    sheet: Callable[[], None] = _nothing


class Watch:
    """Trains to the end, or until a signal or the time limit, and keeps checkpoint and log up to date."""

    def __init__(self, training: Training, key: str, files: RunFiles, config: WatchConfig, hooks: Hooks):
        self.training, self.key, self.files, self.config, self.hooks = training, key, files, config, hooks
        self.rows: list[dict[str, str]] = []
        self.asked_at = float("inf")
        self.board = None
        self.online: Any = None

    @property
    def asked(self) -> bool:
        return self.asked_at < float("inf")

    def run(self) -> bool:
        """True when the training is done, False when it was stopped. Everything is saved either way."""
        training, files = self.training, self.files
        files.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(files.checkpoint.parent)
        if files.checkpoint.is_file():
            training.resume(files.checkpoint, self.key)
            self.hooks.log(f"resuming after step {training.step} of {training.steps}")
            self.rows = self._earlier_rows()
            self.hooks.resumed()
        training.stop_asked = lambda: self.asked
        with self._signals(), self._tensorboard(), self._wandb():
            began = training.step
            try:
                self._train()
            except RealRAGError:  # raised between two steps, or before a step changed anything
                if training.step > began:
                    self.save()
                raise
        self.save()
        return training.done

    def save(self) -> None:
        """Write checkpoint and log, on rank 0 alone."""
        if self.training.rank:
            return
        self.training.save(self.files.checkpoint, self.key)
        if self.rows:
            names = dict.fromkeys(name for row in self.rows for name in row)
            write_csv(self.files.log, self.rows, tuple(dict.fromkeys([*self.training.columns, *names])))
        self.hooks.saved()

    def _train(self) -> None:
        training, config = self.training, self.config
        began = saved = drawn = time.monotonic()
        until = began + 60 * config.max_minutes if config.max_minutes else float("inf")
        while not training.done:
            try:
                training.advance()
            except StepAbandoned:
                return
            if training.step % config.log_steps == 0 or training.measured or training.done:
                self._log()
            if training.done:
                return
            now = time.monotonic()
            due = bool(config.save_steps) and training.step % config.save_steps == 0
            if due or now - saved >= 60 * config.save_minutes:
                self.save()
                saved = time.monotonic()
            if config.sheet_minutes and now - drawn > 60 * config.sheet_minutes:
                self.hooks.sheet()
                drawn = time.monotonic()
            if self._stop(now > until):
                return

    def _log(self) -> None:
        training, values = self.training, self.training.figures()
        row = {"step": training.step, **values}
        self.rows.append({name: f"{value:.9g}" for name, value in row.items()})
        if training.rank == 0:
            self.hooks.log(", ".join(f"{name} {value:.6g}" for name, value in row.items()))
            self.hooks.progress(training.step, training.steps)
        if self.board:
            for name, value in values.items():
                if name != "epoch":
                    self.board.add_scalar(name, value, training.step)

        if self.online:
            self.online.log(values, step=training.step)

    def _stop(self, time_is_up: bool) -> bool:
        stop = self.asked or time_is_up
        if self.training.world_size == 1:
            return stop
        if self.training.step % AGREE_STEPS:
            return False
        flag = torch.tensor(float(stop), device=self.training.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag.item())

    def _earlier_rows(self) -> list[dict[str, str]]:
        """The log up to the checkpoint: rows that a killed run wrote after it would appear twice."""
        try:
            rows = read_csv(self.files.log) if self.files.log.is_file() else []
        except (OSError, UnicodeDecodeError, csv.Error):
            return []
        step = self.training.step
        rows = [row for row in rows if None not in row and None not in row.values()]
        return [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) <= step]

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C ask for a stop after the step; Ctrl-C again, seconds later, interrupts it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, _frame: Any) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and now - self.asked_at > SECOND_SIGNAL:
            raise KeyboardInterrupt
        self.asked_at = min(self.asked_at, now)

    @contextmanager
    def _tensorboard(self) -> Iterator[None]:
        if not self.config.tensorboard or self.training.rank:
            yield
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise RealRAGError(
                "The TensorBoard log needs the package tensorboard: `pip install realrag[train]`. Or leave out "
                "--tensorboard and read the CSV log."
            ) from None
        # purge_step drops what a killed run wrote after its checkpoint
        self.board = SummaryWriter(str(self.files.log.with_suffix(".tensorboard")), purge_step=self.training.step + 1)
        try:
            yield
        finally:
            self.board.close()

    @contextmanager
    def _wandb(self) -> Iterator[None]:
        if not self.config.wandb or self.training.rank:
            yield
            return
        try:
            import wandb
        except ImportError:
            raise RealRAGError(
                "Logging to Weights & Biases needs the package wandb: `pip install realrag[wandb]`. Or leave out --wandb and "
                "read the CSV log."
            ) from None
        name = self.files.log.parent.name
        self.online = wandb.init(
            project=self.config.wandb, name=name, dir=str(self.files.log.parent), resume="allow",
            id=sha256_bytes(self.key.encode())[:16],  # a resumed run goes on in the same place
        )  # fmt: skip
        try:
            yield
        finally:
            self.online.finish()
