"""The trainable models: a head on the photos' vectors, the text tower, or the vision tower.

The vectors of the other side are fixed. Towers stay in evaluation mode: no dropout, and batch norms keep their
statistics.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from realrag.bundle.bundle import Bundle
from realrag.encoders.base import Encoder
from realrag.encoders.reflective_head import ReflectiveHead
from realrag.errors import EncoderError

from ..lora import add_lora
from .fit_config import FitConfig

DECODERS = min(16, os.cpu_count() or 4)  # threads that open pictures
PLAIN = -1  # the epoch of a photo that is not augmented


class Model(Protocol):
    """side: what it encodes, "photos" or "prompts". trained: its weights by name. watched: how many pairs are measured
    after each epoch. chunk: inputs encoded at a time where no gradient is needed."""

    side: str
    trained: dict[str, nn.Parameter]
    watched: int
    chunk: int

    def inputs(self, rows: Tensor, epoch: int) -> tuple[Tensor, Tensor | slice]:
        """(n,) rows of photos or prompts -> inputs of `encode`, (m, ...), and for each row its place in the output."""

    def encode(self, inputs: Tensor) -> Tensor:
        """(m, ...) -> (m, D) unit vectors, with gradients to `trained`."""


class HeadModel:
    """A reflective head on cached vectors (N, D)."""

    side, watched, chunk = "photos", 4096, 1 << 16

    def __init__(self, photos: Tensor, head: ReflectiveHead):
        self.photos, self.module = photos, head
        self.trained = dict(head.named_parameters())

    def inputs(self, rows: Tensor, epoch: int) -> tuple[Tensor, slice]:
        return self.photos[rows], slice(None)

    def encode(self, inputs: Tensor) -> Tensor:
        return UnitRows.apply(self.module.moved(inputs))


class UnitRows(torch.autograd.Function):
    """(N, D) -> rows of length one, as F.normalize makes them; the gradient in four passes where autograd takes nine."""

    @staticmethod
    def forward(ctx, rows):
        lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12)
        unit = rows / lengths
        ctx.save_for_backward(unit, lengths)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        unit, lengths = ctx.saved_tensors
        along = torch.linalg.vecdot(unit, gradient)[:, None]
        return torch.addcmul(gradient, unit, along, value=-1).div_(lengths)


class _Tower:
    """One tower of a copy of an encoder, with fp32 weights on `device`. precision: "bf16" computes its matrix products in it
    (mixed precision), "auto" does so on a GPU."""

    watched = 256

    def __init__(self, encoder: Encoder, device: torch.device, precision: str = "auto"):
        # Words are cut the same way in both: open_clip's tokenizer is three tables of 49,408 pieces.
        shared = {id(part): part for name, part in vars(encoder).items() if name == "_tokenizer"}
        self.encoder, self.device = copy.deepcopy(encoder, shared).to(device, torch.float32).eval(), device
        self.mixed = precision == "bf16" or (precision == "auto" and device.type == "cuda")

    def _train_only(self, weights: dict[str, nn.Parameter]) -> None:
        self.encoder.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        self.trained = weights

    def _used(self, output: Tensor) -> dict[str, nn.Parameter]:
        """The weights that an output of the encoder depends on."""
        named = {name: weight for name, weight in self.encoder.named_parameters() if weight.requires_grad}
        if not output.requires_grad:
            return {}
        gradients = torch.autograd.grad(output.sum(), list(named.values()), allow_unused=True)
        return {
            name: weight for (name, weight), found in zip(named.items(), gradients, strict=True) if found is not None
        }

    def _half(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)


class TextModel(_Tower):
    """The text tower on the prompts `texts`. The photos' vectors, and every index of them, stay valid."""

    side, chunk = "prompts", 256

    def __init__(self, encoder: Encoder, texts: Sequence[str], device: torch.device, precision: str = "auto"):
        super().__init__(encoder, device, precision)
        self.texts = list(texts)
        self.encoder.requires_grad_(True)
        used = self._used(self.encoder._texts(["a photo"]))
        shared = (
            [name for name in used if name.startswith(encoder.image_prefixes)] if encoder.image_prefixes else list(used)
        )
        if not used or shared:
            why = f"shares {shared[0]} with the vision tower" if shared else "has no weights that can be trained"
            raise EncoderError(f"The text tower of {encoder.name} {why}. Use the mode head, lora or full.")
        self._train_only(used)

    def inputs(self, rows: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        rows, place = torch.unique(rows, return_inverse=True)
        return rows.cpu(), place

    def encode(self, inputs: Tensor) -> Tensor:
        with self._half():
            output = self.encoder._texts([self.texts[row] for row in inputs.tolist()])
        return F.normalize(output.float(), dim=1)


class VisionModel(_Tower):
    """The vision tower, or LoRA beside its weights, on the photos of a bundle, and of another one after them."""

    side, chunk = "photos", 64

    def __init__(
        self, encoder: Encoder, bundle: Bundle, config: FitConfig, device: torch.device, also: Bundle | None = None
    ):
        super().__init__(encoder, device, config.precision)
        self.bundle, self.also, self.augment, self.seed = bundle, also, config.augment, config.seed
        self._pool, self._waiting = ThreadPoolExecutor(DECODERS), {}
        if config.mode == "lora":
            self.encoder.requires_grad_(False)
            weights = (
                add_lora(self.encoder, encoder.image_prefixes, config.lora_rank, config.lora_alpha)
                if encoder.image_prefixes
                else {}
            )
        else:
            self.encoder.requires_grad_(True)
            size = encoder.preprocess.size
            weights = self._used(self.encoder._images(torch.zeros(1, 3, size, size, device=device)))
        if not weights:
            need = "linear map that LoRA could go beside" if config.mode == "lora" else "weight that can be trained"
            raise EncoderError(f"The vision tower of {encoder.name} has no {need}. Use the mode head.")
        self._train_only(weights)

    def inputs(self, rows: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """A photo that occurs twice is opened and encoded once. See `ahead` for the next step's."""
        rows, place = torch.unique(rows, return_inverse=True)
        opened = [self._opening(row, epoch) for row in rows.tolist()]
        self._waiting = {}
        return torch.stack([future.result() for future in opened]), place

    def ahead(self, rows: Tensor, epoch: int) -> None:
        """Start to open the photos of the next step, while this one is computed."""
        self._waiting = {(row, epoch): self._opening(row, epoch) for row in torch.unique(rows).tolist()}

    def _opening(self, row: int, epoch: int) -> Future[Tensor]:
        return self._waiting.get((row, epoch)) or self._pool.submit(self._pixels, row, epoch)

    def _pixels(self, row: int, epoch: int) -> Tensor:
        bundle, own = self.bundle, len(self.bundle.records)
        if self.also is not None and row >= own:
            bundle, row = self.also, row - own
        record = bundle.records[row]
        image = bundle.image(record)
        if self.augment and epoch != PLAIN:
            image = augmented(image, random.Random(f"{self.seed}/{epoch}/{record.id}"))
        return self.encoder.prepare(image)

    def encode(self, inputs: Tensor) -> Tensor:
        pixels = self.encoder.preprocess.normalize(inputs.to(self.device, non_blocking=True), torch.float32)
        with self._half():
            output = self.encoder._images(pixels)
        return F.normalize(output.float(), dim=1)


def augmented(image: Image.Image, rng: random.Random) -> Image.Image:
    """A crop of at least 80 % of each side, mirrored half the time."""
    width, height = (max(1, round(side * rng.uniform(0.8, 1.0))) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(image) if rng.random() < 0.5 else image
