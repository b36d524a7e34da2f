"""Flux Redux at work: the references become tokens of the prompt, so the model itself stays untouched."""

from __future__ import annotations

import comfy.model_management as management
import torch
from torch import Tensor

from ....realrag.errors import AdapterError
from ..inputs import encode_references
from .conditioning import Put, with_tokens


def redux(
    managed, clip_vision, images: dict[int, Tensor], amounts: dict[int, float], downsampling: int
) -> tuple[Put, int]:
    """How to put references, by their numbers, behind a prompt's text, and how many tokens they are all together."""
    spec = managed.adapter.spec
    features = encode_references.features(spec, clip_vision, list(images.values()))
    management.load_models_gpu([managed.patcher])
    seen = zip(images, encode_references.on_device(features), strict=True)
    tokens = {i: amounts[i] * managed.adapter.tokens(hidden, downsampling) for i, hidden in seen}

    def put(conditioning: list, numbers: list[int]) -> list:
        for text, _ in conditioning:
            if text.shape[-1] != spec.width:
                raise AdapterError(
                    f"{spec.label} gives tokens of width {spec.width}, but this prompt has width {text.shape[-1]}. "
                    "Encode the prompt with Flux's text encoders (T5-XXL and CLIP-L)."
                )
        return with_tokens(conditioning, torch.cat([tokens[i] for i in numbers], 1))

    return put, sum(own.shape[1] for own in tokens.values())
