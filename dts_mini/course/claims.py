"""Claims: sentences with a number in them, checked where they are made.

A claim prints its sentence and no digits of the measurement, so that a notebook's stored output is the same on every
machine; the measured number is recorded, and a claim that does not hold is an error.
"""

import json
import os
from math import inf
from pathlib import Path

from dts_mini.core.file import write_bytes


class ClaimError(AssertionError):
    """A measured number lies outside what its sentence allows."""


def claim(
    name: str,
    sentence: str,
    value: float,
    *,
    low: float = -inf,
    high: float = inf,
    interval: tuple[float, float] | None = None,
    unit: str = "",
) -> None:
    """Checks that ``value`` lies in [low, high] and prints ``sentence``; ClaimError, naming both, when it does not.

    An estimate is given with its 95 % ``interval``, all of which has to lie in [low, high]. ``unit`` is how the number
    reads: with "%" the value is a share in [0, 1], with "points" a difference of two such shares, else as it is.
    Where the environment variable DTS_CLAIMS names a folder, the claim goes to ``<name>.json`` there, for the tables.
    """
    ends = (value, *(interval or ()))
    if not all(low <= end <= high for end in ends):
        got = f"{value:.6g}" + (f" (95 % interval {interval[0]:.6g} to {interval[1]:.6g})" if interval else "")
        raise ClaimError(f"claim {name!r} does not hold: {got} is outside [{low:g}, {high:g}] ({sentence})")
    if folder := os.environ.get("DTS_CLAIMS"):
        record = {"name": name, "sentence": sentence, "value": float(value), "unit": unit}
        record |= {key: float(end) for key, end in (("low", low), ("high", high)) if abs(end) != inf}
        record |= {"interval": [float(end) for end in interval]} if interval else {}
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_bytes((json.dumps(record, indent=2) + "\n").encode(), Path(folder) / f"{name}.json", overwrite=True)
    print(f"holds: {sentence}")
