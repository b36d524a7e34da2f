"""Work in stages: each says how far it is and how long it took, and stops in time; the same command goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from realrag.errors import RealRAGError

from .progress import Pace
from .ranks import sigterm_as_ctrl_c

STOPPED = 75  # exit status: unfinished, run the same command again
Say = Callable[[str], None]


class OutOfTime(RealRAGError):
    """--max-minutes is over; everything that is finished is kept."""


class Staged:
    """Its methods are its stages, run by name. max_minutes: 0 for no limit."""

    def __init__(self, *, max_minutes: float, say: Say):
        self.until = time.monotonic() + 60 * max_minutes if max_minutes else float("inf")
        self.say, self.pace = say, Pace(say, "")

    @property
    def minutes_left(self) -> float:
        """As `max_minutes` of what is begun now: 0 where there is no limit."""
        return 0 if self.until == float("inf") else max((self.until - time.monotonic()) / 60, 1e-6)

    def in_time(self, done: int = 0, total: int = 0) -> None:
        """A progress callback that raises OutOfTime."""
        if time.monotonic() > self.until:
            raise OutOfTime("Time is up; what is finished is kept. Run the same command again to go on.")
        if total:
            self.pace(done, total)

    def stage(self, name: str) -> None:
        self.pace = Pace(self.say, name)
        self.in_time()
        began = time.monotonic()
        getattr(self, name)()
        self.say(f"{name}: done in {time.monotonic() - began:.1f} s")


@contextmanager
def stopping(say: Say) -> Iterator[None]:
    """Leaves with STOPPED and a sentence when time is up, at Ctrl-C and at SIGTERM."""
    try:
        with sigterm_as_ctrl_c():
            yield
    except OutOfTime as stopped:
        say(str(stopped))
        raise SystemExit(STOPPED) from None
    except KeyboardInterrupt:
        say("Stopped; what is finished is kept. Run the same command again to go on.")
        raise SystemExit(STOPPED) from None
