"""The one reader and writer of our own safetensors files: tensors, and metadata that name a format and a version.

Nothing that a file says is believed before it is checked. The header is bounded and compared with the size of the file
before a tensor is made, so a file of a few bytes cannot ask for gigabytes. A new version of a file appears whole or not
at all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import RealRAGError
from .files import open_regular, sorted_header, write_atomic
from .validation import is_count, strict_json
from .wrong_file import LOOK_AT, what_it_is

if TYPE_CHECKING:  # the commands' help comes without loading torch
    from torch import Tensor

MAX_HEADER = 8 << 20  # bytes; the largest file of ours, an adapter, needs 60 kB
MAX_TENSORS = 10_000
MAX_AXES = 8
# Bytes an element. Formats of 8 bits or less are refused by name: torch can neither check nor compute with them.
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says it holds: the shape of each tensor, and its metadata. `size` is that of the file in bytes."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    size: int


def read(
    path: Path, format: str, version: str, what: str, cure: str, *, error: type[RealRAGError] = RealRAGError
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors (on the CPU, as stored) and the metadata of one of our files.

    what: such as "a reflective head"; cure: the sentence that ends each message. Raises `error` where the file is
    missing, damaged, of another format or version, or holds a number that is not finite.
    """
    header = read_header(path, what, cure, error=error)
    found = header.metadata.get("format"), header.metadata.get("version")
    if found != (format, version):
        raise error(
            f"{path} is not {what} that this RealRAG reads: its format is {str(found[0])[:60]!r}, version "
            f"{str(found[1])[:20]!r}; expected {format!r}, version {version!r}. Update RealRAG, or: {cure}"
        )
    tensors = read_tensors(path, what, cure, error=error)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not all_finite(tensor):
            raise error(f"{path} is damaged: {name[:80]!r} holds numbers that are not finite. {cure}")
    return tensors, header.metadata


def all_finite(tensor: Tensor) -> bool:
    """Whether no number of a floating-point tensor is NaN or infinite: by its least and greatest, which NaN makes NaN, in
    a fifth of the time of looking at each."""
    if not tensor.numel():
        return True
    least, greatest = tensor.aminmax()
    return math.isfinite(least.item()) and math.isfinite(greatest.item())


def read_header(path: Path, what: str, cure: str, *, error: type[RealRAGError] = RealRAGError) -> Header:
    """Check the header of any safetensors file against its own size; no tensor is read. Raises `error`."""
    with _in_words(path, what, cure, error), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise ValueError(f"its header claims {length} bytes, the file has {size}")
        content = strict_json(file.read(length))
        if not isinstance(content, dict):
            raise ValueError("its header is no table")
        metadata = content.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are not texts")
        if len(content) > MAX_TENSORS:
            raise ValueError(f"it lists {len(content)} tensors; at most {MAX_TENSORS} are read")
        ends = sorted(_place(name, entry) for name, entry in content.items())
        at = 0
        for start, end in ends:
            if start != at:
                raise ValueError("its tensors overlap or leave a gap")
            at = end
        if at != size - 8 - length:
            raise ValueError(f"its tensors take {at} bytes, the file holds {size - 8 - length}")
        return Header({name: tuple(entry["shape"]) for name, entry in content.items()}, metadata, size)


def what_file_is(path: Path) -> str:
    """A sentence on a file that is a web page or the like in place of a model; "" where it may be one, or cannot be read."""
    try:
        with open_regular(path) as file:
            return what_it_is(file.read(LOOK_AT))
    except OSError:
        return ""


def read_tensors(path: Path, what: str, cure: str, *, error: type[RealRAGError] = RealRAGError) -> dict[str, Tensor]:
    """The tensors of a file whose header `read_header` accepts, whatever its format. Raises `error`."""
    from safetensors import safe_open

    with _in_words(path, what, cure, error), safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The same as numpy arrays, with the metadata, for files of our own caches. Raises RealRAGError."""
    from safetensors import safe_open

    what, cure = "a file of ours", "Delete it and run again."
    metadata = read_header(path, what, cure).metadata
    with _in_words(path, what, cure, RealRAGError), safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, metadata


def write(
    path: Path, tensors: Mapping[str, Tensor] | Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, or arrays, and metadata; equal content makes equal bytes. ValueError where one is not contiguous:
    safetensors 0.8.0 writes the values of a transposed numpy array in the wrong order."""
    write_atomic(path, to_bytes(tensors, metadata))


def to_bytes(
    tensors: Mapping[str, Tensor] | Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> bytes:
    """What `write` puts into the file."""
    from safetensors.numpy import save as save_arrays
    from safetensors.torch import save as save_tensors

    for name, value in tensors.items():
        if not (value.flags.c_contiguous if isinstance(value, np.ndarray) else value.is_contiguous()):
            raise ValueError(f"{name!r} is not contiguous, so it cannot be written. Call contiguous() on it first.")
    named: dict = dict(tensors)
    arrays = any(isinstance(value, np.ndarray) for value in named.values())
    return sorted_header((save_arrays if arrays else save_tensors)(named, dict(metadata or {})))


def _place(name: str, entry: object) -> tuple[int, int]:
    """(start, end) of a tensor in the data. ValueError where its entry is not one, or its size is not its shape's."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {name[:80]!r} has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ValueError(f"{name[:80]!r} is stored as {str(dtype)[:20]}; use the original file in fp16, bf16 or fp32")
    if not isinstance(shape, list) or len(shape) > MAX_AXES or not all(is_count(size) for size in shape):
        raise ValueError(f"{name[:80]!r} has the shape {str(shape)[:80]}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(is_count(place) for place in offsets):
        raise ValueError(f"{name[:80]!r} lies at {str(offsets)[:80]}")
    start, end = offsets
    if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(f"{name[:80]!r} has the shape {str(shape)[:80]} in {end - start} bytes")
    return start, end


@contextmanager
def _in_words(path: Path, what: str, cure: str, error: type[RealRAGError]) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except OSError as reason:
        raise error(f"{path} cannot be read as {what}: {reason.strerror or reason}. {cure}") from None
    except (ValueError, SafetensorError, RuntimeError, KeyError, TypeError) as reason:
        if other := what_file_is(path):
            raise error(f"{path} is not {what}: {other} {cure}") from None
        why = (str(reason).splitlines() or [type(reason).__name__])[0][:300]
        raise error(f"{path} is damaged, or is not {what}: {why}. {cure}") from None
