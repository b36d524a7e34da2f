"""An adapter file -> a flat {key: tensor}, with nothing in it executed and sizes checked before they are believed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .. import artifact
from ..errors import AdapterError
from ..files import open_regular

FORMAT, VERSION = "realrag-adapter", "1"  # in the metadata of the files that our trainer writes
METADATA_KEYS = ("family", "base", "encoder", "encoder_sha256")  # what such a file has to say of itself
AGAIN = "Download it again."
SHARED = 4  # times the size of a pickle file that its tensors may take together, as some share their bytes
TENSOR_LIMIT = 10_000
PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how torch's files and bare pickles begin
PARTS = ("image_proj", "ip_adapter")  # the two dicts inside a published `.bin`


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read `.safetensors`, or a `.bin` / `.pt` through torch's weights-only reader. Nested dicts become dotted keys."""
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}.") from error
    if path.suffix == ".safetensors":
        if start[8:] != b"{" and start[:2] in PICKLES:
            raise AdapterError(
                f"{path.name} is called .safetensors but holds a pickle. Download the original file again."
            )
        artifact.read_header(path, "an adapter", AGAIN, error=AdapterError)
        weights = artifact.read_tensors(path, "an adapter", AGAIN, error=AdapterError)
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
    about = artifact.read_header(path, "an adapter", AGAIN, error=AdapterError).metadata
    if about.get("format") != FORMAT:
        return {}
    if about.get("version") != VERSION:
        raise AdapterError(
            f"It is of version {about.get('version')!r}; this RealRAG reads {VERSION!r}. Update RealRAG."
        )
    if missing := [name for name in METADATA_KEYS if name not in about]:
        raise AdapterError(f"It does not say its {missing[0]}. The file is damaged: get it again.")
    return about


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # what torch raises for a damaged file is of many kinds, and its advice is to load it unsafely
        if other := artifact.what_file_is(path):
            raise AdapterError(f"{path.name} is not an adapter: {other}") from None
        raise AdapterError(
            f"{path.name} is damaged, or holds more than weights. Only plain tensors are read from pickle files; use the "
            ".safetensors version."
        ) from None
    weights = flatten(content, path.name)
    # A tensor may repeat one number over any shape, or share its bytes with others.
    sizes = {key: tensor.numel() * tensor.element_size() for key, tensor in weights.items()}
    for key, needed in sizes.items():
        if needed > size:
            raise AdapterError(f"{path.name}: {key[:80]} asks for {needed:,} bytes, the file has {size:,}. {AGAIN}")
    if sum(sizes.values()) > SHARED * size:
        raise AdapterError(f"{path.name} asks for {sum(sizes.values()):,} bytes in all, the file has {size:,}. {AGAIN}")
    return weights


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
