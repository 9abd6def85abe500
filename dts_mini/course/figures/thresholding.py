"""Thresholding: the groups of a matrix, where to cut them, and how many of them."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.course.style import PALETTE, bar_cue, cue, styled

GROUP_NAMES = ("strong negative", "weak negative", "weak positive", "strong positive")
SHADES = tuple(colormaps["PuOr"](x) for x in (0.15, 0.36, 0.64, 0.85))  # of the codes 0 to 3: strong is dark


@styled
def numbers_and_codes(elements: Tensor, codes: Tensor, size: tuple[int, int] = (6, 9)) -> tuple[Figure, dict]:
    """The top left corner of a factor's elements (k x n), as numbers and as their codes of two bits (k x n)."""
    numbers, codes = (x[: size[0], : size[1]] for x in (elements.float(), codes.int()))
    limit = numbers.abs().max().item()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 2.9), width_ratios=(1.25, 1))
    left.imshow(numbers.numpy(), cmap="PuOr", vmin=-1.6 * limit, vmax=1.6 * limit, aspect="auto")  # pale: read on top
    right.imshow(codes.numpy(), cmap=ListedColormap(SHADES), vmin=-0.5, vmax=3.5, aspect="auto")
    for row, column in torch.cartesian_prod(*map(torch.arange, numbers.shape)).tolist():
        number, code = numbers[row, column].item(), codes[row, column].item()
        left.text(column, row, f"{number:.3f}".replace("-", "\u2212"), ha="center", va="center", fontsize=7.5)
        right.text(column, row, f"{code:02b}", ha="center", va="center", color="white" if code in (0, 3) else "black")
    left.set_title("32 bits an element")
    right.set_title("2 bits an element")
    for axes in (left, right):
        axes.set_xlabel("element of the vector (number)")
        axes.set_xticks(range(numbers.shape[1]))
    left.set_ylabel("component (number)")
    patches = [plt.Rectangle((0, 0), 1, 1, facecolor=shade, edgecolor="0.5") for shade in SHADES]
    labels = [f"{code:02b} {name}" for code, name in enumerate(GROUP_NAMES)]
    figure.legend(patches, labels, loc="outside right center", fontsize="small")
    return figure, {"numbers": numbers.tolist(), "codes": codes.tolist(), "limit": [limit]}


@styled
def group_histogram(
    elements: Tensor, codes: Tensor, scales: Sequence[float] = (), bins: int = 81
) -> tuple[Figure, dict]:
    """Elements of U by size, stacked by their group of four; with ``scales`` the one value that each group becomes."""
    elements, codes, scales = elements.flatten(), codes.flatten(), [float(s) for s in scales]
    reach = elements.abs().quantile(0.999).item()
    edges = torch.linspace(-reach, reach, bins + 1)
    counts = {
        name: torch.histogram(elements[codes == g].cpu().float(), edges).hist.int().tolist()
        for g, name in enumerate(GROUP_NAMES)
    }
    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    floor, middles = torch.zeros(bins), (edges[1:] + edges[:-1]) / 2
    for g, (name, count) in enumerate(counts.items()):
        bars = bar_cue((3, 1, 5, 0)[g])
        axes.bar(middles, count, 2 * reach / bins, floor, **bars, linewidth=0, label=name)
        floor += torch.tensor(count)
    for g, value in enumerate(scales):
        label = "the group's value" if g == 0 else None
        axes.axvline(value, color=PALETTE[6], linestyle="--", linewidth=1.4, label=label)
    axes.set_xlabel("element of U (unit-length columns)")
    axes.set_ylabel("elements (count)")
    axes.legend(loc="upper right")
    return figure, {"edges": edges.tolist(), "counts": counts, "scales": scales}


