"""Looks at the generator's drawings: those of one color, equal ones and failed ones teach nothing and are left out."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np

from realrag.files import sha256_bytes

from ..generators.errors import GeneratorError

FLAT = 3.0  # standard deviation of 8-bit values below which a picture is of one color; JPEG noise stays below 1
FEW = 3  # bad drawings before which no fraction is looked at
SIDE = 64

Place = tuple[str, int]  # (prompt, seed)


class Drawings:
    """What was seen so far of `total` drawings. most: fraction of bad ones above which `add` and `failed` stop the run;
    before the end they do so where that fraction is exceeded by far."""

    def __init__(self, total: int, most: float):
        self.total, self.most = total, most
        self.bad: dict[Place, str] = {}
        self._first: dict[str, Place] = {}
        self._looked = 0

    def add(self, place: Place, data: bytes) -> None:
        """Look at a drawing's JPEG bytes. GeneratorError, with the cause, when too many are bad."""
        self._looked += 1
        if color := one_color(data):
            self.bad[place] = f"it is {color} all over"
        else:
            other = self._first.setdefault(sha256_bytes(data), place)
            if other != place and other[0] == place[0]:
                self.bad[place] = f"it equals that of seed {other[1]}"
            elif other != place:
                self.bad[place] = f"it equals that of {other[0]!r}"
                self.bad.setdefault(other, f"it equals that of {place[0]!r}")
        self._check()

    def failed(self, place: Place, error: Exception) -> None:
        """Note a drawing that the generator could not make. GeneratorError when too many are bad."""
        self._looked += 1
        self.bad[place] = f"it failed: {error}"
        self._check()

    def _check(self) -> None:
        count, expected = len(self.bad), self.most * self._looked
        by_chance = 3 * (expected * (1 - self.most)) ** 0.5  # three standard deviations of a fraction `most`
        at_the_end = self._looked >= self.total and count > expected
        if count >= FEW and (at_the_end or count > expected + by_chance):
            first = "\n".join(f"- {text}" for text in self.named(3))
            raise GeneratorError(
                f"{len(self.bad)} of the first {self._looked} drawings cannot be used, more than max_bad {self.most:g} "
                f"([imagine] in the recipe):\n{first}\n{self.cause()} Finished pictures are kept."
            )

    def named(self, most: int) -> list[str]:
        """'"a photo of a mug", seed 0: it is black all over' of the first bad ones."""
        return [f"{prompt!r}, seed {seed}: {why}" for (prompt, seed), why in list(self.bad.items())[:most]]

    def cause(self) -> str:
        """What most probably made most of the bad ones, and the cure."""
        kinds = Counter(_kind(why) for why in self.bad.values())
        return CAUSES[kinds.most_common(1)[0][0]]

    def report(self) -> dict:
        """For imagine.json: {"bad": how many, "named": of the first ones prompt, seed and reason}."""
        return {"bad": len(self.bad), "named": self.named(20)}


CAUSES = {
    "black": "Black pictures come from a safety filter, or from a model in a number format that the GPU overflows "
    "(in ComfyUI: --fp32-vae or --force-fp32). Look at one in ComfyUI's own window.",
    "flat": "Pictures of one color come from a workflow that samples no steps or decodes with the wrong VAE. Run it once in "
    "ComfyUI's own window.",
    "equal": "Equal pictures for different prompts mean that the prompt does not reach the model, or that a safety filter puts "
    "one picture in place of many. Check which node takes the prompt: --prompt-node TITLE.",
    "seed": "Equal pictures for different seeds mean that the seed does not reach the sampler. Check --seed-node TITLE.",
    "failed": "The generator fails. Run the workflow once in ComfyUI's own window.",
}  # fmt: skip


def _kind(why: str) -> str:
    if why.startswith("it failed"):
        return "failed"
    if "seed" in why and why.startswith("it equals"):
        return "seed"
    if why.startswith("it equals"):
        return "equal"
    return "black" if "black" in why else "flat"


def one_color(data: bytes) -> str:
    """The color of a picture that has only one, or ""."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (SIDE, SIDE))
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    if pixels.std((0, 1)).max() >= FLAT:
        return ""
    red, green, blue = (round(float(value)) for value in pixels.mean((0, 1)))
    if max(red, green, blue) < 16:
        return "black"
    return "white" if min(red, green, blue) > 239 else f"#{red:02x}{green:02x}{blue:02x}"


def usable(drawn: np.ndarray) -> np.ndarray:
    """(P, S) bools of (P, S, D) vectors: which drawings were made and looked right. Others are zero."""
    return np.isfinite(drawn).all(-1) & drawn.any(-1)
