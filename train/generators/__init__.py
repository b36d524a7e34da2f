"""Generators: a running ComfyUI, a diffusers pipeline, a folder of finished pictures, or a stand-in for tests.

A generator has `metadata` (JSON: everything that decides its pictures) and `draw(prompt, seed) -> PIL picture`. What is
done with the pictures does not enter.
"""

from __future__ import annotations

from typing import Any, Protocol


class Generator(Protocol):
    metadata: dict[str, Any]  # with "name"; equal metadata, prompt and seed give the same picture

    def draw(self, prompt: str, seed: int) -> Any:
        """The PIL picture of `prompt`. Raises GeneratorError, whose message has the cure."""
        ...
