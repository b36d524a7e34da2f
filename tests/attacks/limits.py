"""What one hostile file may cost whoever opens it: 5 seconds of CPU time, and 1 GB of memory."""

from __future__ import annotations

import resource
import signal
import time

SECONDS, BYTES = 5.0, 1 << 30
GIVE_UP = 60  # seconds by the clock after which a call is stopped


class Limits:
    """`with limits: ...` stops a call that hangs, and says in `exceeded` which limit it passed, or ""."""

    exceeded = ""

    def __enter__(self) -> Limits:
        self.exceeded = ""
        signal.signal(signal.SIGALRM, _stop)
        signal.alarm(GIVE_UP)
        self._began, self._peak = time.process_time(), _peak()
        return self

    def __exit__(self, *_exc) -> None:
        signal.alarm(0)
        seconds, grown = time.process_time() - self._began, _peak() - self._peak
        if seconds > SECONDS:
            self.exceeded = f"{seconds:.1f} s of CPU time"
        elif grown > BYTES:
            self.exceeded = f"{grown / 1e9:.1f} GB of memory"


def _stop(*_signal) -> None:
    raise TimeoutError(f"stopped after {GIVE_UP} s")


def _peak() -> int:
    """Bytes of memory that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
