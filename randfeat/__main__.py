"""Entry point of `python -m randfeat`, the same as the command `randfeat`."""

import sys

from .cli import main

sys.exit(main())
