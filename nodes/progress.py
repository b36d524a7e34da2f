"""The node's progress bar and the Cancel button, as the plain callback that `realrag` knows."""

from __future__ import annotations

import sys
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

    def progress(done: int, total: int) -> None:
        nonlocal last
        fill(done, max(total, 1))
        now = time.monotonic()
        if now - last >= EVERY:
            last = now
            show_text(progress_text(what, done, total, now - begun), hidden)

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


def show_text(text: str, hidden) -> None:
    """Below the running node, where the page shows a node's progress. hidden: the node's, with its id."""
    # ComfyUI's server module is loaded wherever there is a page; importing it elsewhere would start half a server.
    served = sys.modules.get("server")
    node, server = getattr(hidden, "unique_id", None), getattr(getattr(served, "PromptServer", None), "instance", None)
    if node is not None and server is not None:
        server.send_progress_text(text, node)
