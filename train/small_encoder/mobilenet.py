"""Reads the converted MobileNet V1, from which the image tower starts. `convert-mobilenet` makes the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from realrag import artifact
from realrag.errors import RealRAGError


def load_mobilenet(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict, and {"mean", "std", "source"} of its input. RealRAGError where the file is of another kind."""
    what, cure = "a converted MobileNet", "Make it with `python -m train convert-mobilenet`."
    metadata = artifact.read_header(path, what, cure).metadata
    try:
        source = {
            "mean": json.loads(metadata["mean"]),
            "std": json.loads(metadata["std"]),
            "source": metadata["source"],
        }
    except (KeyError, ValueError) as error:
        raise RealRAGError(f"{path} is not {what}: {error} is missing or no number. {cure}") from None
    return artifact.read_tensors(path, what, cure), source
