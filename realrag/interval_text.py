"""A figure and its interval as text: "0.123 (0.100 to 0.150)". Every table prints its intervals with these two."""

from __future__ import annotations

from collections.abc import Sequence


def with_interval(row: Sequence[float | None], form: str = ".3f") -> str:
    """[mean, low, high, ...] in a number format such as "+.3f" or ".1%". The mean alone if there is no interval."""
    bounds = span(row, form)
    return f"{row[0]:{form}}" + (f" ({bounds})" if bounds else "")


def span(row: Sequence[float | None], form: str = "+.3f") -> str:
    """The interval alone: "0.100 to 0.150". Empty if a bound is None or NaN."""
    low, high = row[1:3]
    if low is None or high is None or low != low or high != high:
        return ""
    return f"{low:{form}} to {high:{form}}"
