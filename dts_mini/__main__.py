"""``python -m dts_mini``: the command line."""

import sys

from dts_mini.cli import main

sys.exit(main())
