"""What the experiment asks of a painter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class Reference:
    """A library photo as a painter is shown it."""

    id: str
    image: Image.Image


Row = tuple[str, int, Sequence[Reference]]  # prompt, noise, references


class Painter(Protocol):
    """A generator that can be shown references, side by side: their order tells it nothing. Equal facts, prompt, noise
    and references promise the same picture."""

    facts: dict[str, Any]  # holds "name"
    batch: int  # as many rows are best painted together
    unit: str  # of `worth`

    def paint_many(self, rows: Sequence[Row]) -> list[Image.Image]:
        """The picture of each row's prompt from the noise of its seed. No references is the plain generator."""
        ...

    def worth(self, prompt: str, reference: Reference, targets: Sequence[Image.Image]) -> float:
        """How much better the generator explains these photos of what the prompt names when it sees the reference."""
        ...
