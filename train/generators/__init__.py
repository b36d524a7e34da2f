"""Who draws: a running ComfyUI, a diffusers pipeline, a folder of pictures drawn elsewhere, or a stand-in for tests.

A generator is anything with `facts` (JSON: all that decides its pictures) and `draw(prompt, seed) -> PIL picture`."""

from __future__ import annotations

from typing import Any, Protocol


class Generator(Protocol):
    facts: dict[str, Any]  # holds "name"; equal facts, prompt and seed promise the same picture

    def draw(self, prompt: str, seed: int) -> Any:
        """The PIL picture of `prompt`. Raises GeneratorError, which says what to do."""
        ...
