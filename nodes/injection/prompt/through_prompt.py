"""The paths that leave the model alone and change its CONDITIONING: Redux, reference latents, image embeddings."""

from __future__ import annotations

import comfy.model_base
from torch import Tensor

from ....realrag.errors import AdapterError
from ..inputs.controls import BOTH, Controls, counted
from ..inputs.path_names import ADAPTER, EMBEDS, LATENTS
from .conditioning import Put, with_references
from .image_embeddings import image_embeddings
from .redux import redux
from .reference_latents import reference_latents


def goes_through_prompt(way: str, adapter) -> bool:
    return way in (LATENTS, EMBEDS) or (way == ADAPTER and adapter.adapter.spec.family == "flux-redux")


def through_prompt(
    way: str, model, images: list[Tensor], connected, controls: Controls, downsampling: int
) -> tuple[list | None, list | None, str]:
    """The changed positive and negative CONDITIONING, and a report. connected: the inputs of Inject References."""
    positive, negative = connected.conditioning, connected.negative
    if way == ADAPTER and (positive is None or not isinstance(model.model, comfy.model_base.Flux)):
        raise AdapterError(
            "Flux Redux puts references behind the prompt of a Flux model. Connect a Flux model, and the positive "
            "prompt to conditioning."
        )
    wanted, unwanted = sides(controls, len(images))
    against = [*wanted, *unwanted] if controls.apply_to == BOTH else unwanted
    shown = sorted({*wanted, *(against if negative is not None else ())})
    if not shown:
        return positive, negative, "Nothing goes in: every reference is negative or has the weight 0."
    pictures, strength = {i: images[i] for i in shown}, controls.strength
    put, report = ready(
        way, model, pictures, {i: strength.weight * controls.of(i).weight for i in shown}, connected, downsampling
    )
    settings = {i: controls.of(i) for i in shown}

    def side(prompt: list, numbers: list[int]) -> list:
        chosen = {i: settings[i] for i in sorted(numbers)}
        return with_references(prompt, chosen, put, strength.start, strength.end) if chosen else prompt

    report = f"{report}{ignored_settings(controls)} Use the conditioning output as the positive prompt."
    positive = side(positive, wanted)
    if against and negative is None:
        report += " Negative references stay out: connect the negative prompt to negative as well."
    elif against:
        negative = side(negative, against)
        report += " Use the negative output as the negative prompt."
    return positive, negative, report


def sides(controls: Controls, count: int) -> tuple[list[int], list[int]]:
    """The references that go with the prompt, and those it shall move away from; none of weight 0."""
    wanted = controls.shown(count)
    return wanted, [i for i in range(count) if controls.of(i).negative and controls.of(i).weight > 0]


def ready(
    way: str, model, images: dict[int, Tensor], amounts: dict[int, float], connected, downsampling: int
) -> tuple[Put, str]:
    """The pictures encoded, once each: how to put any of them into a prompt, and a report."""
    count = counted(len(images))
    if way == LATENTS:
        put, tokens = reference_latents(model, connected.vae, images)
        return put, f"{count}, {tokens} tokens. Strength and weights do not act here, except 0."
    if way == EMBEDS:
        put = image_embeddings(model, connected.clip_vision, images, amounts)
        return put, f"{count} in the place of the prompt's pooled text."
    put, tokens = redux(connected.adapter, connected.clip_vision, images, amounts, downsampling)
    return put, f"Adapter: Flux Redux. {count}, {tokens} tokens behind the prompt."


def ignored_settings(controls: Controls) -> str:
    """The settings that were changed but cannot act on references in the prompt."""
    ignored = [name for name in controls.changed() if name != "apply to"]
    return f" This path ignores: {', '.join(ignored)}." if ignored else ""
