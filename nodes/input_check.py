"""Checks what comes over a wire: ComfyUI checks a widget's value, but another node may give any value of any type."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping

from torch import Tensor

from ..realrag.errors import QueryError

MAX_NUMBER = 1 << 62


def checked(execute: Callable) -> Callable:
    """`execute` of a node whose values are checked against the inputs that the node declares. None for an optional input
    means its default. Raises QueryError, which names the input, before anything of the node runs."""
    signature = inspect.signature(execute)

    @functools.wraps(execute)
    def run(cls, *values, **named):
        bound = signature.bind(cls, *values, **named)
        given = {**bound.arguments, **named}
        right = dict(named)
        for declared in cls.define_schema().inputs:
            value = given.get(declared.id)
            if declared.id in given and not (value is None and declared.optional):
                right[declared.id] = value_of(declared.id, str(declared.get_io_type()), value)
            else:
                right.pop(declared.id, None)
        return execute(cls, **right)

    return run


def value_of(name: str, kind: str, value: object) -> object:
    """The value as the node takes it: a whole number for INT also where a float or a switch holds one. QueryError where
    an input of this kind cannot take it."""
    if kind not in _TAKES:
        return value
    words, take = _TAKES[kind]
    try:
        return take(value)
    except (TypeError, ValueError, LookupError, OverflowError):
        shown = repr(value)[:60] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
        raise QueryError(f"{name} is {shown}; it must be {words}. Check what is connected to it.") from None


def _need(right: bool, value: object) -> object:
    if not right:
        raise ValueError
    return value


def _number(value: object) -> float:
    _need(isinstance(value, numbers.Real) and math.isfinite(value) and abs(value) <= MAX_NUMBER, value)
    return float(value)  # type: ignore[arg-type]


def _whole(value: object) -> int:
    return int(_need(_number(value) == int(value), value))  # type: ignore[call-overload]


def _tensor(axes: tuple[int, ...]) -> Callable:
    return lambda value: _need(isinstance(value, Tensor) and value.ndim in axes and value.numel() > 0, value)


def _latent(value: object) -> object:
    return _need(isinstance(value, Mapping) and isinstance(value["samples"], Tensor), value)


def _conditioning(value: object) -> object:
    right = isinstance(value, (list, tuple)) and all(
        isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], Mapping) for entry in value
    )
    return _need(right, value)


def _object(part: str = "") -> Callable:
    """Models and the like: of any class, as other nodes bring their own, but no plain value."""
    plain = (str, bytes, numbers.Number, list, tuple, set, Mapping, Tensor, type(None))
    return lambda value: _need(not isinstance(value, plain) and (not part or hasattr(value, part)), value)


# kind of input -> how to say it, and the function that takes a value or raises
_TAKES: dict[str, tuple[str, Callable]] = {
    "INT": ("a whole number", _whole),
    "FLOAT": ("a number", _number),
    "BOOLEAN": ("true or false", lambda value: bool(_number(value))),
    "STRING": ("a text", lambda value: "" if value is None else _need(isinstance(value, str), value)),
    "COMBO": ("one of the texts in its list", lambda value: _need(isinstance(value, str), value)),
    "IMAGE": ("pictures (batch, height, width, colors)", _tensor((4,))),
    "MASK": ("a mask (height, width), or a batch of them", _tensor((2, 3))),
    "LATENT": ("a latent", _latent),
    "CONDITIONING": ("a conditioning", _conditioning),
    "MODEL": ("a model", _object()),
    "VAE": ("a VAE", _object()),
    "CLIP_VISION": ("a CLIP Vision model", _object()),
    "REALRAG_RETRIEVER": ("a photo library from Load Reflective Retriever", _object("search")),
    "REALRAG_REFERENCES": ("references from Retrieve Real References", _object("images")),
    "REALRAG_ADAPTER": ("an adapter from Load Reference Adapter", _object("adapter")),
    "REALRAG_SETTINGS": ("settings from Inject Settings", _object("score_temperature")),
    "REALRAG_PACK": ("a pack from Load or Save Reference Pack", _object("metadata")),
}
