"""Miniature generators as files: ComfyUI's key names, so that its loaders detect them, with the config as metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from .. import artifact
from ..errors import RealRAGError, brief
from ..validation import strict_json
from .flux import Flux, FluxConfig
from .sd3 import SD3, SD3Config

FORMAT, VERSION = "realrag-miniature-generator", "1"
CURE = "Download it again, or train it again."
MODELS: dict[str, tuple[type[SD3 | Flux], type]] = {"sd3": (SD3, SD3Config), "flux": (Flux, FluxConfig)}


def save_generator(path: Path, model: SD3 | Flux, state: dict[str, Tensor], training: dict) -> None:
    """Write `state`, weights in `model`'s layout, as fp16. training: metadata on the training run."""
    metadata = {
        "format": FORMAT, "version": VERSION, "family": model.family,
        "config": json.dumps(asdict(model.config), sort_keys=True), "training": json.dumps(training, sort_keys=True),
    }  # fmt: skip
    half = {name: value.detach().half().contiguous() for name, value in state.items()}
    artifact.write(path, half, metadata)


def load_generator(path: Path) -> SD3 | Flux:
    """fp32, in eval mode. RealRAGError if the file is not a miniature generator of this format and version."""
    state, metadata = artifact.read(path, FORMAT, VERSION, "a miniature generator", CURE)
    if metadata.get("family") not in MODELS:
        raise RealRAGError(
            f"{path} is of the family {str(metadata.get('family'))[:40]!r}; known are {', '.join(MODELS)}. {CURE}"
        )
    net, config = MODELS[metadata["family"]]
    try:
        model = net(config(**strict_json(metadata["config"].encode())))
        model.load_state_dict({name: value.float() for name, value in state.items()})
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RealRAGError(
            f"{path} does not hold the weights its metadata describe ({brief(error)}). {CURE}"
        ) from error
    return model.eval().requires_grad_(False)
