"""`python -m realrag`: the same as the command `realrag`."""

import sys

from .cli import main

sys.exit(main())
