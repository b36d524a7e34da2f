"""The reference-shuffle gap: what the loss loses when the reference shows another thing, at the same noise and noise
level.

The flow loss itself hardly moves when an adapter learns; this difference does, and stays at 0 where references are
ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from realrag.errors import RealRAGError

from ..stats import bootstrap
from .cache import Cached
from .pairs import Drawing

DRAWS = 2000  # of the bootstrap
LOOKS = " in looks"  # in the name of a part: its things in colours and shapes that they do not have
Velocity = Callable[..., Tensor]


class NoGap(RealRAGError):
    """The references have taught nothing for too long."""


@dataclass(frozen=True)
class Tuples:
    """Fixed (reference, target, noise, noise level); `wrong` shows another thing. (N, ...) each; things: the target's."""

    targets: Tensor
    right: Tensor
    wrong: Tensor
    states: Tensor
    pooled: Tensor
    noise: Tensor
    sigma: Tensor
    things: np.ndarray

    def __len__(self) -> int:
        return len(self.sigma)


def fixed_tuples(cached: Cached, count: int, levels: Callable[[Tensor], Tensor], seed: int, look: int = 0) -> Tuples:
    """All in one look. levels: standard normal numbers -> noise levels, as in training; here they are its quantiles."""
    dice, drawing = np.random.default_rng((seed, len(cached.things.photos))), Drawing(cached)
    pairs = drawing.draw(count, dice)
    wrong, looks = drawing.others(pairs, dice), np.full(count, look)
    targets = cached.pictures(pairs.targets, looks)
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(seed))
    places = torch.from_numpy((dice.permutation(count) + 0.5) / count).float()
    return Tuples(
        targets, cached.seen(pairs.references, looks), cached.seen(wrong, looks),
        *cached.said(pairs.sentences), noise, levels(torch.special.ndtri(places)),
        np.array(cached.things.rows)[pairs.targets],
    )  # fmt: skip


@torch.no_grad()
def losses(velocity: Velocity, tuples: Tuples, features: Tensor | None, batch: int = 32) -> np.ndarray:
    """(N,) flow matching losses of single tuples with these features; None: without any reference."""
    found = []
    for at in range(0, len(tuples), batch):
        part = slice(at, at + batch)
        sigma, noise, target = tuples.sigma[part], tuples.noise[part], tuples.targets[part]
        level = sigma[:, None, None, None]
        made = velocity(
            (1 - level) * target + level * noise, sigma, tuples.states[part], tuples.pooled[part],
            None if features is None else features[part],
        )  # fmt: skip
        found.append((made - (noise - target)).square().flatten(1).mean(1))
    return torch.cat(found).cpu().numpy()


@dataclass(frozen=True)
class Gap:
    """Mean of loss(wrong) - loss(right), its 95 % interval over things, the share of tuples in which it is above 0, and
    what the right reference saves against none."""

    mean: float
    low: float
    high: float
    share: float
    saved: float

    def __str__(self) -> str:
        return f"{self.mean:+.5f} [{self.low:+.5f}, {self.high:+.5f}], right wins {self.share:.0%}, saves {self.saved:+.5f}"


def measure(velocity: Velocity, tuples: Tuples, seed: int = 0) -> Gap:
    right, wrong, none = (losses(velocity, tuples, features) for features in (tuples.right, tuples.wrong, None))
    apart = wrong - right
    mean, low, high = bootstrap(apart, tuples.things, seed, DRAWS)
    return Gap(mean, low, high, float((apart > 0).mean()), float((none - right).mean()))


def check(history: list[dict], patience: int) -> None:
    """NoGap when the last positive gap on seen things, plain or in another look, lies `patience` steps back.

    history: {"step", "seen", and perhaps LOOKS} in order.
    """
    if not patience or not history:
        return
    good = max((line["step"] for line in history if max(line["seen"], line.get(f"seen{LOOKS}", 0.0)) > 0), default=0)
    if history[-1]["step"] - good >= patience:
        raise NoGap(
            f"The reference-shuffle gap has not been above 0 for {patience} steps (now {history[-1]['seen']:+.6f}): the "
            "adapter ignores its references. Everything is kept. Check that the pairs show the same thing, try a higher "
            "rate or more looks, or raise `patience` in [guard]."
        )
