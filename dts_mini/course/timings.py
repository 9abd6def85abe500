"""How long each notebook ran, kept with where and when, for the book's table of timings."""

import json
from collections.abc import Mapping
from pathlib import Path

from dts_mini.core.file import write_bytes
from dts_mini.suites.tables import provenance

PATH = Path(__file__).parents[2] / "data/timings.json"


def record(seconds: Mapping[str, float], path: Path = PATH) -> None:
    """Writes seconds by notebook (``{"02_name": 12.3}``); all of one run, so that one provenance holds for them."""
    entry = {"seconds": {name: round(value, 1) for name, value in seconds.items()}, "provenance": provenance()}
    write_bytes((json.dumps(entry, indent=1) + "\n").encode(), path, overwrite=True)
