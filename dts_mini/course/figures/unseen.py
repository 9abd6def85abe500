"""Unseen tasks: weights, and what the fused models answer."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dts_mini.course.style import MARKERS, PALETTE, bar_cue, styled


@styled
def weight_bars(seen: Sequence[str], weights: Mapping[str, Sequence[float]]) -> tuple[Figure, dict]:
    """Fusion weights of the seen tasks, for each unseen task; a line marks equal weights."""
    weights = {task: [float(w) for w in row] for task, row in weights.items()}
    width = 0.8 / len(weights)
    figure, axes = plt.subplots(figsize=(7.0, 3.0))
    for number, (task, row) in enumerate(weights.items()):
        place = [i + (number - (len(weights) - 1) / 2) * width for i in range(len(seen))]
        axes.bar(place, row, width, **bar_cue(number), label=f"for {task}")
    axes.axhline(1 / len(seen), color=PALETTE[6], linestyle="--", label="equal weights")
    axes.set_xticks(range(len(seen)), seen, rotation=15, ha="right")
    axes.set_xlabel("seen task")
    axes.set_ylabel("weight (sums to 1)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, {"seen": list(seen), "weights": weights}


@styled
def unseen_accuracies(table: Mapping) -> tuple[Figure, dict]:
    """Every row of the unseen-task table, a panel a task, with 95 % intervals; a line marks zero-shot."""
    names, tasks = [row["name"] for row in table["rows"]], list(table["columns"])
    kinds = {"zero-shot": 0, "oracle": 4, "DTS": 3, "expert": 2}  # the rest are base merges, 1
    labels = ("zero-shot", "base merge", "one seen expert", "DTS unseen", "oracle")
    kind = [next((k for start, k in kinds.items() if name.startswith(start)), 1) for name in names]
    figure, panels = plt.subplots(1, len(tasks), figsize=(9.2, 0.27 * len(names) + 1.2), sharey=True, squeeze=False)
    data = {"row": names}
    for axes, task in zip(panels[0], tasks, strict=True):
        cells = [row["accuracy"][task] for row in table["rows"]]
        value, low, high = ([100 * cell[key] for cell in cells] for key in ("value", "low", "high"))
        for number, label in enumerate(labels):
            here = [i for i, k in enumerate(kind) if k == number]
            reach = [[value[i] - low[i] for i in here], [high[i] - value[i] for i in here]]
            looks = {"color": PALETTE[number], "fmt": MARKERS[number], "capsize": 3, "label": label}
            axes.errorbar([value[i] for i in here], here, xerr=reach, **looks)
        axes.axvline(value[names.index("zero-shot")], color=PALETTE[6], linestyle=":", linewidth=1)
        axes.set_xlabel(f"accuracy on {task} (%)")
        axes.grid(axis="x", alpha=0.3)
        data[task] = {"value": value, "low": low, "high": high}
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].invert_yaxis()
    panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, data
