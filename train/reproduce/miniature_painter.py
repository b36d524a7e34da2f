"""The miniatures as painters of the experiment: a small generator of ours with the adapter that was trained with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from realrag.adapters import load_adapter
from realrag.adapters.hooks import Steered
from realrag.encoders.load import load_encoder
from realrag.files import sha256_file
from realrag.miniature.autoencoder import load_autoencoder
from realrag.miniature.generator import load_generator
from realrag.miniature.painting import CHUNK, Miniature, noise_of, paint
from realrag.miniature.sampling import FAMILIES, shifted
from realrag.miniature.text import encode_prompts
from realrag.native_bf16 import bf16_autocast

from ..miniature.world import SIZE, square
from .config import Painting
from .painter import Reference

LEVELS = 4  # noise levels at which a reference's utility is measured


class MiniaturePainter:
    """Encodes references and prompts with the two towers of the encoder that the adapter was trained with."""

    batch, unit = CHUNK, "mean squared error of the velocity"

    def __init__(self, config: Painting, own_prompts: dict[str, str] | None = None):
        """own_prompts: what the generator reads instead of a prompt, if it knows the class by another name."""
        self.own_prompts = own_prompts or {}
        files = {name: Path(getattr(config, name)) for name in config.paths}
        self.encoder, self.autoencoder = load_encoder(), load_autoencoder(files["autoencoder"])
        base = Miniature(load_generator(files["generator"]))
        self.steered = Steered(base, load_adapter(files["adapter"]).float(), config.strength)
        self.steered.adapter.spec.check_encoder(self.encoder.adapter_sha256)
        self.steps, self.cfg = config.steps, config.cfg
        self.explained: tuple = ("", None)  # the last prompt of `utility`, and its loss function
        self.states: dict[str, Tensor] = {}  # of references, in half precision: the same ones come again and again
        self.metadata = {
            "name": base.name, **{name: sha256_file(file) for name, file in files.items()}, "strength": config.strength,
            "steps": config.steps, "cfg": config.cfg, "encoder": self.encoder.weights_sha256,
        }  # fmt: skip

    def see(self, reference: Reference) -> Tensor:
        """(L, E)"""
        if reference.id not in self.states:
            seen = self.encoder.encode_features(self.encoder.prepare(reference.image)[None]).penultimate
            self.states[reference.id] = seen[0].half()
        return self.states[reference.id].float()

    @torch.no_grad()
    def utility(self, prompt: str, reference: Reference, targets: Sequence[Image.Image]) -> float:
        """How far the flow-matching loss on the targets falls, at LEVELS noise levels with one noise for each target."""
        if prompt != self.explained[0]:
            self.explained = prompt, self._explain(prompt, targets)
        loss, without = self.explained[1]
        return float(without - loss(self.see(reference)[None]))

    def _explain(self, prompt: str, targets: Sequence[Image.Image]) -> tuple[Callable[[Tensor | None], float], float]:
        """The loss as a function of a reference's states (1, L, E), and its value without a reference."""
        pixels = np.stack([np.asarray(square(image, SIZE)) for image in targets])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        latents = self.autoencoder.encode(x).repeat(LEVELS, 1, 1, 1)
        noise = noise_of(len(targets), 0).repeat(LEVELS, 1, 1, 1)
        quantiles = torch.special.ndtri((torch.arange(LEVELS) + 0.5) / LEVELS).sigmoid()
        sigma = shifted(quantiles, FAMILIES[self.steered.base.family].time_shift).repeat_interleave(len(targets))
        texts = [
            each.expand(len(sigma), *each.shape[1:])
            for each in encode_prompts(self.encoder.towers.text, [self.own_prompts.get(prompt, prompt)])
        ]

        def loss(states: Tensor | None) -> float:
            level = sigma[:, None, None, None]
            shown = None if states is None else states.expand(len(sigma), -1, -1)
            with bf16_autocast("cpu"):
                velocity = self.steered.velocity((1 - level) * latents + level * noise, sigma, *texts, shown)
            return float((velocity.float() - (noise - latents)).square().mean())

        return loss, loss(None)

    def paint_many(self, rows: Sequence[tuple[str, int, Sequence[Reference]]]) -> list[Image.Image]:
        """Paints rows with the same number of references together."""
        made: dict[int, Image.Image] = {}
        for count in sorted({len(shown) for _, _, shown in rows}):
            places = [place for place, row in enumerate(rows) if len(row[2]) == count]
            features = (
                torch.stack([torch.stack([self.see(each) for each in rows[p][2]]) for p in places]) if count else None
            )
            noise = torch.cat([noise_of(1, rows[place][1]) for place in places])
            prompts = [self.own_prompts.get(rows[place][0], rows[place][0]) for place in places]
            pictures = paint(
                self.steered,
                self.autoencoder,
                self.encoder.towers.text,
                prompts,
                noise,
                features,
                steps=self.steps,
                cfg=self.cfg,
            )
            for place, picture in zip(places, (pictures * 255).byte().permute(0, 2, 3, 1).numpy(), strict=True):
                made[place] = Image.fromarray(np.ascontiguousarray(picture))
        return [made[place] for place in range(len(rows))]
