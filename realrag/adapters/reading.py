"""An adapter file -> a flat {key: tensor}, with nothing in it executed and sizes checked before they are believed."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import AdapterError, brief

FORMAT, VERSION = "realrag-adapter", "1"  # in the metadata of the files that our trainer writes
METADATA_KEYS = ("family", "base", "encoder", "encoder_sha256")  # what such a file has to say of itself
HEADER_LIMIT = 8 << 20  # bytes of safetensors header; the largest known adapter needs 60 kB
TENSOR_LIMIT = 10_000
PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how torch's files and bare pickles begin
PARTS = ("image_proj", "ip_adapter")  # the two dicts inside a published `.bin`


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read `.safetensors`, or a `.bin` / `.pt` through torch's weights-only reader. Nested dicts become dotted keys."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}.") from error
    if path.suffix == ".safetensors":
        if start[8:] != b"{" and start[:2] in PICKLES:
            raise AdapterError(
                f"{path.name} is called .safetensors but holds a pickle. Download the original file again."
            )
        weights = _read_safetensors(path, start)
    elif path.suffix in (".bin", ".pt", ".pth"):
        weights = _read_pickle(path)
    else:
        raise AdapterError(f"{path.name} has the suffix {path.suffix!r}; an adapter is .safetensors, .bin or .pt.")
    if not 0 < len(weights) <= TENSOR_LIMIT:
        raise AdapterError(f"{path.name} holds {len(weights)} tensors; an adapter holds 1 to {TENSOR_LIMIT}.")
    return weights


def read_metadata(path: Path) -> dict[str, str]:
    """What a file of our own says of itself; {} for the files of others. Call it after `read_weights`."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
    if about.get("format") != FORMAT:
        return {}
    if about.get("version") != VERSION:
        raise AdapterError(
            f"It is of version {about.get('version')!r}; this RealRAG reads {VERSION!r}. Update RealRAG."
        )
    if missing := [name for name in METADATA_KEYS if name not in about]:
        raise AdapterError(f"It does not say its {missing[0]}. The file is damaged: get it again.")
    return about


def _read_safetensors(path: Path, start: bytes) -> dict[str, Tensor]:
    size = path.stat().st_size
    header = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else size
    if header > min(HEADER_LIMIT, size - 8):
        raise AdapterError(f"{path.name} is damaged (its header claims {header} bytes). Download it again.")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise AdapterError(f"{path.name} is damaged ({brief(error)}). Download it again.") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AdapterError(
            f"{path.name} is damaged, or holds more than weights ({reason}). Only plain tensors are read from "
            "pickle files; use the .safetensors version."
        ) from error
    return flatten(content, path.name)


def flatten(content: object, name: str = "The file") -> dict[str, Tensor]:
    """{"image_proj": {...}, "ip_adapter": {...}} or a flat dict -> a flat dict."""
    if not isinstance(content, Mapping):
        raise AdapterError(f"{name} holds a {type(content).__name__} instead of a table of weights.")
    flat: dict[str, Tensor] = {}
    for key, value in content.items():
        parts = {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, Mapping) else {key: value}
        if isinstance(value, Mapping) and key not in PARTS:
            raise AdapterError(f"{name} has a part called {key!r}; known parts are {' and '.join(PARTS)}.")
        flat |= parts
    for key, value in flat.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise AdapterError(f"{name}: {key!r} is a {type(value).__name__} where a tensor belongs.")
    return flat
