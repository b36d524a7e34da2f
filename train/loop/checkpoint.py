"""Checkpoints: the tensors and metadata of one training in a safetensors file, with the key of its data and settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realrag import artifact
from realrag.errors import RealRAGError

WHAT, CURE = "a checkpoint", "Delete the file to start over."


def training_key(settings: Mapping[str, Any]) -> str:
    """One line of JSON that is equal for equal data and settings."""
    return json.dumps(settings, sort_keys=True)


def save(path: Path, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the checkpoint whole or not at all, and flush it to the disk."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    artifact.write(path, on_cpu, {**metadata, "key": key})


def load(
    path: Path, key: str, key_of: Callable[[dict[str, str]], str | None] = lambda metadata: metadata.get("key")
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of the checkpoint of this key. RealRAGError for a broken file, or another key.

    key_of: derives the key from the metadata, for formats that store its parts.
    """
    metadata = artifact.read_header(path, WHAT, CURE).metadata
    try:
        found = key_of(metadata)
    except (ValueError, KeyError):
        found = None
    if found != key:
        raise RealRAGError(
            f"The checkpoint {path} was made with other data or settings{_difference(found, key)}. "
            f"Repeat the command with those to resume it. {CURE}"
        )
    return artifact.read_tensors(path, WHAT, CURE), metadata


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's moments and step counts as "adam.ROW.NAME"."""
    return {
        f"adam.{row}.{name}": torch.as_tensor(value)
        for row, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; the learning rates and groups stay those of `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in under("adam.", tensors).items():
        row, part = name.split(".")
        state.setdefault(int(row), {})[part] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _difference(found: str | None, wanted: str) -> str:
    """The first settings in which two keys differ, where both are JSON objects."""
    try:
        before, now = _flat(json.loads(found or "")), _flat(json.loads(wanted))
    except (ValueError, AttributeError):
        return ""
    names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    listed = [f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in names[:3]]
    return f" ({'; '.join(listed)})" if listed else ""


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
