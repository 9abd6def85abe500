"""Unseen tasks: weights, what the fused models answer, and whether nearness tells it beforehand."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.core.state import State
from dts_mini.course.figures.kinds import in_percent, look, name_strips, range_of, spread
from dts_mini.course.figures.shared import reach
from dts_mini.course.style import DASHES, HATCHES, MARKERS, PALETTE, styled
from dts_mini.measures.tables import rows_of

GREYS = ("0.25", "0.65", "0.45")  # of tasks as series: the colours are those of kinds of rows


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
        looks = look("one seen expert")
        axes.plot([0, x], [0, y], color=looks["color"], linestyle=DASHES[number % 7], linewidth=0.8)
        axes.plot(x, y, **looks | {"marker": MARKERS[number % 7]}, markersize=8, label=f"expert of {task}")
    ends = (("base", (0, 0), "base merge"), ("fused model", data["fused"], "DTS unseen"))
    for label, (x, y), which in (*ends, ("the unseen expert", data["goal"], "oracle")):
        axes.plot(x, y, **look(which), markersize=10)
        axes.annotate(label, (x, y), (9, -3), textcoords="offset points", weight="bold")
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set_aspect("equal")
    axes.set_xlim(-0.2, 1.6)
    axes.margins(y=0.08)
    axes.set_xlabel("along the way to the unseen task's expert (its distance = 1)")
    axes.set_ylabel("aside of that way")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    leaning = max(data["seen"], key=lambda task: data["seen"][task][0])
    figure.alt = (
        "A plane with the base at its origin and the unseen expert at distance one to the right. The seen experts "
        f"stand nearly straight above the base; {leaning} leans furthest to the right, by "
        f"{data['seen'][leaning][0]:.2f}. The fused model is at {data['fused'][0]:.2f} to the right, "
        f"{data['fused'][1]:.2f} up."
    )
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
    others = [i for i, task in enumerate(tasks) if task not in unseen]
    near = {task: max(others, key=lambda i, row=row: row[i]) for task, row in zip(tasks, cosines.tolist(), strict=True)}
    figure.alt = "Heat map of the cosines between the descriptors of all tasks. " + " ".join(
        f"Nearest to {task} is {tasks[near[task]]}, {cosines[tasks.index(task), near[task]]:.2f}." for task in unseen
    )
    return figure, {"tasks": list(tasks), "cosines": cosines.tolist(), "unseen": list(unseen)}


@styled
def sharpness_curves(curves: Mapping[str, Mapping[str, list[float]]], stops: Sequence[float]) -> tuple[Figure, dict]:
    """Accuracy minus the base's, in points, with 95 % intervals, at each sharpness of the weights; a curve each.

    ``curves`` is {name: {"value", "low", "high"}}, shares in [0, 1], one entry a stop.
    """
    figure, axes = plt.subplots(figsize=(7.4, 3.6))
    data = {}
    for number, (name, curve) in enumerate(curves.items()):
        data[name] = {key: [100 * x for x in curve[key]] for key in ("value", "low", "high")}
        place = [i + 0.06 * (number - (len(curves) - 1) / 2) for i in range(len(stops))]
        looks = {"color": GREYS[number % 3], "marker": MARKERS[number % 7], "linestyle": DASHES[number % 7]}
        axes.errorbar(place, data[name]["value"], reach(data[name]), capsize=3, **looks, label=name)
    axes.axhline(0, color=look("base merge")["color"], linewidth=1, label="the base (equal weights)")
    axes.set_xticks(range(len(stops)), [f"{stop:g}" for stop in stops])
    axes.set_xlabel("sharpness p of the weights (0: equal, 1: the paper's)")
    axes.set_ylabel("accuracy minus the base's (points)\nbars: 95 % intervals")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.alt = "Accuracy minus that of the base, in points, at sharpness " + ", ".join(
        [f"{stop:g}" for stop in stops]
    )
    for name, curve in data.items():
        figure.alt += f"; {' '.join(name.split())}: {', '.join(f'{value:.1f}' for value in curve['value'])}"
    figure.alt += "."
    return figure, {"stops": list(stops), **data}


@styled
def weight_bars(seen: Sequence[str], weights: Mapping[str, Sequence[float]]) -> tuple[Figure, dict]:
    """Fusion weights of the seen tasks, for each unseen task; a line marks equal weights."""
    weights = {task: [float(w) for w in row] for task, row in weights.items()}
    width = 0.8 / len(weights)
    figure, axes = plt.subplots(figsize=(6.4, 0.5 * len(seen) + 1.0))
    for number, (task, row) in enumerate(weights.items()):
        place = [i + (number - (len(weights) - 1) / 2) * width for i in range(len(seen))]
        looks = {"facecolor": GREYS[number % 3], "hatch": HATCHES[number % 7], "edgecolor": "white"}
        axes.barh(place, row, width, **looks, label=f"for {task}")
    axes.axvline(1 / len(seen), color=look("base merge")["color"], linestyle="--", label="equal weights")
    axes.set_yticks(range(len(seen)), seen)
    axes.invert_yaxis()
    axes.set_ylabel("seen task")
    axes.set_xlabel("weight (sums to 1)")
    axes.legend()
    figure.alt = "Bars of the weight of each seen task, with a line at equal weights" + "".join(
        f"; for {task}: " + ", ".join(f"{name} {weight:.2f}" for name, weight in zip(seen, row, strict=True))
        for task, row in weights.items()
    )
    figure.alt += "."
    return figure, {"seen": list(seen), "weights": weights}


@styled
def unseen_accuracies(table: Mapping) -> tuple[Figure, dict]:
    """Every row of the unseen-task table, a panel for each task and a strip for each kind of row, with 95 % intervals.

    A line marks zero-shot.
    """
    strips = {
        "zero-shot": "zero-shot",
        "base merge": "every base merge",
        "one seen expert": "each seen expert",
        "DTS unseen": "DTS, fused",
        "oracle": "oracle",
    }
    tasks = list(table["columns"])
    figure, panels = plt.subplots(len(tasks), 1, figsize=(6.6, 2.6 * len(tasks)), sharex=True, squeeze=False)
    data: dict = {"row": [row["name"] for row in table["rows"]]}
    for axes, task in zip(panels[:, 0], tasks, strict=True):
        data[task] = {}
        for y, family in enumerate(strips):
            rows = rows_of(table, family)
            found = data[task][family] = in_percent([row["accuracy"][task] for row in rows])
            spread(axes, y, found, family)
            if family == "one seen expert":  # by name: the worst and the best
                ends = sorted(
                    zip(found["value"], (row["name"].removeprefix("expert of ") for row in rows), strict=True)
                )
                for (value, name), where in zip((ends[0], ends[-1]), ("right", "left"), strict=True):
                    axes.text(value, y - 0.3, name, ha=where, va="bottom", fontsize="small")
        name_strips(axes, list(strips.values()))
        axes.axvline(data[task]["zero-shot"]["value"][0], color=look("zero-shot")["color"], linestyle=":", linewidth=1)
        axes.set_title(task)
    panels[-1, 0].set_xlabel("accuracy on test images (%), bars: 95 % intervals")
    figure.alt = "Accuracy on the unseen tasks, a panel each, with intervals" + "".join(
        f"; {task}: "
        + ", ".join(f"{word} {range_of(data[task][family]['value'])} %" for family, word in strips.items())
        for task in tasks
    )
    figure.alt += "."
    return figure, data


@styled
def nearness_gains(points: Sequence[Mapping]) -> tuple[Figure, dict]:
    """What fusion gains on the base merge, and what that gains on zero-shot: a strip a task, a dot for each case.

    ``points`` are cases with "task", "nearness" (cosine) and the two gains (shares in [0, 1]). Cases in which a twin is
    seen (a cosine over 0.9) are full dots; a stroke is the mean of those without. Tasks stand by their nearness without
    a twin, whose range is written beside them.
    """
    gains = {
        "fused on base merge": "fused minus base merge (points)",
        "base merge on zero-shot": "base merge minus zero-shot (points)",
    }
    strangers = lambda task: [p for p in points if p["task"] == task and p["nearness"] <= 0.9]
    nearest = lambda task: max((p["nearness"] for p in strangers(task)), default=1.0)
    tasks = sorted(dict.fromkeys(point["task"] for point in points), key=nearest, reverse=True)
    figure, panels = plt.subplots(2, 1, figsize=(6.8, 0.7 * len(tasks) + 1.8))
    data: dict = {task: {"nearness": [p["nearness"] for p in points if p["task"] == task]} for task in tasks}
    colours = [look(family)["color"] for family in ("DTS unseen", "base merge")]
    for axes, (gain, label), colour in zip(panels, gains.items(), colours, strict=True):
        for y, task in enumerate(tasks):
            cases = [point for point in points if point["task"] == task]
            data[task][gain] = [100 * case[gain] for case in cases]
            for number, case in enumerate(cases):
                height = y + 0.5 * (number / max(1, len(cases) - 1) - 0.5)
                full = PALETTE[6] if case["nearness"] > 0.9 else "none"
                looks = {"marker": "o", "markersize": 4, "markeredgecolor": PALETTE[6], "markeredgewidth": 0.6}
                axes.plot(100 * case[gain], height, linestyle="none", markerfacecolor=full, alpha=0.7, **looks)
            if alone := strangers(task):
                mean = 100 * sum(case[gain] for case in alone) / len(alone)
                axes.plot([mean, mean], [y - 0.4, y + 0.4], color=colour, linewidth=2.5)
                low, high = min(case["nearness"] for case in alone), nearest(task)
                words = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
                axes.text(1.01, y, words, transform=axes.get_yaxis_transform(), va="center", fontsize="small")
        name_strips(axes, tasks)
        axes.text(1.01, -0.7, "nearness", transform=axes.get_yaxis_transform(), va="bottom", fontsize="small")
        axes.axvline(0, color="0.5", linewidth=1)
        axes.set_xlabel(label)
    words = (("full dot: a twin is seen", -0.7, 0.9, "right"), ("stroke: mean without a twin", -0.7, 0.0, "left"))
    for text, y, x, where in words:
        panels[0].text(x, y, text, transform=panels[0].get_yaxis_transform(), ha=where, va="bottom", fontsize="small")
    figure.alt = "Gains in points, a strip for each task and a dot for each case"
    for gain in gains:
        figure.alt += f"; {gain}"
        for twin, words in ((True, "with a twin"), (False, "without one")):
            found = [100 * point[gain] for point in points if (point["nearness"] > 0.9) == twin]
            figure.alt += f", {words} {range_of(found)}" if found else ""
    figure.alt += "."
    return figure, data


@styled
def unseen_gains(rows: Sequence[Mapping]) -> tuple[Figure, dict]:
    """For each row its mean gain on the base merge, with the 95 % interval, and its worst case, in points.

    The worst case is the gain on the better of zero-shot and the base merge; a line marks one point below.
    """
    names = [row["name"] for row in rows]
    gains = [row["gain on base merge"] for row in rows]
    found = in_percent(gains)
    worst = [100 * row["worst"]["value"] for row in rows]
    figure, axes = plt.subplots(figsize=(6.6, 0.3 * len(rows) + 1.9))
    at = range(len(rows))
    looks = {"color": PALETTE[6], "fmt": MARKERS[0], "capsize": 3}
    axes.errorbar(
        found["value"], at, xerr=reach(found), **looks, label="mean gain on the base merge\nbars: 95 % intervals"
    )
    looks = {"color": "0.5", "marker": MARKERS[3], "linestyle": "none"}
    axes.plot(worst, at, **looks, label="worst case against the better\nof zero-shot and base merge")
    axes.axvline(0, color="0.5", linewidth=1)
    axes.axvline(-1, color=PALETTE[6], linestyle=":", linewidth=1, label="the goal for the worst case")
    axes.set_yticks(at, names)
    axes.invert_yaxis()
    axes.set_xlabel("points")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center")
    figure.alt = "Mean gain on the base merge, and the worst case, in points" + "".join(
        f"; {name} {v:.1f} and {w:.1f}" for name, v, w in zip(names, found["value"], worst, strict=True)
    )
    figure.alt += "."
    return figure, {"row": names, **found, "worst": worst}
