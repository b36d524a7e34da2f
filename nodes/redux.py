"""Flux Redux at work: the references become tokens of the prompt, so the model itself stays untouched."""

from __future__ import annotations

import comfy.model_management as management
import torch
from torch import Tensor

from ..realrag.errors import AdapterError
from . import see
from .conditioning import with_tokens


def with_redux(managed, clip_vision, images: list[Tensor], amounts: list[float], conditioning: list, downsampling: int):
    """-> the CONDITIONING with every reference's tokens, times its amount, behind the text, and how many there are."""
    spec = managed.adapter.spec
    for text, _ in conditioning:
        if text.shape[-1] != spec.width:
            raise AdapterError(
                f"{spec.label} gives tokens of width {spec.width}, but this prompt has width {text.shape[-1]}. Encode "
                "the prompt with Flux's text encoders (T5-XXL and CLIP-L)."
            )
    features = see.features(spec, clip_vision, images)
    management.load_models_gpu([managed.patcher])
    seen = zip(amounts, see.on_device(features), strict=True)
    tokens = torch.cat([amount * managed.adapter.tokens(hidden, downsampling) for amount, hidden in seen], 1)
    return with_tokens(conditioning, tokens), tokens.shape[1]
