"""What a step minimises: eq. 8 and, where references were tried, how far the scores are from what they were worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .loss import LossConfig, contrastive_loss, utility_loss


@dataclass(frozen=True)
class Seen:
    """What a step's loss is taken over: unit vectors zq, zp (B, D) and, where there are any, negatives (B, K, D) and
    tried candidates (B, C, D) with their measured utility (B, C); `present` and `measured` say which of them are there.
    """

    queries: Tensor
    photos: Tensor
    classes: Tensor
    tau: Tensor | float
    negatives: Tensor | None = None
    present: Tensor | None = None
    candidates: Tensor | None = None
    utility: Tensor | None = None
    measured: Tensor | None = None

    def detached(self) -> Seen:
        return Seen(*(value.detach() if isinstance(value, Tensor) else value for value in vars(self).values()))


@dataclass(frozen=True)
class Objective:
    """beta: temperature of the utilities."""

    config: LossConfig
    beta: float

    def __call__(self, seen: Seen) -> Tensor:
        loss = seen.queries.new_zeros(()) if self.config.kind == "utility" else self._contrastive(seen, seen.negatives)
        return loss + self._worth(seen) if self.config.uses_utility else loss

    def _contrastive(self, seen: Seen, negatives: Tensor | None) -> Tensor:
        return contrastive_loss(
            seen.queries, seen.photos, self.config, classes=seen.classes, negatives=negatives, present=seen.present,
            tau=seen.tau,
        )  # fmt: skip

    def _worth(self, seen: Seen) -> Tensor:
        """The utility term with its weight, which is one where it stands alone."""
        weight = 1.0 if self.config.kind == "utility" else self.config.lambda_utility
        return weight * utility_loss(seen.queries, seen.candidates, seen.utility, seen.measured, seen.tau, self.beta)

    @torch.no_grad()
    def figures(self, loss: Tensor, seen: Seen) -> dict[str, Tensor]:
        """Of a step: its loss; the parts `normal` (eq. 8 without D_ref), `negatives` (what D_ref adds) and `utility`;
        and the margin, mean s(prompt, its photo) less s(prompt, the others), where the others are its negatives or,
        without any, the batch's photos of other classes."""
        none = torch.zeros_like(loss)
        normal = none if self.config.kind == "utility" else self._contrastive(seen, None)
        whole = normal if seen.negatives is None else self._contrastive(seen, seen.negatives)
        utility = self._worth(seen) if self.config.uses_utility else none
        if seen.negatives is None:
            scores, there = seen.queries @ seen.photos.T, seen.classes[:, None] != seen.classes[None, :]
        else:
            scores, there = torch.einsum("bd,bkd->bk", seen.queries, seen.negatives), seen.present
        others = (scores * there).sum() / there.sum().clamp_min(1)
        margin = (seen.queries * seen.photos).sum(1).mean() - others
        return {"loss": loss, "normal": normal, "negatives": whole - normal, "utility": utility, "margin": margin}
