"""`python -m randfeat` is the command `randfeat`."""

import sys

from .cli import main

sys.exit(main())
