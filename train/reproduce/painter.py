"""The interface of a painter: a generator that the experiment can show references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class Reference:
    """A library photo, as a painter gets it."""

    id: str
    image: Image.Image


Row = tuple[str, int, Sequence[Reference]]  # prompt, noise, references


class Painter(Protocol):
    """A generator that takes references side by side, in any order. Equal metadata, prompt, noise and references give the
    same picture."""

    metadata: dict[str, Any]  # holds "name"
    batch: int  # the number of rows to paint at once
    unit: str  # of `utility`

    def paint_many(self, rows: Sequence[Row]) -> list[Image.Image]:
        """The picture of each row's prompt from the noise of its seed. Rows without references get the plain
        generator."""
        ...

    def utility(self, prompt: str, reference: Reference, targets: Sequence[Image.Image]) -> float:
        """How much better the generator explains photos of the prompt's class (`targets`) when it sees the reference."""
        ...
