"""What several figures need: the kinds and layers of tensors, estimates with their intervals."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from dts_mini.course.style import cue
from dts_mini.suites.evaluation import accuracy_interval, bootstrap, interval

KINDS = {
    "attention, in": "attn.in_proj_weight",
    "attention, out": "attn.out_proj.weight",
    "MLP, in": "mlp.c_fc.weight",
    "MLP, out": "mlp.c_proj.weight",
    "norms and biases": "bias|ln_",
    "patches, positions, projection": "",
}


def layer_of(name: str) -> str:
    if "resblocks." in name:
        return f"block {int(name.split('resblocks.')[1].split('.')[0]) + 1}"
    return "output" if name.startswith(("ln_post", "proj")) else "input"


def estimates(values: list[float], intervals: list[tuple[float, float]]) -> dict[str, list[float]]:
    """Values, already in %, and their intervals, put in %."""
    low, high = zip(*intervals, strict=True)
    return {"value": values, "low": [100 * x for x in low], "high": [100 * x for x in high]}


def intervals(samples: Sequence[Tensor], unit: float = 1) -> dict[str, list[float]]:
    """Means of samples (n) and their 95 % bootstrap intervals, all times ``unit``."""
    drawn = bootstrap({str(number): {"task": sample} for number, sample in enumerate(samples)}).values()
    ends = [
        accuracy_interval(sample, draws[:, 0]) if sample.dtype == torch.bool else interval(draws[:, 0])
        for sample, draws in zip(samples, drawn, strict=True)
    ]
    low, high = zip(*ends, strict=True)
    found = {"value": [sample.float().mean().item() for sample in samples], "low": low, "high": high}
    return {end: [unit * x for x in values] for end, values in found.items()}


def whiskers(axis: Axes, x: Sequence[float], entry: Mapping[str, list[float]], index: int, label, **look) -> None:
    """Estimates with their intervals, in the colour and marker of series ``index``."""
    axis.errorbar(x, entry["value"], yerr=reach(entry), capsize=2, markersize=6, label=label, **{**cue(index), **look})


def reach(entry: Mapping[str, Sequence[float]]) -> list[list[float]]:
    """How far estimates' intervals reach down and up, for error bars; of one without any width nothing is drawn.

    Its caps would look like certainty, where it is only no estimate: what is compared with itself, or fixed.
    """
    value, low, high = (torch.tensor(entry[key]) for key in ("value", "low", "high"))
    bars = torch.stack([value - low, high - value]).clamp(min=0)
    return bars.masked_fill(low == high, float("nan")).tolist()
