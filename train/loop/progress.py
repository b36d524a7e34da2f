"""Progress of a long stage: one line every ten seconds with the count, the speed and the time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

EVERY = 10.0  # seconds between two lines
OVER = 60.0  # seconds over which the speed is averaged, so that it follows a slow folder or a busy machine


class Progress:
    """A progress(done, total) callback. The first call sets the baseline and does not count toward the speed."""

    def __init__(self, log: Callable[[str], None], what: str, clock: Callable[[], float] = time.monotonic):
        self.log, self.what, self.clock = log, what, clock
        self.counts: deque[tuple[float, int]] = deque()
        self.logged = clock()
        self.last: tuple[int, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        now, self.last = self.clock(), (done, total)
        if self.counts and done < self.counts[-1][1]:  # another count begins, such as the test photos
            self.counts.clear()
        if not self.counts or done > self.counts[-1][1]:
            self.counts.append((now, done))
        while len(self.counts) > 2 and self.counts[1][0] < now - OVER:
            self.counts.popleft()
        if now - self.logged < EVERY or done >= total:
            return
        self.logged = now
        (since, before), line = self.counts[0], f"{self.what}: {done:,} of {total:,}"
        if now > since and done > before:
            per_second = (done - before) / (now - since)
            line += f", {per_second:.3g} a second, {duration((total - done) / per_second)} left"
        self.log(line)

    def state(self) -> str:
        """What is being done, and how much of it is done, for a line between two calls."""
        return f"{self.what}: {self.last[0]:,} of {self.last[1]:,} done" if self.last else self.what


def duration(seconds: float) -> str:
    """Seconds as text: 50 s, 4 min, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
