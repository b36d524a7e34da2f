"""How far a long stage is, how fast it goes, and how long it will take: one line now and then, for screens and logs
alike."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

EVERY = 10.0  # seconds between two lines
OVER = 60.0  # seconds that the rate is taken over: a slow folder or a busy machine shows, an old one is forgotten


class Pace:
    """A progress(done, total) callback. The first call says what was done before, which tells nothing of the rate."""

    def __init__(self, say: Callable[[str], None], what: str, clock: Callable[[], float] = time.monotonic):
        self.say, self.what, self.clock = say, what, clock
        self.seen: deque[tuple[float, int]] = deque()
        self.said = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self.clock()
        if self.seen and done < self.seen[-1][1]:  # another count begins, such as the test photos
            self.seen.clear()
        if not self.seen or done > self.seen[-1][1]:
            self.seen.append((now, done))
        while len(self.seen) > 2 and self.seen[1][0] < now - OVER:
            self.seen.popleft()
        if now - self.said < EVERY or done >= total:
            return
        self.said = now
        (since, before), line = self.seen[0], f"{self.what}: {done:,} of {total:,}"
        if now > since and done > before:
            rate = (done - before) / (now - since)
            line += f", {rate:.3g} a second, {spoken((total - done) / rate)} left"
        self.say(line)


def spoken(seconds: float) -> str:
    """A length of time as one reads it: 50 s, 4 min, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
