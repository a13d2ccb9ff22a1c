"""``python -m vpd.cli`` is ``vpd``."""

import sys

from vpd.cli import main

sys.exit(main())
