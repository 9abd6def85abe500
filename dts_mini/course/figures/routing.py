"""Routing: where images of each task are sent, and what the routed experts answer."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.course.figures.shared import estimates, whiskers
from dts_mini.course.style import styled


@styled
def routing_maps(choices: Mapping[str, Tensor], truth: Tensor, tasks: Sequence[str]) -> tuple[Figure, dict]:
    """A panel a router: the share in % of each task's images (row) that it sends to each task (column).

    ``choices`` and ``truth`` are task numbers (n,).
    """
    k = len(tasks)
    size = {"figsize": (6.6, 3.5 * len(choices) + 1)}
    figure, panels = plt.subplots(len(choices), 1, sharex=True, squeeze=False, **size)
    data = {"tasks": list(tasks)}
    for axes, (name, chosen) in zip(panels[:, 0], choices.items(), strict=True):
        counts = torch.zeros(k, k).index_put_((truth, chosen), torch.ones(len(truth)), accumulate=True)
        shares = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
        image = axes.imshow(shares.numpy(), cmap="cividis", vmin=0, vmax=100)
        for i, row in enumerate(shares.tolist()):
            for j, value in enumerate(row):
                if value >= 0.5:
                    look = {"fontsize": 8, "color": "k" if value > 50 else "w"}
                    axes.text(j, i, f"{value:.0f}", ha="center", va="center", **look)
        axes.set_title(name)
        axes.set_xticks(range(k), tasks, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(k), tasks)
        axes.set_ylabel("task of the image")
        data[name] = shares.tolist()
    panels[-1, 0].set_xlabel("chosen task")
    figure.colorbar(image, ax=list(panels[:, 0]), label="share of the task's images (%)", shrink=0.5)
    told = "; ".join(
        f"{name}: at least {min(data[name][i][i] for i in range(k)):.0f} % of a task's images on the diagonal"
        for name in choices
    )
    figure.alt = (
        f"Heat maps of the share of each task's images that is sent to each task, a panel for each router. {told}."
    )
    return figure, data


@styled
def routed_accuracies(
    rows: Mapping[str, Mapping], routers: Sequence[str], batches: Sequence[int]
) -> tuple[Figure, dict]:
    """Mean accuracy of the routed experts (%), with its interval, against how many images of a task go together.

    ``rows`` are those of the table of routing by name; the oracle and the best merges are drawn as levels.
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.0))
    data = {}
    for number, router in enumerate(routers):
        found = [rows[router if batch == 1 else f"{router}, batches of {batch}"]["end to end"] for batch in batches]
        values, intervals = [100 * e["value"] for e in found], [(e["low"], e["high"]) for e in found]
        data[router] = estimates(values, intervals)
        places = [place + 0.08 * (number - (len(routers) - 1) / 2) for place in range(len(batches))]
        whiskers(axes, places, data[router], number, router)
    looks = iter(("-", "--", ":"))
    for name, row in rows.items():
        if name.startswith(("oracle", "best merge")):
            data[name] = 100 * row["end to end"]["value"]
            axes.axhline(data[name], color="0.35", linestyle=next(looks), linewidth=1, label=name)
    axes.set_xticks(range(len(batches)), batches)
    axes.set_xlabel("images of one task that are routed together")
    axes.set_ylabel("accuracy end to end,\nmean over the tasks (%)")
    axes.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper center", ncols=2)
    told = "; ".join(
        f"{name}: {d:.1f}" if isinstance(d, float) else f"{name}: {d['value'][0]:.1f} to {d['value'][-1]:.1f}"
        for name, d in data.items()
    )
    figure.alt = (
        "Accuracy end to end in %, with intervals, by how many images of a task go together, and levels for the "
        f"oracle and the best merge. From the fewest to the most images, {told}."
    )
    return figure, data
