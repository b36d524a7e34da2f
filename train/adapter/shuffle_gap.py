"""The reference-shuffle gap: how much the loss rises when the reference shows another class, at the same noise level.

The flow loss itself hardly changes when an adapter learns; this difference does, and stays at 0 where references are
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
LOOKS = " in looks"  # in the name of a part: its classes, augmented
Velocity = Callable[..., Tensor]


class NoGap(RealRAGError):
    """The adapter has ignored its references for too long."""


@dataclass(frozen=True)
class Tuples:
    """Fixed (reference, target, noise, noise level), (N, ...) each. wrong: of another class. classes: the target's."""

    targets: Tensor
    right: Tensor
    wrong: Tensor
    states: Tensor
    pooled: Tensor
    noise: Tensor
    sigma: Tensor
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.sigma)


def fixed_tuples(cached: Cached, count: int, levels: Callable[[Tensor], Tensor], seed: int, look: int = 0) -> Tuples:
    """All in one augmentation. levels: standard normal numbers -> noise levels, as in training; here at its quantiles."""
    rng, drawing = np.random.default_rng((seed, len(cached.class_photos.photos))), Drawing(cached)
    pairs = drawing.draw(count, rng)
    wrong, looks = drawing.others(pairs, rng), np.full(count, look)
    targets = cached.target_latents(pairs.targets, looks)
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(seed))
    places = torch.from_numpy((rng.permutation(count) + 0.5) / count).float()
    return Tuples(
        targets, cached.image_features(pairs.references, looks), cached.image_features(wrong, looks),
        *cached.text_states(pairs.sentences), noise, levels(torch.special.ndtri(places)),
        np.array(cached.class_photos.rows)[pairs.targets],
    )  # fmt: skip


@torch.no_grad()
def losses(velocity: Velocity, tuples: Tuples, features: Tensor | None, batch: int = 32) -> np.ndarray:
    """(N,) flow matching losses of single tuples with these features; None: without a reference."""
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
class ShuffleGap:
    """Mean of loss(wrong) - loss(right), its 95 % interval over classes, the fraction of tuples in which it is above 0,
    and how much the right reference lowers the loss compared with none."""

    mean: float
    low: float
    high: float
    right_wins: float
    saved: float

    def __str__(self) -> str:
        return f"{self.mean:+.5f} [{self.low:+.5f}, {self.high:+.5f}], right wins {self.right_wins:.0%}, saves {self.saved:+.5f}"


def measure(velocity: Velocity, tuples: Tuples, seed: int = 0) -> ShuffleGap:
    right, wrong, none = (losses(velocity, tuples, features) for features in (tuples.right, tuples.wrong, None))
    apart = wrong - right
    mean, low, high = bootstrap(apart, tuples.classes, seed, DRAWS)
    return ShuffleGap(mean, low, high, float((apart > 0).mean()), float((none - right).mean()))


def check(history: list[dict], patience: int) -> None:
    """NoGap when the last positive gap on seen classes, plain or augmented, is `patience` steps old.

    history: {"step", "seen", and perhaps LOOKS} in order.
    """
    if not patience or not history:
        return
    good = max((line["step"] for line in history if max(line["seen"], line.get(f"seen{LOOKS}", 0.0)) > 0), default=0)
    if history[-1]["step"] - good >= patience:
        raise NoGap(
            f"The reference-shuffle gap has not been above 0 for {patience} steps (now {history[-1]['seen']:+.6f}): the "
            "adapter ignores its references. Everything is saved. Check that pairs show the same class, try a higher "
            "rate or more looks, or raise `patience` in [guard]."
        )
