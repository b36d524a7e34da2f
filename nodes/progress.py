"""The node's progress bar and the Cancel button, as the plain callback that `realrag` knows."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils


def progress_bar() -> Callable[[int, int], None]:
    """A `progress(done, total)` that fills the bar of the running node and raises when the artist cancels."""
    bar = comfy.utils.ProgressBar(1)

    def progress(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return progress
