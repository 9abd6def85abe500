"""Numbers as they are stored: rounded, with a 95 % interval; and when, with what and where they were made."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from scipy import stats
from torch import Tensor

from dts_mini.suites.evaluation import interval


def estimate(value: float, draws: Tensor) -> dict:
    """A value with the percentile interval of its resampled estimates (draws,)."""
    low, high = interval(draws)
    return {"value": round(value, 5), "low": round(low, 5), "high": round(high, 5)}


def mean_over(values: list[float]) -> dict:
    """The mean of a value a seed and Student's 95 % interval of it, and the values; of one there is no interval."""
    sample = torch.tensor(values, dtype=torch.float64)
    mean = sample.mean().item()
    if len(values) == 1:
        return {"value": round(mean, 5), "each": [round(mean, 5)]}
    half = stats.t.ppf(0.975, len(values) - 1) * sample.std().item() / len(values) ** 0.5
    found = {"value": round(mean, 5), "low": round(mean - half, 5), "high": round(mean + half, 5)}
    return found | {"each": [round(value, 5) for value in values]}


def provenance(*more: str) -> dict:
    """When, with what and where a result was made; ``more`` are packages on which it depends beside the usual ones."""
    packages = {name: version(name) for name in ("torch", "open_clip_torch", "numpy", *more)}
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "dts_mini": version("dts_mini"),
        "python": platform.python_version(),
        "packages": packages,
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }
