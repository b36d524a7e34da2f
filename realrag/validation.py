"""Strict reading of what strangers send: JSON without surprises, and the shapes of plain values."""

from __future__ import annotations

import json


def reject_constant(name: str):
    raise ValueError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def strict_json(data: bytes):
    """JSON without NaN, doubled keys or deep nesting. ValueError otherwise."""
    try:
        return json.loads(data, parse_constant=reject_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_hex(value: object, length: int) -> bool:
    return isinstance(value, str) and len(value) == length and not value.strip("0123456789abcdef")


def is_count(value: object, high: int = 1 << 62) -> bool:
    return type(value) is int and 0 <= value <= high
