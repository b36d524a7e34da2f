"""Photos and words -> vectors in one space: any open_clip model, or the small encoder that ships with the plugin."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..files import canonical_json, sha256_bytes
from .preprocess import Preprocess


class Seen(NamedTuple):
    """What an image tower makes of B pictures, float32 on the CPU: the embeddings (B, D), and the states behind its
    last block but one and behind its last, (B, L, E) row by row of its grid; None where the tower has no such states to
    give."""

    embeds: Tensor
    penultimate: Tensor | None = None
    last: Tensor | None = None


def weights_sha256(module: torch.nn.Module, begin: str | tuple[str, ...] = "") -> str:
    """Hash of the weights themselves (name, shape and fp32 bytes of each tensor whose name begins so), whatever file
    they came in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not name.startswith(begin):
            continue
        tensor = tensor.detach().to("cpu").contiguous()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(memoryview(tensor.reshape(-1).numpy()).cast("B"))
    return digest.hexdigest()


class Encoder(torch.nn.Module):
    """Two towers and their preprocessing. A Module, so that ComfyUI's model management can hold and move it.

    `name`: what `load_encoder` takes; `dim`: D; `kind`: "small" or "open_clip". `portable`: the name alone is enough to
    load it on another machine; where it is not, the weights must travel with the bundle.
    """

    kind: str
    name: str
    dim: int
    preprocess: Preprocess
    portable: bool = True
    speaks: bool = True  # has a text tower
    image_side: tuple[str, ...] = ()  # how the names of the image tower's weights begin
    tuned: Mapping[str, Any] = MappingProxyType(
        {}
    )  # of an encoder trained further here: from what, how, and whose photo vectors it still gives

    @cached_property
    def weights_sha256(self) -> str:
        """Taken once, of the weights as they were loaded: a host may round them to half precision later."""
        return weights_sha256(self)

    @cached_property
    def fingerprint(self) -> str:
        """Equal fingerprints give comparable vectors: same weights, same preprocessing."""
        return sha256_bytes(canonical_json({"weights": self.weights_sha256, "preprocess": asdict(self.preprocess)}))

    @cached_property
    def image_fingerprint(self) -> str:
        """The same of the image tower alone: equal ones give the same vectors to photos."""
        return sha256_bytes(
            canonical_json({"weights": weights_sha256(self, self.image_side), "preprocess": asdict(self.preprocess)})
        )

    def reads(self, made_with: dict) -> bool:
        """Whether the photo vectors of a bundle, made with this encoder entry of its manifest, are those of this
        encoder: it is that encoder, or says that it differs from it in the text tower alone and still has the image
        tower it had then."""
        if made_with["fingerprint"] == self.fingerprint:
            return True
        named = self.tuned.get("photos_of")
        same = isinstance(named, list) and made_with["fingerprint"] in named
        return same and self.tuned.get("image_fingerprint") == self.image_fingerprint

    def describe(self) -> dict:
        """The `encoder` entry of a bundle's manifest."""
        return {
            "kind": self.kind,
            "name": self.name,
            "dim": self.dim,
            "weights_sha256": self.weights_sha256,
            "preprocess": {
                **asdict(self.preprocess),
                "mean": list(self.preprocess.mean),
                "std": list(self.preprocess.std),
            },
            "fingerprint": self.fingerprint,
        }

    @property
    def place(self) -> tuple[torch.device, torch.dtype]:
        """Where the weights are, and as what."""
        parameter = next(self.parameters())
        return parameter.device, parameter.dtype

    def prepare(self, image) -> Tensor:
        """PIL image -> (3, S, S) uint8; cheap work for a decoding thread."""
        return self.preprocess.pixels(image)

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> (B, D) float32 on the CPU, as the image tower gives them (not of unit length)."""
        device, dtype = self.place
        return self._images(self.preprocess.normalise(pixels.to(device, non_blocking=True), dtype)).float().cpu()

    @torch.inference_mode()
    def see(self, pixels: Tensor) -> Seen:
        """(B, 3, S, S) uint8 -> the embeddings of `encode_images`, and what came before them."""
        device, dtype = self.place
        parts = self._see(self.preprocess.normalise(pixels.to(device, non_blocking=True), dtype))
        return Seen(*(None if part is None else part.float().cpu() for part in parts))

    @torch.inference_mode()
    def encode_texts(self, texts: list[str]) -> Tensor:
        """B texts -> (B, D) float32 on the CPU, as the text tower gives them (not of unit length)."""
        return self._texts([str(text) for text in texts]).float().cpu()

    def _images(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _see(self, x: Tensor) -> Seen:
        return Seen(self._images(x))

    def _texts(self, texts: list[str]) -> Tensor:
        raise NotImplementedError

    def save_pretrained(self, folder: Path) -> list[Path]:
        """Write what `load_encoder(folder)` needs into `folder`; returns the files. safetensors and JSON only."""
        raise NotImplementedError
