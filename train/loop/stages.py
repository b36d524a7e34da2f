"""Work in stages: each reports its progress and duration, and stops when time is up. The same command resumes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from realrag.errors import RealRAGError

from .progress import Progress
from .ranks import sigterm_as_ctrl_c

STOPPED = 75  # exit status of `python -m train` when it is stopped: unfinished, run the same command again
RESUME = "Everything finished is kept. Run the same command again to resume."
QUIET = 30.0  # seconds without a line after which one says that the work goes on
Log = Callable[[str], None]


class Stopped(RealRAGError):
    """Unfinished work was saved and ended: by Ctrl-C, SIGTERM or the time limit. `python -m train` exits with STOPPED."""


class OutOfTime(Stopped):
    """The time limit (--max-minutes) is over."""


class Staged:
    """Its methods are its stages, run by name. max_minutes: 0 for no limit."""

    def __init__(self, *, max_minutes: float, log: Log):
        self.until = time.monotonic() + 60 * max_minutes if max_minutes else float("inf")
        self._log, self._logged = log, time.monotonic()
        self.progress = Progress(self.log, "")

    def log(self, line: str) -> None:
        self._logged = time.monotonic()
        self._log(line)

    @property
    def minutes_left(self) -> float:
        """For the `max_minutes` of a part that starts now: 0 where there is no limit."""
        return 0 if self.until == float("inf") else max((self.until - time.monotonic()) / 60, 1e-6)

    def in_time(self, done: int = 0, total: int = 0) -> None:
        """A progress callback that raises OutOfTime."""
        if time.monotonic() > self.until:
            raise OutOfTime(f"Time is up. {RESUME}")
        if total:
            self.progress(done, total)

    def stage(self, name: str) -> None:
        self.progress = Progress(self.log, name)
        self.in_time()
        began = time.monotonic()
        with self._heard_of():
            getattr(self, name)()
        self.log(f"{name}: done in {time.monotonic() - began:.1f} s")

    @contextmanager
    def _heard_of(self) -> Iterator[None]:
        """Inside, a line says that the work goes on where nothing else was said for QUIET seconds."""
        ended = threading.Event()

        def listen() -> None:
            while not ended.wait(QUIET / 4):
                if time.monotonic() - self._logged >= QUIET:
                    self.log(f"{self.progress.state()}, still at work")

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def stopping() -> Iterator[None]:
    """Ctrl-C and SIGTERM inside raise Stopped."""
    try:
        with sigterm_as_ctrl_c():
            yield
    except KeyboardInterrupt:
        raise Stopped(f"Stopped. {RESUME}") from None
