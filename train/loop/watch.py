"""What goes on beside a fit: checkpoints, the log (CSV, and TensorBoard if asked), and the end when time is up or the
system asks for it (SIGTERM)."""

from __future__ import annotations

import csv
import io
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from realrag.errors import RealRAGError
from realrag.files import write_atomic

COLUMNS = ("step", "epoch", "loss", "normal", "negatives", "utility", "margin", "rate", "tau", "held_out_r1")


@dataclass(frozen=True)
class Keeping:
    """How often a run is kept, in steps and at least in minutes, and told of, in steps; and after how many minutes it
    stops of itself (0: never). tensorboard: write its event files beside the CSV log."""

    every: int = 500
    every_minutes: float = 5.0  # a step of a tower takes seconds, and 500 of them may be an hour
    log_every: int = 50
    max_minutes: float = 0.0
    tensorboard: bool = False


class Watch:
    """Keeps checkpoints and the log while a run goes on, and ends it when time is up or the system asks."""

    def __init__(self, keeping: Keeping, csv_path: Path, checkpoint: Path, key: str, fitting, progress):
        self.keeping, self.csv_path, self.checkpoint, self.key = keeping, csv_path, checkpoint, key
        self.fitting, self.progress, self.asked = fitting, progress, False
        self.until = time.monotonic() + 60 * keeping.max_minutes if keeping.max_minutes else float("inf")
        self.kept_at = time.monotonic()
        self.lines = self._earlier()
        self.board = None
        if keeping.tensorboard and fitting.rank == 0:
            self.board = _writer(csv_path.with_suffix(".tensorboard"), fitting.step)

    def _earlier(self) -> list[list[str]]:
        """The log up to the checkpoint; what a killed run wrote after it comes again."""
        if not self.fitting.step or not self.csv_path.is_file():
            return []
        with open(self.csv_path, newline="") as file:
            rows = list(csv.reader(file))[1:]
        return [
            row for row in rows if len(row) == len(COLUMNS) and row[0].isdigit() and int(row[0]) <= self.fitting.step
        ]

    def __enter__(self) -> Watch:
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))
        self.fitting.hurry = lambda: self.asked
        return self

    def __exit__(self, *_exc) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self.board:
            self.board.close()

    def after_step(self, fitting) -> bool:
        epoch_ends = fitting.step % fitting.steps_each_epoch == 0
        measured = epoch_ends and "held_out_r1" in fitting.history[-1]
        if fitting.step % self.keeping.log_every == 0 or fitting.done or measured:
            self._log(fitting, measured)
        due = time.monotonic() - self.kept_at >= 60 * self.keeping.every_minutes
        if (due or fitting.step % self.keeping.every == 0) and not fitting.done:
            self.flush(save=True)
            self.kept_at = time.monotonic()
        return not self._stop()

    def _log(self, fitting, measured: bool) -> None:
        values = fitting.figures() | {"rate": fitting.optimiser.param_groups[0]["lr"], "tau": fitting.tau.item()}
        if measured:
            values["held_out_r1"] = fitting.history[-1]["held_out_r1"]
        numbered = {"step": fitting.step, "epoch": (fitting.step - 1) // fitting.steps_each_epoch + 1} | values
        self.lines.append([f"{numbered[name]:.9g}" if name in numbered else "" for name in COLUMNS])
        if fitting.rank == 0:
            self.progress(fitting.step, fitting.steps)
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, fitting.step)

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


def _writer(folder: Path, step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RealRAGError(
            "The TensorBoard log needs the package tensorboard: `pip install realrag[train]`, or leave --tensorboard away "
            "and read the CSV log."
        ) from None
    return SummaryWriter(str(folder), purge_step=step + 1)  # what a killed run wrote after its checkpoint is dropped
