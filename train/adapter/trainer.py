"""The training itself: flow matching through a generator, frozen or learning along, to which the adapter shows another
photo of the target."""

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

from ..loop.trainer import Training, held
from .cache import Cached
from .pairs import Drawing
from .recipe import FitConfig, GuardConfig
from .shuffle_gap import LOOKS, Gap, check, fixed_tuples, measure

FIXED_SEED = 0  # of the tuples: the same for every run


@dataclass(frozen=True)
class Material:
    """train; seen: other photos of things that are trained on; held_out: things that are not, or None."""

    train: Cached
    seen: Cached
    held_out: Cached | None = None


class Together(nn.Module):
    """An adapter and the generator that learns along with it, as one model to train."""

    def __init__(self, adapter: nn.Module, net: nn.Module):
        super().__init__()
        self.adapter, self.net = adapter, net.requires_grad_(True)


class AdapterTraining(Training):
    """The step, its dice all drawn from (seed, step), and the gap on fixed tuples now and then.

    shift: of noise levels. plain, cousins: what `Drawing` says.
    """

    def __init__(
        self, steered: Steered, material: Material, fit: FitConfig, guard: GuardConfig, shift: float = 1.0,
        plain: float = 0.5, cousins: float = 0.0, device: str | torch.device = "cpu",
    ):  # fmt: skip
        super().__init__(
            Together(steered.adapter, steered.base.net) if fit.together else steered.adapter,
            steps=fit.steps,
            seed=fit.seed,
            weight_decay=fit.weight_decay,
            clip=fit.clip,
            averaging=fit.averaging,
        )
        if fit.optimiser == "adamw8bit":
            self.optimiser = eight_bit(self.optimiser)
        self.steered, self.fit, self.guard, self.shift, self.device = steered, fit, guard, shift, torch.device(device)
        self.cached = material.train
        self.drawing = Drawing(material.train, (fit.drop_image, fit.drop_text, fit.drop_both), plain, cousins)
        parts = {"seen": material.seen, "held out": material.held_out}
        self.parts = {name: part for name, part in parts.items() if part is not None}

        def tuples(part, look):
            return fixed_tuples(part, guard.tuples, self.levels, FIXED_SEED, look)

        self.tuples = {name: tuples(part, 0) for name, part in self.parts.items()}
        self.tuples |= {
            f"{name}{LOOKS}": tuples(part, 1) for name, part in self.parts.items() if len(part.features) > 1
        }
        self.history: list[dict] = []  # {"step", "seen", "seen low", ...}
        self.latest: dict[str, Gap] = {}

    def rate(self) -> float:
        return self.fit.rate * held(self.step, self.steps, self.fit.warm_up, self.fit.cool_down)

    def levels(self, normal: Tensor) -> Tensor:
        """Standard normal numbers -> noise levels in 0..1: logit-normal, moved towards more noise."""
        return shifted(torch.sigmoid(self.fit.spread * normal), self.shift)

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        cached, total = self.cached, 0.0
        for part in range(self.fit.accumulate):
            dice = np.random.default_rng((self.seed, self.step, part))
            pairs = self.drawing.draw(self.fit.batch, dice)
            target = cached.pictures(pairs.targets, pairs.looks).to(self.device)
            features = cached.seen(pairs.references, pairs.looks).to(self.device)
            sentences = np.where(pairs.text, pairs.sentences, len(cached.states) - 1)
            states, pooled = (t.to(self.device) for t in cached.said(sentences))
            sigma = self.levels(torch.from_numpy(dice.standard_normal(self.fit.batch)).float()).to(self.device)
            noise = torch.from_numpy(dice.standard_normal(target.shape, np.float32)).to(self.device)
            level = sigma[:, None, None, None]  # (B, 1, 1, 1): each row has a noise level of its own
            shown = torch.from_numpy(pairs.image).to(self.device)
            # A generator that learns along stays one that needs no adapter: of the rows without a reference it sees
            # half so.
            alone = ~shown & torch.from_numpy(dice.random(len(shown)) < 0.5).to(shown) if self.fit.together else None
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
        """NoGap when references have taught nothing for too long; the state is then that after the step."""
        figures = super().advance()
        if self.step % self.guard.every == 0 or self.step == self.steps:
            self.watch()
            check(self.history, self.guard.patience)
        return figures

    def watch(self) -> dict[str, Gap]:
        """The gap of the averaged weights, which are those that are kept, on each part."""
        with self.averaged(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.fit.autocast):
            self.latest = {name: measure(self._moved, tuples) for name, tuples in self.tuples.items()}
        line: dict = {"step": self.step}
        for name, gap in self.latest.items():
            line |= {name: gap.mean, f"{name} low": gap.low, f"{name} high": gap.high, f"{name} right wins": gap.share}
            line |= {f"{name} saved": gap.saved}
        self.history.append(line)
        return self.latest

    @contextmanager
    def averaged(self) -> Iterator[Steered]:
        """Adapter and generator with the averaged weights for a while."""
        self._swap()
        try:
            yield self.steered
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self.model.named_parameters():
            weight.data, self.average[name] = self.average[name], weight.data

    def kept(self, part: str) -> dict[str, Tensor]:
        """The averaged weights of the "adapter", or of the "net" that learnt along ({} where it did not)."""
        if not self.fit.together:
            return self.average if part == "adapter" else {}
        return {n.removeprefix(f"{part}."): w for n, w in self.average.items() if n.startswith(f"{part}.")}

    def _moved(self, *parts: Tensor | None) -> Tensor:
        return self.steered.velocity(*(None if part is None else part.to(self.device) for part in parts)).float().cpu()

    def resume(self, path, key: str) -> None:
        super().resume(path, key)
        if self.fit.optimiser == "adamw8bit":  # it counts in plain numbers
            for state in self.optimiser.state.values():
                state["step"] = int(state["step"])


def eight_bit(optimiser: torch.optim.AdamW) -> torch.optim.Optimizer:
    """The same groups under bitsandbytes' AdamW, whose moments take two bytes a weight and not eight."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise RealRAGError(
            "optimiser = 'adamw8bit' needs bitsandbytes: pip install bitsandbytes, or use 'adamw'."
        ) from None
    groups = [{key: group[key] for key in ("params", "weight_decay")} for group in optimiser.param_groups]
    return AdamW8bit(groups, betas=optimiser.defaults["betas"])
