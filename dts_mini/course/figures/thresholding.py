"""Thresholding: the groups of a matrix."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.course.style import PALETTE, bar_cue, styled

GROUP_NAMES = ("strong negative", "weak negative", "weak positive", "strong positive")


@styled
def group_histogram(elements: Tensor, codes: Tensor, scales: Sequence[float], bins: int = 81) -> tuple[Figure, dict]:
    """Elements of a factor by size, stacked by their group of four, and the one value that each group becomes."""
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
def code_image(codes: Tensor, columns: int = 96) -> tuple[Figure, dict]:
    """Group codes (k x n) of a factor's first ``columns`` elements a row, as an image; dark to light is 0 to 3."""
    window = codes[:, :columns].int()
    colours = ListedColormap([colormaps["cividis"](x) for x in (0.0, 0.35, 0.7, 1.0)])
    figure, axes = plt.subplots(figsize=(8.4, 2.4))
    image = axes.imshow(window.numpy(), cmap=colours, vmin=-0.5, vmax=3.5, interpolation="nearest", aspect="auto")
    bar = figure.colorbar(image, ax=axes, ticks=range(4))
    bar.ax.set_yticklabels([f"{code:02b} {name}" for code, name in enumerate(GROUP_NAMES)])
    bar.set_label("code (2 bits)")
    axes.set_xlabel("element of the vector (number)")
    axes.set_ylabel("component (number)")
    return figure, {"codes": window.tolist()}
