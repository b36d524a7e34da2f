"""A recipe's run on a world: its generator is the painter, and the arm `utility` learns from what that painter gains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from realrag.bundle.bundle import Bundle

from ..contrastive.loss import LossConfig
from ..contrastive.utility import candidates, measure_utility
from ..dataset import load_material
from ..retriever.run import Run
from .paint_arms import WithoutReferences
from .painter import Painter
from .reference_utility import CANDIDATES, ReferenceUtility


class RetrieverRun(Run):
    """A recipe's run whose drawings come from a painter without references."""

    painter: Painter
    validation: Path

    def utility(self) -> None:
        """utility.safetensors: the utility of the top photos for each prompt: how much each lowers the generator's loss."""
        if "utility" in self.recipe.evaluate.arms:
            library, prompts, out = self._open(self.library), self._prompts(), self.folder / "utility.safetensors"
            rows = candidates(load_material(library, self.encoder, prompts), CANDIDATES)
            measure_utility(
                library,
                prompts,
                rows,
                ReferenceUtility(self.painter, prompts, self.validation),
                out,
                progress=self.in_time,
            )
            self.recipe = replace(self.recipe, data=replace(self.recipe.data, utility=str(out)))

    def _loss(self, arm: str) -> LossConfig:
        """`utility` is the loss of `normal` plus the measured utility. Utility alone does not constrain photos that were
        not measured, and those soon rank first."""
        return super()._loss(arm) if arm != "utility" else replace(self.recipe.loss, kind="normal", lambda_utility=1.0)

    def _conclude(self, report: dict) -> None:
        """Nothing: the experiment's own endpoints decide, and there is no retriever to copy anywhere."""

    def _generator(self, library: Bundle) -> WithoutReferences:
        return WithoutReferences(self.painter)
