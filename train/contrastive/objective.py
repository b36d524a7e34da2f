"""The objective of a step: eq. 8 and, where references were tried, the distance of scores from measured utility."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .loss import LossConfig, contrastive_loss, utility_loss


@dataclass(frozen=True)
class StepTensors:
    """The tensors of one step: photos zp (B, D) and their classes (B,), and the U different prompts zq (U, D), unit vectors
    all; place (B,) is the row of each photo's prompt. Optionally each prompt's negatives (U, K, D) and tried candidates
    (U, C, D) with their measured utility (U, C). `present` and `measured` mark the rows that exist."""

    queries: Tensor
    photos: Tensor
    classes: Tensor
    place: Tensor
    tau: Tensor | float
    negatives: Tensor | None = None
    present: Tensor | None = None
    candidates: Tensor | None = None
    utility: Tensor | None = None
    measured: Tensor | None = None

    def detached(self) -> StepTensors:
        return StepTensors(*(value.detach() if isinstance(value, Tensor) else value for value in vars(self).values()))


@dataclass(frozen=True)
class Objective:
    """beta: temperature of the utilities."""

    config: LossConfig
    beta: float

    def __call__(self, tensors: StepTensors) -> Tensor:
        loss = (
            tensors.queries.new_zeros(())
            if self.config.kind == "utility"
            else self._contrastive(tensors, tensors.negatives)
        )
        return loss + self._utility(tensors) if self.config.uses_utility else loss

    def _contrastive(self, tensors: StepTensors, negatives: Tensor | None) -> Tensor:
        return contrastive_loss(
            tensors.queries, tensors.photos, self.config, classes=tensors.classes, negatives=negatives, present=tensors.present,
            tau=tensors.tau, place=tensors.place,
        )  # fmt: skip

    def _utility(self, tensors: StepTensors) -> Tensor:
        """The utility term with its weight, which is one where it stands alone."""
        weight = 1.0 if self.config.kind == "utility" else self.config.lambda_utility
        return weight * utility_loss(
            tensors.queries,
            tensors.candidates,
            tensors.utility,
            tensors.measured,
            tensors.tau,
            self.beta,
            tensors.place,
        )

    @torch.no_grad()
    def figures(self, loss: Tensor, tensors: StepTensors) -> dict[str, Tensor]:
        """Of a step: its loss; the parts `normal` (eq. 8 without D_ref), `negatives` (what D_ref adds) and `utility`;
        and the margin, mean s(prompt, its photo) less s(prompt, the others), where the others are its negatives or,
        without any, the batch's photos of other classes."""
        none = torch.zeros_like(loss)
        normal = none if self.config.kind == "utility" else self._contrastive(tensors, None)
        whole = normal if tensors.negatives is None else self._contrastive(tensors, tensors.negatives)
        utility = self._utility(tensors) if self.config.uses_utility else none
        queries, place = tensors.queries[tensors.place], tensors.place
        if tensors.negatives is None:
            scores, there = queries @ tensors.photos.T, tensors.classes[:, None] != tensors.classes[None, :]
        else:
            scores = torch.einsum("ud,ukd->uk", tensors.queries, tensors.negatives)[place]
            there = tensors.present[place]
        others = (scores * there).sum() / there.sum().clamp_min(1)
        margin = (queries * tensors.photos).sum(1).mean() - others
        return {"loss": loss, "normal": normal, "negatives": whole - normal, "utility": utility, "margin": margin}
