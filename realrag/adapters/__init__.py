"""Reference adapters: a file's family is told by its keys and shapes, then checked in full before anything uses it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import AdapterError
from . import instantx_flux, instantx_sd3, redux, xlabs
from .reading import read_metadata, read_weights
from .spec import AdapterSpec, Shapes, check_values

# A new family is one module (rename, recognizes, inspect, build) and one entry here.
FAMILIES = (xlabs, instantx_flux, instantx_sd3, redux)
Adapter = xlabs.XLabsAdapter | instantx_flux.InstantXFluxAdapter | instantx_sd3.InstantXAdapter | redux.ReduxAdapter

# Files people try that are something else: a part of a key -> what it is and what to do.
OTHERS = {
    "lora_": "a LoRA; put it in models/loras and use Load LoRA",
    "controlnet": "a ControlNet; put it in models/controlnet and use Load ControlNet Model",
    "to_k_ip.weight": "an IP-Adapter for SD1.5 or SDXL; it cannot steer SD3.5 or Flux",
    "double_blocks.": "a whole Flux model or a ControlNet; put it in models/diffusion_models",
}


def load_adapter(path: Path) -> Adapter:
    """Read, recognize and check an adapter file. The module holds the file's own precision and a `.spec`."""
    path = Path(path)
    weights = read_weights(path)
    try:
        adapter = build_adapter(weights)
        adapter.spec = adapter.spec.with_metadata(read_metadata(path))
        return adapter
    except AdapterError as error:
        raise AdapterError(f"{path.name}: {error}") from error


def build_adapter(weights: Mapping[str, Tensor]) -> Adapter:
    """A flat state dict in any of the known spellings -> the adapter of its family."""
    family, spec, weights = _recognise(weights)
    check_values(weights)
    return family.build(spec, weights)


def detect(weights: Mapping[str, Tensor]) -> AdapterSpec:
    """What a flat state dict is, from keys and shapes alone (meta tensors will do)."""
    return _recognise(weights)[1]


def _recognise(weights: Mapping[str, Tensor]):
    for family in FAMILIES:
        renamed = {family.rename(key): tensor for key, tensor in weights.items()}
        shapes: Shapes = {key: tuple(tensor.shape) for key, tensor in renamed.items()}
        if family.recognizes(shapes):
            if len(renamed) != len(weights):
                raise AdapterError("The file spells the same weight in two ways. Download the original file again.")
            return family, family.inspect(shapes), renamed
    known = "Flux XLabs (v1, v2), Flux InstantX, Flux Redux, SD3.5-Large InstantX, and what our trainer makes"
    what = next((text for part, text in OTHERS.items() if any(part in key for key in weights)), None)
    example = ", ".join(sorted(weights)[:3]) or "nothing"
    raise AdapterError(
        (f"This is {what}." if what else f"This is no reference adapter that RealRAG knows (it holds {example}).")
        + f" Known here: {known}."
    )


__all__ = ["FAMILIES", "Adapter", "AdapterSpec", "build_adapter", "detect", "load_adapter"]
