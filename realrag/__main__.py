"""`python -m realrag`, and the command `realrag`: imports the commands inside, so that Ctrl-C is heard from the start."""

import atexit
import os
import signal
import sys

from . import STOPPED_TEXT
from .interrupts import interrupts_heard


def main() -> int:
    """The exit code of the command that the arguments name; 130 where it was stopped, while modules load too."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as in a shell's background job
        signal.signal(signal.SIGINT, _stop_at_once)
    try:
        from .commands.main import main as run

        # While the interpreter closes there is nothing to stop, and no Python to answer a signal any more.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGINT, before)
        with interrupts_heard():
            return run()
    except KeyboardInterrupt:
        print(STOPPED_TEXT, file=sys.stderr)
        return 130


def _stop_at_once(*_signal: object) -> None:
    """Nothing is under way while modules load, and an interrupt inside them may come out as any error."""
    os.write(2, f"{STOPPED_TEXT}\n".encode())
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
