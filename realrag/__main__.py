"""`python -m realrag`, and the command `realrag`: imports the commands inside, so that Ctrl-C is heard from the start."""

import sys

from . import STOPPED_TEXT


def main() -> int:
    try:
        from .commands.main import main as run

        return run()
    except KeyboardInterrupt:
        print(STOPPED_TEXT, file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
