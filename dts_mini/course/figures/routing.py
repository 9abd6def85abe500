"""Routing: where images of each task are sent."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.course.style import styled


@styled
def routing_maps(choices: Mapping[str, Tensor], truth: Tensor, tasks: Sequence[str]) -> tuple[Figure, dict]:
    """A panel a router: the share in % of each task's images (row) that it sends to each task (column).

    ``choices`` and ``truth`` are task numbers (n,).
    """
    k = len(tasks)
    figure, panels = plt.subplots(1, len(choices), figsize=(3.6 * len(choices) + 1.6, 4.4), sharey=True, squeeze=False)
    data = {"tasks": list(tasks)}
    for axes, (name, chosen) in zip(panels[0], choices.items(), strict=True):
        counts = torch.zeros(k, k).index_put_((truth, chosen), torch.ones(len(truth)), accumulate=True)
        shares = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
        image = axes.imshow(shares.numpy(), cmap="cividis", vmin=0, vmax=100)
        for i, row in enumerate(shares.tolist()):
            for j, value in enumerate(row):
                if value >= 0.5:
                    axes.text(
                        j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color="k" if value > 50 else "w"
                    )
        axes.set_title(name)
        axes.set_xticks(range(k), tasks, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_xlabel("chosen task")
        data[name] = shares.tolist()
    panels[0, 0].set_yticks(range(k), tasks)
    panels[0, 0].set_ylabel("task of the image")
    figure.colorbar(image, ax=list(panels[0]), label="share of the task's images (%)", shrink=0.8)
    return figure, data
