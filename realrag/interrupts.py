"""Ctrl-C that Python drops is heard all the same."""

from __future__ import annotations

import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager

MOMENT = 0.01  # seconds: the callback has ended by then


@contextmanager
def interrupts_heard() -> Iterator[None]:
    """Python drops what is raised inside a callback of its own, such as that of a weak reference while a module loads, also the
    KeyboardInterrupt of Ctrl-C. Here it comes again a moment later, and nothing is printed of the one that was dropped."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            again = threading.Timer(MOMENT, _interrupt)
            again.daemon = True
            again.start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt() -> None:
    main = threading.main_thread().ident
    if main and hasattr(signal, "pthread_kill"):  # wakes a thread that sleeps or reads, too
        signal.pthread_kill(main, signal.SIGINT)
    else:
        interrupt_main()
