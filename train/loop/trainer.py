"""The trainer of the miniatures, adapters and the small encoder: AdamW, a running average of the weights, mean figures.

All randomness of a step depends on (seed, step), so a resumed run equals an uninterrupted one bit by bit on one machine
with the same versions.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import optimizer_tensors, restore_optimizer, under
from .training import Training


def epoch_rows(seed: int, step: int, batch: int, count: int) -> tuple[Tensor, Tensor]:
    """(B,) rows of this step, and the epoch of each. Every epoch visits all `count` rows in an order of its own; a
    batch may span two epochs."""
    rows, epochs = [], []
    for epoch in range(step * batch // count, ((step + 1) * batch - 1) // count + 1):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        part = order[max(0, step * batch - epoch * count) : (step + 1) * batch - epoch * count]
        rows.append(part)
        epochs.append(torch.full_like(part, epoch))
    return torch.cat(rows), torch.cat(epochs)


def decay_groups(weights: Iterable[nn.Parameter], **settings: Any) -> list[dict[str, Any]]:
    """Two parameter groups for AdamW: matrices with weight decay; biases, norms and scalars without."""
    weights = list(weights)
    matrices, others = [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim <= 1]
    return [{"params": matrices, **settings}, {"params": others, "weight_decay": 0.0, **settings}]


class AveragedTraining(Training):
    """A model, its AdamW, an exponential moving average of its weights, and the number of finished steps.

    optimizer: default AdamW with betas 0.9 and 0.99. A group's "lr_multiplier" multiplies `lr()` (default 1).
    """

    def __init__(
        self, model: nn.Module, *, steps: int, seed: int, clip: float, averaging: float, weight_decay: float = 0.0,
        optimizer: torch.optim.Optimizer | None = None,
    ):  # fmt: skip
        self.model, self.steps, self.seed, self.clip, self.averaging = model, steps, seed, clip, averaging
        self.optimizer = optimizer or torch.optim.AdamW(
            decay_groups(model.parameters()), weight_decay=weight_decay, betas=(0.9, 0.99)
        )
        self.average = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self._sums: dict[str, float] = {}
        self._counted, self._since = 0, time.monotonic()

    def lr(self) -> float:
        """The learning rate of the next step."""
        raise NotImplementedError

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """The loss of the step `self.step`, and figures to log. All its randomness is drawn from (seed, step)."""
        raise NotImplementedError

    def advance(self) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr() * group.get("lr_multiplier", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        loss, figures = self.loss()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(self.averaging, self.step / (self.step + 9))  # short at first, so the random start fades quickly
        own = dict(self.model.named_parameters())
        torch._foreach_lerp_(list(self.average.values()), [own[name].detach() for name in self.average], 1 - decay)
        figures = {"loss": loss.item(), **figures, "norm": norm.item()}
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._counted += 1
        return figures

    def figures(self) -> dict[str, float]:
        now, count = time.monotonic(), max(1, self._counted)
        means = {name: value / count for name, value in self._sums.items()}
        means |= {"rate": self.lr(), "seconds_a_step": (now - self._since) / count}
        self._sums, self._counted, self._since = {}, 0, now
        return means

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        return tensors | optimizer_tensors(self.optimizer), {"step": str(self.step)}

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        self.model.load_state_dict(under("model.", tensors))
        average = under("average.", tensors)
        self.average = {name: average[name].to(value.device) for name, value in self.average.items()}
        restore_optimizer(self.optimizer, tensors)
        self.step = int(metadata["step"])
