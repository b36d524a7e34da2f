"""A pickled weights file (.bin, .pt) -> safetensors: read for its weights only, compared tensor by tensor once written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..errors import AdapterError
from ..files import fsync_folder, sha256_file

PICKLED = (".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Converted:
    tensors: int
    bytes: int
    what: str  # the adapter in words, or why it is none


def convert(source: Path, out: Path) -> Converted:
    """Write `out` whole or not at all. AdapterError: the file holds more than weights, or a tensor came out changed."""
    from safetensors.torch import save_file

    from . import detect
    from .reading import read_weights

    source, out = Path(source), Path(out)
    if source.suffix not in PICKLED:
        raise AdapterError(f"{source.name} is no {', '.join(PICKLED)} file, so there is nothing to convert.")
    if out.suffix != ".safetensors":
        raise AdapterError(f"--out must end in .safetensors, but is {out.name}.")
    if out.exists():
        raise AdapterError(f"{out} is already there. Delete it first, or choose another name.")
    weights = alone(read_weights(source))
    try:
        what = detect(weights).label
    except AdapterError as error:
        what = str(error)
    metadata = {"format": "pt", "converted_by": f"realrag {__version__}", "source_sha256": sha256_file(source)}
    temporary = out.with_name(f".{out.name}.tmp.{os.getpid()}")
    try:
        save_file(weights, temporary, metadata)
        check(weights, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(out.parent)
    return Converted(len(weights), out.stat().st_size, what)


def alone(weights: dict) -> dict:
    """Every tensor dense and in memory of its own, as safetensors stores no views of one another."""
    own, seen = {}, set()
    for key, tensor in weights.items():
        if str(tensor.layout) != "torch.strided" or tensor.is_quantized:
            raise AdapterError(f"{key} is sparse or quantised. Use the original, plain file.")
        tensor = tensor.detach().contiguous()
        place = tensor.untyped_storage().data_ptr()
        own[key] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return own


def check(weights: dict, path: Path) -> None:
    """Compare the file with what was read, bit by bit."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        if set(file.keys()) != set(weights):
            raise AdapterError(
                "The converted file lists other tensors than the original. Check the disk and try again."
            )
        for key, tensor in weights.items():
            written = file.get_tensor(key)
            same = written.dtype == tensor.dtype and written.shape == tensor.shape
            if not same or not torch.equal(written.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)):
                raise AdapterError(f"{key} came out changed. Check the disk and try again.")
