"""The interface of every encoder: photos and texts -> vectors in one space, and an identity for both."""

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


class VisionFeatures(NamedTuple):
    """Image features of B pictures, float32 on the CPU: the embeddings (B, D), and the hidden states (B, L, E) after
    the second-to-last and the last block, row by row of the grid. None where a tower does not expose them."""

    embeds: Tensor
    penultimate: Tensor | None = None
    last: Tensor | None = None


class Coverage(NamedTuple):
    """How much of a text the encoder takes in: its first `read` of `words` words. unknown: the words it never learned."""

    words: int
    read: int
    unknown: tuple[str, ...] = ()


def weights_sha256(source: torch.nn.Module | Mapping[str, Tensor], begin: str | tuple[str, ...] = "") -> str:
    """Hash of the weights, independent of their file: name, shape and fp32 bytes of each tensor whose name starts with
    `begin`."""
    digest = hashlib.sha256()
    weights = source if isinstance(source, Mapping) else source.state_dict()
    for name, tensor in sorted(weights.items()):
        if not name.startswith(begin):
            continue
        tensor = tensor.detach().to("cpu").contiguous()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(memoryview(tensor.reshape(-1).numpy()).cast("B"))
    return digest.hexdigest()


class Encoder(torch.nn.Module):
    """Two towers and their preprocessing. A Module, so that ComfyUI's model management can hold and move it.

    `name`: what `load_encoder` takes. `dim`: D. `kind`: "small" or "open_clip". `portable`: the name alone loads it on
    another machine; otherwise the weights must travel with the bundle. `image_prefixes`: how the names of the image
    tower's weights begin. `configuration`: what decides the vectors besides weights and preprocessing, where it is not
    plain (`open_clip_settings.identity`). `tuned`: of an encoder trained further here: its base, its training, and the encoders whose
    image vectors it still gives.
    """

    kind: str
    name: str
    dim: int
    preprocess: Preprocess
    portable: bool = True
    has_text_tower: bool = True
    image_prefixes: tuple[str, ...] = ()
    configuration: Mapping[str, Any] = MappingProxyType({})
    tuned: Mapping[str, Any] = MappingProxyType({})

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights as loaded. Taken once: a host may round them to half precision later."""
        return weights_sha256(self)

    @cached_property
    def fingerprint(self) -> str:
        """Equal fingerprints give comparable vectors: same weights, same preprocessing, same configuration."""
        return self._identity(self.weights_sha256)

    @cached_property
    def plain_fingerprint(self) -> str:
        """The fingerprint as it was before configurations were part of it."""
        return sha256_bytes(canonical_json({"weights": self.weights_sha256, "preprocess": asdict(self.preprocess)}))

    @cached_property
    def image_fingerprint(self) -> str:
        """The fingerprint of the image tower alone: equal ones give photos the same vectors."""
        return self._identity(weights_sha256(self, self.image_prefixes))

    @cached_property
    def adapter_sha256(self) -> str:
        """How an adapter names its image encoder: the hash of the weights, and of the configuration where that is not
        plain."""
        if not self.configuration:
            return self.weights_sha256
        return sha256_bytes(canonical_json({"weights": self.weights_sha256, "configuration": dict(self.configuration)}))

    def _identity(self, weights: str) -> str:
        content: dict[str, Any] = {"weights": weights, "preprocess": asdict(self.preprocess)}
        if self.configuration:
            content["configuration"] = dict(self.configuration)
        return sha256_bytes(canonical_json(content))

    def is_encoder_of(self, made_with: Mapping[str, Any]) -> bool:
        """Whether a bundle with this `encoder` entry in its manifest was made with this encoder, both towers."""
        return made_with["fingerprint"] == self.fingerprint

    def accepts_vectors_of(self, made_with: Mapping[str, Any]) -> bool:
        """Whether a bundle's image vectors are valid for this encoder: same encoder, or only the text tower was
        tuned. `made_with`: the `encoder` entry of the bundle's manifest."""
        if self.is_encoder_of(made_with):
            return True
        named = self.tuned.get("photos_of")
        same = isinstance(named, list) and made_with["fingerprint"] in named
        return same and self.tuned.get("image_fingerprint") == self.image_fingerprint

    def difference(self, made_with: Mapping[str, Any]) -> str:
        """How the encoder that a bundle was made with differs from this one, and the cure. `made_with`: as above."""
        parts = self._differences(made_with) if made_with.get("weights_sha256") == self.weights_sha256 else []
        if not parts:
            return "Their vectors cannot be compared. Use the first, or index again."
        trained = "" if self.fault else ", with which the weights were trained"
        return (
            f"The weights are the same, but the library was made with {' and '.join(parts)}{trained}. Index again, or keep "
            "asking it as it was made: name no encoder."
        )

    def _differences(self, made_with: Mapping[str, Any]) -> list[str]:
        """What differs besides the weights: "THEN in place of NOW"."""
        then, now = made_with.get("preprocess"), self.describe()["preprocess"]
        if not isinstance(then, Mapping):
            return []
        return [f"{key} {str(then.get(key))[:80]} in place of {now[key]}" for key in now if then.get(key) != now[key]]

    @property
    def fault(self) -> str:
        """What is wrong with vectors that this encoder makes, and the cure; empty where they are as its weights were
        trained. An encoder has one where it asks a bundle of an earlier version as it was made."""
        return ""

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
        """Device and dtype of the weights."""
        parameter = next(self.parameters())
        return parameter.device, parameter.dtype

    def prepare(self, image) -> Tensor:
        """PIL image -> (3, S, S) uint8. Cheap; runs in the decoding threads."""
        return self.preprocess.pixels(image)

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> (B, D) float32 on the CPU, the raw output of the image tower (not normalized)."""
        device, dtype = self.place
        return self._images(self.preprocess.normalize(pixels.to(device, non_blocking=True), dtype)).float().cpu()

    @torch.inference_mode()
    def encode_features(self, pixels: Tensor) -> VisionFeatures:
        """(B, 3, S, S) uint8 -> the embeddings of `encode_images` and the hidden states behind them."""
        device, dtype = self.place
        parts = self._features(self.preprocess.normalize(pixels.to(device, non_blocking=True), dtype))

        def ready(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.float().cpu()

        return VisionFeatures(parts.embeds.float().cpu(), ready(parts.penultimate), ready(parts.last))

    @torch.inference_mode()
    def encode_texts(self, texts: list[str]) -> Tensor:
        """B texts -> (B, D) float32 on the CPU, the raw output of the text tower (not normalized)."""
        return self._texts([str(text) for text in texts]).float().cpu()

    def coverage(self, text: str) -> Coverage:
        """How many words of `text` reach the text tower, and which of them it does not know."""
        count = len(text.split())
        return Coverage(count, count)

    def _images(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _features(self, x: Tensor) -> VisionFeatures:
        return VisionFeatures(self._images(x))

    def _texts(self, texts: list[str]) -> Tensor:
        raise NotImplementedError

    def save_pretrained(self, folder: Path) -> list[Path]:
        """Write the files that `load_encoder(folder)` needs, safetensors and JSON only. Returns their paths."""
        raise NotImplementedError
