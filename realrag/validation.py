"""Strict reading of what strangers send: JSON without surprises, and the shapes of plain values."""

from __future__ import annotations

import json
import math

MAX_DEPTH = 64  # brackets inside brackets; our own files need 6
MAX_DIGITS = 40  # of a whole number: far below what overflows a float, and tokenizers say 10**30 for "no limit"


def strict_json(data: bytes, depth: int = MAX_DEPTH):
    """UTF-8 JSON without NaN, infinity, doubled keys, deep nesting or numbers of more than 40 digits. ValueError otherwise."""
    try:
        value = _DECODER.decode(data.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if data.count(b"[") + data.count(b"{") > depth and _is_deeper(value, depth):
        raise ValueError("nested too deeply")
    return value


def is_hex(value: object, length: int) -> bool:
    return isinstance(value, str) and len(value) == length and not value.strip("0123456789abcdef")


def is_count(value: object, high: int = 1 << 62) -> bool:
    return type(value) is int and 0 <= value <= high


def reject_constant(name: str):
    raise ValueError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


_DECODER = json.JSONDecoder(
    parse_constant=reject_constant, parse_int=_whole, parse_float=_finite, object_pairs_hook=_unique
)


def _is_deeper(value: object, depth: int) -> bool:
    """Whether lists and tables are nested more than `depth` times; level by level, so without recursion."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
        if not level:
            return False
    return True