@styled
def kept_parts(cosines: Mapping[str, float], level: float) -> tuple[Figure, dict]:
    """Cosines with M of what is rebuilt when only a part of each element is kept; ``level``: with all of it."""
    figure, axes = plt.subplots(figsize=(6.8, 0.6 + 0.5 * len(cosines)))
    for place, cosine in enumerate(cosines.values()):
        axes.barh(place, cosine, height=0.6, **bar_cue(place))
        axes.annotate(f" {cosine:.2f}", (max(cosine, 0), place), va="center")
    axes.axvline(level, color=PALETTE[6], linestyle="--", label="exact elements, 32 bits")
    axes.set_yticks(range(len(cosines)), list(cosines))
    axes.invert_yaxis()
    axes.set_xlim(min(0, *cosines.values()), 1)
    axes.set_xlabel("cosine with M (1: the same direction)")
    axes.legend(loc="lower left", bbox_to_anchor=(0.5, 1))
    return figure, {"part": list(cosines), "cosine": list(cosines.values()), "level": [level]}


@styled
def cut_curve(
    weak: Sequence[float], errors: Mapping[str, Sequence[float]], bits: Sequence[float], marks: Mapping[str, float]
) -> tuple[Figure, dict]:
    """Relative errors, and the entropy of the codes, against the share of each sign's elements that is called weak.

    Shares and errors in [0, 1]; ``marks``: cuts that have a name.
    """
    percent = lambda shares: [100 * float(share) for share in shares]
    weak, errors = percent(weak), {name: percent(values) for name, values in errors.items()}
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.3))
    for number, (name, values) in enumerate(errors.items()):
        left.plot(weak, values, **cue(number), markersize=4, label=name)
    least = [weak[values.index(min(values))] for values in errors.values()]
    left.plot(least, [min(values) for values in errors.values()], "X", color=PALETTE[6], markersize=8, label="least")
    right.plot(weak, bits, **cue(2), markersize=4, label="entropy of the codes of U")
    left.set_ylim(0)
    left.set_ylabel("relative error (%)")
    right.set_ylim(1, 2.05)
    right.set_ylabel("entropy (bits a code)")
    for axes in (left, right):
        for number, (name, share) in enumerate(marks.items()):
            axes.axvline(100 * share, color="0.4", linestyle=(":", "--")[number % 2], label=name)
        axes.set_xlabel("weak elements of each sign (%)")
        axes.legend(fontsize="small", loc="lower left", frameon=True, framealpha=1, edgecolor="white")
    return figure, {"weak": weak, "bits": list(bits), "least": least} | errors


@styled
def groups_traded(
    accuracy: Mapping[str, Mapping[int, Mapping[str, float]]],
    kl: Mapping[str, Mapping[int, Mapping[str, float]]],
    expert: float,
) -> tuple[Figure, dict]:
    """Accuracy (in [0, 1]) and KL divergence (nats) of rebuilt experts against the number of groups, by series.

    Each estimate is {"value", "low", "high"}; ``expert`` is the expert's accuracy.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.2))
    data = {"accuracy (%)": _by_groups(left, accuracy, 100), "KL (nats)": _by_groups(right, kl, 1)}
    left.axhline(100 * expert, color="0.4", linestyle=":", label="expert")
    left.set_ylabel("accuracy (%)")
    right.set_ylabel("KL from the expert (nats)")
    right.set_ylim(0)
    left.legend(fontsize="small", loc="lower right")
    right.legend(fontsize="small", loc="upper right")
    return figure, data | {"expert": [100 * expert]}


def _by_groups(axes: Axes, series: Mapping[str, Mapping[int, Mapping[str, float]]], unit: float) -> dict:
    """Estimates with their intervals, in ``unit``, a little apart for each series; returns what was drawn."""
    data, groups = {}, list(next(iter(series.values())))
    for number, (name, found) in enumerate(series.items()):
        entry = {key: [unit * found[g][key] for g in groups] for key in ("value", "low", "high")}
        value, low, high = map(torch.tensor, entry.values())
        x = [place + 0.16 * (number - (len(series) - 1) / 2) for place in range(len(groups))]
        axes.errorbar(x, value, yerr=torch.stack([value - low, high - value]), capsize=2, label=name, **cue(number))
        data[name] = entry
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlabel("groups")
    return data | {"groups": groups}
