"""What differs between the versions of ComfyUI that the pack runs in, and how the pack lives with each."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import comfy.model_management as management
import comfy.model_patcher
from comfy_api.latest import io


def supported_keywords(target: Callable, **keywords) -> dict:
    """The keywords that `target` takes in this ComfyUI. One that it does not know would stop the whole pack."""
    known = inspect.signature(target).parameters
    return {name: value for name, value in keywords.items() if name in known}


def folded(*inputs: io.Input) -> tuple[io.Input, ...]:
    """The inputs as the page folds them away, under "Show advanced inputs". Older versions of ComfyUI have no keyword for
    it, but hand the page whatever stands in `extra_dict`, and their page knows the same word."""
    for each in inputs:
        each.extra_dict = {**each.extra_dict, "advanced": True}
    return inputs


def managed_patcher(module, load_device, offload_device):
    """The ModelPatcher through which ComfyUI loads, moves and unloads this module.

    The class is looked up in each call, not at import: ComfyUI puts its dynamic-memory patcher there when it starts,
    and older versions have none.
    """
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(module, load_device=load_device, offload_device=offload_device)


def managed_encoder(encoder):
    """The patcher of an encoder of ours, on the device of text encoders and in half precision where that is fast there."""
    device = management.text_encoder_device()
    if not management.is_device_cpu(device) and management.should_use_fp16(device):
        encoder.fingerprint  # noqa: B018  taken once, before the weights are rounded
        encoder.half()
    return managed_patcher(encoder, device, management.text_encoder_offload_device())
