"""Miniature generators as files: ComfyUI's own names, so that its loaders know them, with our settings as metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import RealRAGError
from ..files import sorted_header, write_atomic
from .flux import Flux, FluxConfig
from .sd3 import SD3, SD3Config

FORMAT, VERSION = "realrag-miniature-generator", "1"
MODELS = {"sd3": (SD3, SD3Config), "flux": (Flux, FluxConfig)}


def save_generator(path: Path, model: nn.Module, state: dict[str, Tensor], about: dict) -> None:
    """fp16 weights `state` of `model`'s layout; `about` tells of the training."""
    words = {
        "format": FORMAT, "version": VERSION, "family": model.family,
        "config": json.dumps(asdict(model.config), sort_keys=True), "training": json.dumps(about, sort_keys=True),
    }  # fmt: skip
    half = {name: value.detach().half().contiguous() for name, value in state.items()}
    write_atomic(path, sorted_header(save(half, words)))


def load_generator(path: Path) -> SD3 | Flux:
    """fp32, in eval mode. RealRAGError when the file is no miniature generator of this version."""
    try:
        with safe_open(path, "pt") as file:
            words = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise RealRAGError(f"The generator {path} cannot be read ({error}). Get or train it again.") from error
    if (found := (words.get("format"), words.get("version"))) != (FORMAT, VERSION) or words.get("family") not in MODELS:
        raise RealRAGError(f"{path} says {(*found, words.get('family'))}; this RealRAG reads {(FORMAT, VERSION)}.")
    net, config = MODELS[words["family"]]
    try:
        model = net(config(**json.loads(words["config"])))
        model.load_state_dict(state)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RealRAGError(
            f"{path} does not hold the weights its metadata describe ({error}). Get it again."
        ) from error
    return model.eval().requires_grad_(False)
