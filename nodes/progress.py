"""The node's progress bar and the Cancel button, as the plain callback that `realrag` knows."""

from __future__ import annotations

import time
from collections.abc import Callable

import comfy.model_management
import comfy.utils

EVERY = 0.5  # seconds between two lines of text


def progress_bar() -> Callable[[int, int], None]:
    """A `progress(done, total)` that fills the bar of the running node and raises when the artist cancels."""
    bar = comfy.utils.ProgressBar(1)

    def progress(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return progress


def timed_progress(what: str, hidden) -> Callable[[int, int], None]:
    """The same, and below the node's bar "encoding 120 of 3,000 · 14 a second · 3 min 20 s left". hidden: the node's."""
    fill, begun, last = progress_bar(), time.monotonic(), 0.0
    node = getattr(hidden, "unique_id", None)

    def progress(done: int, total: int) -> None:
        nonlocal last
        fill(done, max(total, 1))
        now = time.monotonic()
        if node is not None and (now - last >= EVERY or done == total):
            last = now
            _show(progress_text(what, done, total, now - begun), node)

    return progress


def progress_text(what: str, done: int, total: int, seconds: float) -> str:
    text = f"{what} {done:,} of {total:,}"
    if not done or seconds < EVERY:
        return text
    left = round((total - done) * seconds / done)
    rate = done / seconds
    pace = f"{rate:,.0f} a second" if rate >= 2 else f"{1 / rate:.1f} seconds each"
    return (
        f"{text} · {pace} · {left // 60} min {left % 60} s left" if left >= 60 else f"{text} · {pace} · {left} s left"
    )


def _show(text: str, node: str) -> None:
    """In the page, if a server is running."""
    from server import PromptServer

    if (server := getattr(PromptServer, "instance", None)) is not None:
        server.send_progress_text(text, node)
