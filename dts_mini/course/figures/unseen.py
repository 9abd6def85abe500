"""Unseen tasks: weights, what the fused models answer, and whether nearness tells it beforehand."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.core.state import State
from dts_mini.course.style import DASHES, MARKERS, PALETTE, bar_cue, cue, styled


@styled
def fusion_plane(base: State, seen: Mapping[str, State], goal: State, fused: State) -> tuple[Figure, dict]:
    """Where seen experts and the fused model lie, from the base: along the way to ``goal``, an unseen one, and aside.

    Both in units of the distance from the base to the goal. All sideways directions share one axis, so two models at
    the same place there may still be far apart.
    """
    flat = lambda state: torch.cat([state[name].flatten() - base[name].flatten() for name in sorted(base)])
    way = flat(goal)
    far = way.norm()

    def place(state: State) -> list[float]:
        vector = flat(state)
        along = (vector @ way / far.square()).item()
        return [along, ((vector / far).square().sum().item() - along**2) ** 0.5]

    data = {"seen": {task: place(expert) for task, expert in seen.items()}, "fused": place(fused), "goal": [1.0, 0.0]}
    figure, axes = plt.subplots(figsize=(8.0, 4.2))
    for number, (task, (x, y)) in enumerate(data["seen"].items()):
        axes.plot([0, x], [0, y], color=PALETTE[number % 7], linestyle=DASHES[number % 7], linewidth=0.8)
        looks = {**cue(number), "linestyle": "none", "markersize": 8}
        axes.plot(x, y, **looks, label=f"expert of {task}")
    far_ones = (("fused model", data["fused"], "*", 14), ("the unseen expert", data["goal"], "X", 10))
    for label, (x, y), marker, size in far_ones:
        axes.plot(x, y, color=PALETTE[6], linestyle="none", marker=marker, markersize=size, label=label)
    axes.plot(0, 0, color="0.4", marker="o", linestyle="none", markersize=10, label="base")
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set_aspect("equal")
    axes.set_xlim(-0.2, 1.1)
    axes.margins(y=0.08)
    axes.set_xlabel("along the way to the unseen task's expert (its distance = 1)")
    axes.set_ylabel("aside of that way")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, data


@styled
def descriptor_map(cosines: Tensor, tasks: Sequence[str], unseen: Sequence[str]) -> tuple[Figure, dict]:
    """Cosines (k, k) of the descriptors of k tasks, each written in its cell; frames mark the unseen tasks' rows."""
    figure, axes = plt.subplots(figsize=(6.8, 5.2))
    image = axes.imshow(cosines.numpy(), cmap="cividis", vmin=min(0.0, cosines.min().item()), vmax=1)
    for i, row in enumerate(cosines.tolist()):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="k" if value > 0.5 else "w")
    for number, task in enumerate(unseen):
        place = (-0.5, tasks.index(task) - 0.5)
        look = {"fill": False, "edgecolor": PALETTE[1], "linewidth": 2.5, "clip_on": False}
        axes.add_patch(plt.Rectangle(place, len(tasks), 1, **look, label="" if number else "unseen task"))
    axes.set_xticks(range(len(tasks)), tasks, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set(xlabel="task", ylabel="task")
    figure.legend(loc="outside upper center")
    figure.colorbar(image, label="cosine of the task descriptors (no unit)")
    return figure, {"tasks": list(tasks), "cosines": cosines.tolist(), "unseen": list(unseen)}


@styled
def sharpness_curves(curves: Mapping[str, Mapping[str, list[float]]], stops: Sequence[float]) -> tuple[Figure, dict]:
    """Accuracy minus the base's, in points, with 95 % intervals, at each sharpness of the weights; a curve each.

    ``curves`` is {name: {"value", "low", "high"}}, shares in [0, 1], one entry a stop.
    """
    figure, axes = plt.subplots(figsize=(7.4, 3.6))
    data = {}
    for number, (name, curve) in enumerate(curves.items()):
        value, low, high = ([100 * x for x in curve[key]] for key in ("value", "low", "high"))
        reach = [[v - e for v, e in zip(value, low, strict=True)], [e - v for v, e in zip(value, high, strict=True)]]
        place = [i + 0.06 * (number - (len(curves) - 1) / 2) for i in range(len(stops))]
        axes.errorbar(place, value, reach, capsize=3, **cue(number), label=name)
        data[name] = {"value": value, "low": low, "high": high}
    axes.axhline(0, color="0.5", linewidth=1, label="the base (equal weights)")
    axes.set_xticks(range(len(stops)), [f"{stop:g}" for stop in stops])
    axes.set_xlabel("sharpness p of the weights (0: equal, 1: the paper's)")
    axes.set_ylabel("accuracy minus the base's (points)\nbars: 95 % intervals")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, {"stops": list(stops), **data}


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


@styled
def nearness_gains(points: Sequence[Mapping]) -> tuple[Figure, dict]:
    """Against nearness, what fusion gains on the base merge and what that gains on zero-shot: a panel each, in points.

    ``points`` are cases with "task", "nearness" (cosine) and the two gains (shares in [0, 1]); a task has a colour and
    a marker.
    """
    tasks = list(dict.fromkeys(point["task"] for point in points))
    figure, panels = plt.subplots(1, 2, figsize=(9.4, 3.8))
    data = {task: {"nearness": [p["nearness"] for p in points if p["task"] == task]} for task in tasks}
    for axes, gain in zip(panels, ("fused on base merge", "base merge on zero-shot"), strict=True):
        for number, task in enumerate(tasks):
            y = [100 * point[gain] for point in points if point["task"] == task]
            hollow = {"markerfacecolor": "none"} if number >= len(PALETTE) else {}
            looks = {**cue(number), "linestyle": "none", "markersize": 6, "alpha": 0.8, **hollow}
            axes.plot(data[task]["nearness"], y, label=task, **looks)
            data[task][gain] = y
        axes.axhline(0, color="0.5", linewidth=1)
        axes.set_xlabel("nearness (cosine)")
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel("fused minus base merge (points)")
    panels[1].set_ylabel("base merge minus zero-shot (points)")
    panels[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, data


@styled
def unseen_gains(rows: Sequence[Mapping]) -> tuple[Figure, dict]:
    """For each row its mean gain on the base merge, with the 95 % interval, and its worst case, in points.

    The worst case is the gain on the better of zero-shot and the base merge; a line marks one point below.
    """
    names = [row["name"] for row in rows]
    gains = [row["gain on base merge"] for row in rows]
    value, low, high = ([100 * gain[key] for gain in gains] for key in ("value", "low", "high"))
    worst = [100 * row["worst"]["value"] for row in rows]
    figure, axes = plt.subplots(figsize=(8.4, 0.3 * len(rows) + 1.3))
    at = range(len(rows))
    reach = [[v - e for v, e in zip(value, low, strict=True)], [e - v for v, e in zip(value, high, strict=True)]]
    looks = {"color": PALETTE[0], "fmt": MARKERS[0], "capsize": 3}
    axes.errorbar(value, at, xerr=reach, **looks, label="mean gain on the base merge\nbars: 95 % intervals")
    looks = {"color": PALETTE[3], "marker": MARKERS[3], "linestyle": "none"}
    axes.plot(worst, at, **looks, label="worst case against the better\nof zero-shot and base merge")
    axes.axvline(0, color="0.5", linewidth=1)
    axes.axvline(-1, color=PALETTE[6], linestyle=":", linewidth=1, label="the goal for the worst case")
    axes.set_yticks(at, names)
    axes.invert_yaxis()
    axes.set_xlabel("points")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, {"row": names, "value": value, "low": low, "high": high, "worst": worst}
