"""`python -m realrag`: the same as the command `realrag`."""

import sys

from .commands.main import main

sys.exit(main())
