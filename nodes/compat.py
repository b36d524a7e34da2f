"""Keywords that newer versions of ComfyUI know: given where they are known, left out where they would stop the pack."""

from __future__ import annotations

import inspect
from collections.abc import Callable


def newer(target: Callable, **keywords) -> dict:
    """The keywords that `target` takes in the ComfyUI at hand."""
    known = inspect.signature(target).parameters
    return {name: value for name, value in keywords.items() if name in known}
