"""A sheet of pictures from one noise: without a reference, with the right one, with a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realrag.adapters.hooks import Base, Steered
from realrag.files import write_atomic
from realrag.miniature.painting import paint

from ..miniature.sheet import tile
from .cache import Cached
from .inputs import MiniatureInputs
from .pairs import Drawing
from .shuffle_gap import LOOKS
from .trainer import AdapterTraining

ROWS, STEPS = 8, 16


def rows_of(cached: Cached, count: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Prompts by name, photos of those classes, and photos of others; each class at most once."""
    drawing, rng = Drawing(cached), np.random.default_rng(seed)
    chosen = rng.permutation(drawing.rows)[:count]
    right = np.array([rng.choice(drawing.own[row]) for row in chosen])
    wrong = np.roll(right, 1)
    return [f"a photo of {cached.class_photos.groups[row].name}" for row in chosen], right, wrong


def columns(
    steered: Steered, inputs: MiniatureInputs, cached: Cached, seed: int = 0, count: int = ROWS, look: int = 0, **how
) -> list[Tensor]:
    """(B, 3, S, S) each, from the same noise: right reference, picture without, picture with it, wrong reference, picture
    with that."""
    prompts, right, wrong = rows_of(cached, count, seed)
    looks = np.full(len(right), look)
    noise = torch.randn(cached.target_latents(right, looks).shape, generator=torch.Generator().manual_seed(seed))
    shown = [inputs.autoencoder.decode(cached.target_latents(photos, looks)) for photos in (right, wrong)]
    made = [
        paint(steered, inputs.autoencoder, inputs.encoder.towers.text, prompts, noise, f, **{"steps": STEPS, **how})
        for f in (None, cached.image_features(right, looks), cached.image_features(wrong, looks))
    ]
    return [shown[0], made[0], made[1], shown[1], made[2]]


def save_sheet(path: Path, pictures: list[Tensor]) -> None:
    image = tile(torch.stack(pictures, 1).flatten(0, 1), len(pictures))
    write_atomic(path, lambda file: image.save(file, "PNG"))


def sheets_of(out: Path, log: Callable[[str], None]) -> Callable[[AdapterTraining, Base, MiniatureInputs], None]:
    """A function that draws sheets of seen and held-out classes, plain and augmented."""

    def draw(training: AdapterTraining, base: Base, inputs: MiniatureInputs) -> None:
        with training.averaged() as steered:
            for part, cached in training.parts.items():
                for look, suffix in enumerate(("", LOOKS)[: len(cached.features)]):
                    name = f"{out.stem}.{part}{suffix}.png".replace(" ", "-")
                    save_sheet(out.with_name(name), columns(steered, inputs, cached, look=look))
        log(f"drew sheets beside {out} after step {training.step}")

    return draw
