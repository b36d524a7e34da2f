"""What a training offers to `Watch`: steps, figures to log, and a state that a checkpoint keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from realrag.errors import RealRAGError

from . import checkpoint


class StepAbandoned(Exception):
    """A long step ended early on request, before it changed anything."""


class Training(ABC):
    """A training of `steps` steps, of which `step` are finished. All randomness of a step depends on (seed, step)."""

    step: int = 0
    steps: int
    rank: int = 0
    world_size: int = 1
    device: Any = "cpu"
    columns: tuple[str, ...] = ()  # of the log, in this order; other figures follow
    measured: bool = False  # the last step ended with a measurement, which is logged at once
    stop_asked: Callable[[], bool] = staticmethod(lambda: False)  # a long step may ask, and raise StepAbandoned

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    @abstractmethod
    def advance(self) -> Any:
        """One step."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """Figures to log: of the last step, or means since this was last asked."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata of a checkpoint."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Take over what `state` gave."""

    def save(self, path: Path, key: str) -> None:
        checkpoint.save(path, key, *self.state())

    def resume(self, path: Path, key: str) -> None:
        """Continue from a checkpoint. RealRAGError when it was made with another key, is broken or does not fit."""
        loaded = checkpoint.load(path, key, self.key_of)
        try:
            self.restore(*loaded)
        except (KeyError, ValueError, RuntimeError) as error:
            raise RealRAGError(f"The checkpoint {path} does not fit ({error}). {checkpoint.CURE}") from None

    @staticmethod
    def key_of(metadata: dict[str, str]) -> str | None:
        return metadata.get("key")
