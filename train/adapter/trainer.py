"""The training: flow matching through a generator, frozen or trained jointly, with the adapter conditioned on another
photo of the target's class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from realrag.adapters.hooks import Steered
from realrag.errors import RealRAGError
from realrag.miniature.sampling import shifted

from ..loop.schedule import warmup_stable_decay
from ..loop.trainer import AveragedTraining
from .cache import Cached
from .pairs import Drawing
from .recipe import AdapterFitConfig, GuardConfig
from .shuffle_gap import LOOKS, ShuffleGap, check, fixed_tuples, measure

FIXED_SEED = 0  # of the tuples: the same for every run


@dataclass(frozen=True)
class AdapterData:
    """train; seen: other photos of classes that are trained on; held_out: classes that are not, or None."""

    train: Cached
    seen: Cached
    held_out: Cached | None = None


class Together(nn.Module):
    """An adapter and the generator trained jointly with it, as one model."""

    def __init__(self, adapter: nn.Module, net: nn.Module):
        super().__init__()
        self.adapter, self.net = adapter, net.requires_grad_(True)


class AdapterTraining(AveragedTraining):
    """Flow matching with references, and the shuffle gap on fixed tuples every `guard.every` steps.

    shift: of noise levels. plain, confusable: see `Drawing`.
    """

    def __init__(
        self, steered: Steered, data: AdapterData, fit: AdapterFitConfig, guard: GuardConfig, shift: float = 1.0,
        plain: float = 0.5, confusable: float = 0.0, device: str | torch.device = "cpu",
    ):  # fmt: skip
        super().__init__(
            Together(steered.adapter, steered.base.net) if fit.together else steered.adapter, steps=fit.steps,
            seed=fit.seed, weight_decay=fit.weight_decay, clip=fit.clip, averaging=fit.averaging,
        )  # fmt: skip
        if fit.optimiser == "adamw8bit":
            self.optimizer = eight_bit(self.optimizer)
        self.steered, self.fit, self.guard, self.shift, self.device = steered, fit, guard, shift, torch.device(device)
        self.cached = data.train
        self.drawing = Drawing(data.train, (fit.drop_image, fit.drop_text, fit.drop_both), plain, confusable)
        parts = {"seen": data.seen, "held out": data.held_out}
        self.parts = {name: part for name, part in parts.items() if part is not None}

        def tuples(part, look):
            return fixed_tuples(part, guard.tuples, self.levels, FIXED_SEED, look)

        self.tuples = {name: tuples(part, 0) for name, part in self.parts.items()}
        self.tuples |= {
            f"{name}{LOOKS}": tuples(part, 1) for name, part in self.parts.items() if len(part.features) > 1
        }
        self.history: list[dict] = []  # {"step", "seen", "seen low", ...}
        self.latest: dict[str, ShuffleGap] = {}

    def lr(self) -> float:
        return self.fit.rate * warmup_stable_decay(self.step, self.steps, self.fit.warm_up, self.fit.cool_down)

    def levels(self, normal: Tensor) -> Tensor:
        """Standard normal numbers -> noise levels in 0..1: logit-normal, shifted toward more noise."""
        return shifted(torch.sigmoid(self.fit.spread * normal), self.shift)

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        cached, total = self.cached, 0.0
        for part in range(self.fit.accumulate):
            rng = np.random.default_rng((self.seed, self.step, part))
            pairs = self.drawing.draw(self.fit.batch, rng)
            target = cached.target_latents(pairs.targets, pairs.looks).to(self.device)
            features = cached.image_features(pairs.references, pairs.looks).to(self.device)
            sentences = np.where(pairs.text, pairs.sentences, len(cached.states) - 1)
            states, pooled = (t.to(self.device) for t in cached.text_states(sentences))
            sigma = self.levels(torch.from_numpy(rng.standard_normal(self.fit.batch)).float()).to(self.device)
            noise = torch.from_numpy(rng.standard_normal(target.shape, np.float32)).to(self.device)
            level = sigma[:, None, None, None]  # (B, 1, 1, 1): each row has a noise level of its own
            shown = torch.from_numpy(pairs.image).to(self.device)
            # A generator trained jointly must also work without the adapter: half of the rows without a reference
            # bypass it.
            alone = ~shown & torch.from_numpy(rng.random(len(shown)) < 0.5).to(shown) if self.fit.together else None
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.fit.autocast):
                made = self.steered.velocity(
                    (1 - level) * target + level * noise, sigma, states, pooled, features, shown, alone
                )
            loss = (made.float() - (noise - target)).square().mean() / self.fit.accumulate
            if part < self.fit.accumulate - 1:
                loss.backward()
            total = total + loss.detach()
        return loss + (total - loss.detach()), {}

    def advance(self) -> dict[str, float]:
        """NoGap when the adapter has ignored its references for too long; the step itself is complete."""
        figures = super().advance()
        if self.step % self.guard.every == 0 or self.step == self.steps:
            self.measure_gap()
            check(self.history, self.guard.patience)
        return figures

    def measure_gap(self) -> dict[str, ShuffleGap]:
        """The gap of the averaged weights, which are the ones written, on each part."""
        with self.averaged(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.fit.autocast):
            self.latest = {name: measure(self._velocity, tuples) for name, tuples in self.tuples.items()}
        line: dict = {"step": self.step}
        for name, gap in self.latest.items():
            line |= {
                name: gap.mean,
                f"{name} low": gap.low,
                f"{name} high": gap.high,
                f"{name} right wins": gap.right_wins,
            }
            line |= {f"{name} saved": gap.saved}
        self.history.append(line)
        return self.latest

    @contextmanager
    def averaged(self) -> Iterator[Steered]:
        """Adapter and generator hold the averaged weights inside the context."""
        self._swap()
        try:
            yield self.steered
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self.model.named_parameters():
            weight.data, self.average[name] = self.average[name], weight.data

    def averaged_weights(self, part: str) -> dict[str, Tensor]:
        """The averaged weights of the "adapter", or of the jointly trained "net" ({} for a frozen one)."""
        if not self.fit.together:
            return self.average if part == "adapter" else {}
        return {n.removeprefix(f"{part}."): w for n, w in self.average.items() if n.startswith(f"{part}.")}

    def _velocity(self, *parts: Tensor | None) -> Tensor:
        return self.steered.velocity(*(None if part is None else part.to(self.device) for part in parts)).float().cpu()

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        super().restore(tensors, metadata)
        if self.fit.optimiser == "adamw8bit":  # bitsandbytes counts steps as Python ints
            for state in self.optimizer.state.values():
                state["step"] = int(state["step"])


def eight_bit(optimizer: torch.optim.AdamW) -> torch.optim.Optimizer:
    """bitsandbytes' AdamW with the same groups: its moments take two bytes a weight instead of eight."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise RealRAGError(
            "optimiser = 'adamw8bit' needs bitsandbytes: pip install bitsandbytes, or use 'adamw'."
        ) from None
    groups = [{key: group[key] for key in ("params", "weight_decay")} for group in optimizer.param_groups]
    return AdamW8bit(groups, betas=optimizer.defaults["betas"])
