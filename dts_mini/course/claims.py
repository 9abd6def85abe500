"""Claims: sentences with a number in them, checked where they are made.

A claim prints its sentence and no digits of the measurement, so that a notebook's stored output is the same on every
machine; the measured number is recorded, and a claim that does not hold is an error.
"""

import json
import os
from pathlib import Path

from dts_mini.core.file import write_bytes


class ClaimError(AssertionError):
    """A measured number lies outside what its sentence allows."""


def claim(name: str, sentence: str, value: float, *, low: float = float("-inf"), high: float = float("inf")) -> None:
    """Checks that ``value`` lies in [low, high] and prints ``sentence``; ClaimError, naming both, when it does not.

    Where the environment variable DTS_CLAIMS names a folder, the number goes to ``<name>.json`` there, for the tables.
    """
    if not low <= value <= high:
        raise ClaimError(f"claim {name!r} does not hold: {value:.6g} is outside [{low:g}, {high:g}] ({sentence})")
    if folder := os.environ.get("DTS_CLAIMS"):
        record = {"name": name, "sentence": sentence, "value": float(value), "low": low, "high": high}
        record = {key: entry for key, entry in record.items() if entry not in (float("inf"), float("-inf"))}
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_bytes((json.dumps(record, indent=2) + "\n").encode(), Path(folder) / f"{name}.json", overwrite=True)
    print(f"holds: {sentence}")
