"""Reference utility: how much a reference lowers the flow-matching loss of the generator that will see it. The arm
`utility` learns from it in addition to the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image

from realrag.photos.decode import decode, read_bytes

from ..dataset import Prompt
from ..pictures.arms import class_key
from .painter import Painter, Reference

CANDIDATES = 8  # photos tried per prompt: the nearest by the starting encoder
TARGETS = 4  # photos of the class that the generator has to explain


class ReferenceUtility:
    """A Meter of `measure_utility`. Targets are validation photos. They are in no library, so no photo explains
    itself."""

    def __init__(self, painter: Painter, prompts: Sequence[Prompt], validation: Path):
        self.painter = painter
        self.name, self.unit = f"{painter.metadata['name']}, {TARGETS} validation photos", painter.unit
        folders = {class_key(folder.name): folder for folder in validation.iterdir() if folder.is_dir()}
        of_prompt = {prompt.prompt: folders.get(class_key(prompt.class_name)) for prompt in prompts}

        @lru_cache(1)
        def targets(prompt: str) -> tuple[Image.Image, ...]:
            files = sorted(of_prompt[prompt].glob("*.jpg"))[:TARGETS] if of_prompt[prompt] else []
            return tuple(decode(read_bytes(file), file.name) for file in files)

        self.targets: Callable[[str], tuple[Image.Image, ...]] = targets

    def __call__(self, prompt: str, photo: Image.Image, id: str) -> float:
        """The utility of one photo for one prompt, in `unit`; 0 for a class without validation photos."""
        shown = self.targets(prompt)
        return self.painter.utility(prompt, Reference(id, photo), shown) if shown else 0.0
