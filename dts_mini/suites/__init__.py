"""The suites: tasks, images, checkpoints and heads behind one face."""

import os

from dts_mini.core.errors import DTSError

SUITES = ("mini",)


def load_suite(name: str | None = None):
    """The suite called ``name``, by default what the environment variable DTS_SUITE says, else ``mini``."""
    name = name or os.environ.get("DTS_SUITE") or "mini"
    if name not in SUITES:
        raise DTSError(f"suite {name!r} is unknown: choose one of {', '.join(SUITES)}")
    from dts_mini.suites.mini.suite import MiniSuite  # open_clip takes seconds to import

    return MiniSuite()
