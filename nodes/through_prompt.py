"""The paths that leave the model alone and change its CONDITIONING: Redux, reference latents, image embeddings."""

from __future__ import annotations

import comfy.model_base
from torch import Tensor

from ..realrag.errors import AdapterError
from .controls import Controls
from .image_embeddings import with_embeddings
from .native_references import with_latents
from .paths import ADAPTER, EMBEDS, LATENTS
from .redux import with_redux


def goes_through_prompt(way: str, adapter) -> bool:
    return way in (LATENTS, EMBEDS) or way == ADAPTER and adapter.adapter.spec.family == "flux-redux"


def through_prompt(
    way: str, model, images: list[Tensor], controls: Controls, parts: dict, strength: float, downsampling: int
) -> tuple[list | None, str]:
    """The changed CONDITIONING and a report. parts: the inputs of Inject References by name."""
    conditioning, shown = parts["conditioning"], controls.shown(len(images))
    amounts = [strength * controls.of(i).weight for i in shown]
    pictures = [images[i] for i in shown]
    if not pictures:
        return conditioning, "Nothing goes in: every reference is negative or has the weight 0."
    counted = f"{len(pictures)} reference{'s' * (len(pictures) > 1)}"
    if way == LATENTS:
        changed, tokens = with_latents(model, parts["vae"], pictures, conditioning)
        report = f"{counted}, {tokens} tokens. Strength and weights have no say here, except 0."
    elif way == EMBEDS:
        changed = with_embeddings(model, parts["clip_vision"], pictures, amounts, conditioning)
        report = f"{counted} in the place of the prompt's pooled text."
    else:
        if conditioning is None or not isinstance(model.model, comfy.model_base.Flux):
            raise AdapterError(
                "Flux Redux turns references into words for Flux: connect a Flux model, and the positive prompt to "
                "conditioning."
            )
        changed, tokens = with_redux(
            parts["adapter"], parts["clip_vision"], pictures, amounts, conditioning, downsampling
        )
        report = f"Adapter: Flux Redux. {counted}, {tokens} tokens behind the prompt."
    if any(controls.of(i).mask is not None or (controls.of(i).start, controls.of(i).end) != (0, 1) for i in shown):
        report += " Masks and windows of single references have no say here."
    return changed, f"{report} Use the conditioning output as the positive prompt."
