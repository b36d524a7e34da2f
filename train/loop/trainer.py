"""What the trainers of miniatures share: a step whose dice depend on its number alone, checkpoints from which the same
run goes on bit by bit, a CSV log, and an end that comes when time is up or the system asks."""

from __future__ import annotations

import csv
import io
import json
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from realrag.errors import RealRAGError
from realrag.files import sweep_temporaries, write_atomic

Say = Callable[[str], None]


def pace(step: int, steps: int, warm_up: int) -> float:
    """Share of the full rate: up in a line over `warm_up` steps, then a half cosine down to 0."""
    return min(1.0, (step + 1) / max(1, warm_up)) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2


def held(step: int, steps: int, warm_up: int, cool_down: float) -> float:
    """Share of the full rate: up in a line over `warm_up` steps, held, and down in a line over the last `cool_down` of
    the steps, so that a run can be ended at any step."""
    return min(1.0, (step + 1) / max(1, warm_up), (steps - step) / max(1.0, cool_down * steps))


def chosen_rows(seed: int, step: int, batch: int, count: int) -> tuple[Tensor, Tensor]:
    """Rows of this step and how often each was seen before: every epoch goes through all `count` rows in an order of
    its own, and a batch may span two epochs."""
    rows, epochs = [], []
    for epoch in range(step * batch // count, ((step + 1) * batch - 1) // count + 1):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        part = order[max(0, step * batch - epoch * count) : (step + 1) * batch - epoch * count]
        rows.append(part)
        epochs.append(torch.full_like(part, epoch))
    return torch.cat(rows), torch.cat(epochs)


class Training:
    """A model, AdamW over its weights, a running average of them, and the number of the next step."""

    def __init__(self, model: nn.Module, *, steps: int, seed: int, weight_decay: float, clip: float, averaging: float):
        self.model, self.steps, self.seed, self.clip, self.averaging = model, steps, seed, clip, averaging
        self.step = 0
        heavy = [w for w in model.parameters() if w.ndim > 1]
        light = [w for w in model.parameters() if w.ndim <= 1]
        groups = [{"params": heavy}, {"params": light, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=weight_decay, betas=(0.9, 0.99))
        self.average = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def rate(self) -> float:
        raise NotImplementedError

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """The loss of the step `self.step`, all its dice drawn from (seed, step), and figures to log."""
        raise NotImplementedError

    def advance(self) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss, figures = self.loss()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimiser.step()
        self.step += 1
        keep = min(self.averaging, self.step / (self.step + 9))  # short at first: the start is forgotten sooner
        own = dict(self.model.named_parameters())
        torch._foreach_lerp_(list(self.average.values()), [own[name].detach() for name in self.average], 1 - keep)
        return {"loss": loss.item(), **figures, "norm": norm.item()}

    def save(self, path: Path, key: str) -> None:
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        state |= {f"average.{name}": value for name, value in self.average.items()}
        for row, values in self.optimiser.state_dict()["state"].items():
            state |= {f"adam.{row}.{name}": torch.as_tensor(value) for name, value in values.items()}
        words = {"key": key, "step": str(self.step)}
        write_atomic(path, save({name: value.contiguous() for name, value in state.items()}, words))

    def resume(self, path: Path, key: str) -> None:
        """Goes on from a checkpoint. RealRAGError when it is of other settings or cannot be read."""
        try:
            with safe_open(path, "pt") as file:
                words, state = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise RealRAGError(f"The checkpoint {path} cannot be read ({error}). Delete it to begin anew.") from error
        if words.get("key") != key:
            raise RealRAGError(
                f"The checkpoint {path} was made with other data or settings ({words.get('key')}, not {key}). Give those "
                "again, or delete it to begin anew."
            )

        def pick(prefix):
            return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}

        self.model.load_state_dict(pick("model."))
        average = pick("average.")
        self.average = {name: average[name] for name in self.average}
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in pick("adam.").items():
            row, part = name.split(".")
            adam.setdefault(int(row), {})[part] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": adam})
        self.step = int(words["step"])


@dataclass(frozen=True)
class Keeping:
    """How often a run is kept, logged and drawn, and when it stops of itself. 0 minutes: never."""

    save_minutes: float = 5.0
    log_steps: int = 50
    sheet_minutes: float = 20.0
    max_minutes: float = 0.0


@dataclass
class Watch:
    """The files of a run, named after `stem`, in its folder, and the wish to stop. `sheet` is called now and then."""

    folder: Path
    stem: str
    key: str
    keeping: Keeping
    say: Say
    sheet: Callable[[], None] = lambda: None
    asked: bool = False
    lines: list[dict] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.stem}.checkpoint.safetensors"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.stem}.csv"

    def run(self, training: Training) -> bool:
        """Trains to the end, or until time is up or SIGTERM or SIGINT comes; True at the end. All is kept either way."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(self.folder)
        if self.checkpoint.is_file():
            training.resume(self.checkpoint, self.key)
            self.say(f"going on after step {training.step} of {training.steps}")
            self.lines = self._earlier(training.step)
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {sign: signal.signal(sign, self._ask) for sign in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._loop(training)
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)
        self.flush(training)
        return training.step >= training.steps

    def _ask(self, *_) -> None:
        self.asked = True

    def _loop(self, training: Training) -> None:
        began = saved = drawn = logged = time.monotonic()
        sums: dict[str, float] = {}
        steps = 0
        while training.step < training.steps and not self.asked:
            for name, value in training.advance().items():
                sums[name] = sums.get(name, 0.0) + value
            steps += 1
            now = time.monotonic()
            if training.step % self.keeping.log_steps == 0:
                line = {"step": training.step, **{name: value / steps for name, value in sums.items()}}
                line |= {"rate": training.rate(), "seconds_a_step": (now - logged) / steps}
                self.lines.append({name: f"{value:.6g}" for name, value in line.items()})
                self.say(", ".join(f"{name} {value}" for name, value in self.lines[-1].items()))
                sums, steps, logged = {}, 0, now
            if now - saved > 60 * self.keeping.save_minutes:
                self.flush(training)
                saved = time.monotonic()
            if self.keeping.sheet_minutes and now - drawn > 60 * self.keeping.sheet_minutes:
                self.sheet()
                drawn = time.monotonic()
            if self.keeping.max_minutes and now - began > 60 * self.keeping.max_minutes:
                break

    def _earlier(self, step: int) -> list[dict]:
        """The log up to the checkpoint; what a killed run wrote after it comes again."""
        if not self.log.is_file():
            return []
        with open(self.log, newline="") as file:
            return [line for line in csv.DictReader(file) if line["step"].isdigit() and int(line["step"]) <= step]

    def flush(self, training: Training) -> None:
        training.save(self.checkpoint, self.key)
        if self.lines:
            text = io.StringIO()
            writer = csv.DictWriter(
                text, list(dict.fromkeys(name for line in self.lines for name in line)), lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(self.lines)
            write_atomic(self.log, text.getvalue().encode())


def training_key(about: dict) -> str:
    """One line that is equal for equal data and settings."""
    return json.dumps(about, sort_keys=True)
