"""The suite: what its tasks look like, what is stored, what a model answers."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.course.figures.shared import estimates, reach, whiskers
from dts_mini.course.style import PALETTE, bar_cue, cue, styled
from dts_mini.suites.evaluation import accuracy_interval, bootstrap, interval
from dts_mini.suites.mini.task import Task


@styled
def contact_sheet(tasks: Sequence[Task], columns: int = 8, split: str = "validation") -> tuple[Figure, dict]:
    """One image of each of a task's first ``columns`` classes, a row a task; says what is real and what it mirrors."""
    figure, axes = plt.subplots(len(tasks), columns, figsize=(1.05 * columns + 1.6, 1.22 * len(tasks)), squeeze=False)
    data = {"task": [], "source": [], "mirrors": [], "classes": []}
    for row, task in zip(axes, tasks, strict=True):
        images, labels = task.images(split, 200)
        source = "real scans, recoloured" if task.real else "drawn by a program"
        shown = [c for c in range(len(task.classes)) if (labels == c).any()][:columns]
        for cell in row:
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
        for cell, c in zip(row, shown, strict=False):
            cell.imshow(images[labels == c][0].permute(1, 2, 0).numpy(), interpolation="nearest")
            cell.set_xlabel(task.classes[c], fontsize=7, labelpad=2)
        label = f"{task.name}\n{source}\nmirrors {task.mirrors}"
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, labelpad=8)
        data["task"].append(task.name)
        data["source"].append(source)
        data["mirrors"].append(task.mirrors)
        data["classes"].append([task.classes[c] for c in shown])
    real = [task.name for task in tasks if task.real]
    figure.alt = (
        f"A contact sheet, a row for each task with one image of each of up to {columns} classes: "
        f"{', '.join(data['task'])}. Real scans: {', '.join(real) or 'none'}; all others are drawn by a program."
    )
    return figure, data


@styled
def size_and_accuracy(sizes: Mapping[str, int], outcomes: Mapping[str, Tensor]) -> tuple[Figure, dict]:
    """What each model takes beside one shared model, in KiB, and beside it its accuracy with a 95 % bootstrap interval.

    ``sizes``: bytes by name; ``outcomes``: which images each model got right (n,), by the same names.
    """
    names = list(sizes)
    resampled = bootstrap({name: {"task": outcomes[name]} for name in names})
    values = [100 * outcomes[name].float().mean().item() for name in names]
    entry = estimates(values, [accuracy_interval(outcomes[name], resampled[name][:, 0]) for name in names])
    kib = [size / 2**10 for size in sizes.values()]
    figure, (bars, points) = plt.subplots(2, 1, figsize=(6.4, 1.1 * len(names) + 1.8))
    for number, (bar, size) in enumerate(zip(bars.barh(range(len(names)), kib), kib, strict=True)):
        bar.set(**bar_cue(number))
        bars.annotate(f" {size:,.0f}", (size, number), va="center")
        one = {key: [ends[number]] for key, ends in entry.items()}
        points.errorbar(one["value"], [number], xerr=reach(one), capsize=3, markersize=7, **cue(number))
        points.annotate(
            f"{values[number]:.1f}", (values[number], number), (0, 9), textcoords="offset points", ha="center"
        )
    for axis in (bars, points):
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
    bars.margins(x=0.18)
    bars.set_xlabel("on disk beside the shared model (KiB)")
    points.set(xlabel="accuracy (%), 95 % interval", xlim=(0, 102))
    points.grid(axis="x", color="0.9")
    told = [
        f"{name} takes {size:,.0f} KiB and gets {value:.1f} % right"
        for name, size, value in zip(names, kib, values, strict=True)
    ]
    figure.alt = (
        "Two panels, one below the other, a row for each model: size beside the shared model, and accuracy. "
        + "; ".join(told)
        + "."
    )
    return figure, {"name": names, "kib": kib, **entry}


@styled
def storage_bars(sizes: Mapping[str, int], models: int) -> tuple[Figure, dict]:
    """What each way to keep ``models`` experts takes on disk: bytes by name, as bars in MiB."""
    names, mib = list(sizes), [size / 2**20 for size in sizes.values()]
    figure, axis = plt.subplots(figsize=(7, 0.6 * len(names) + 0.9))
    bars = axis.barh(names, mib)
    for number, (bar, value) in enumerate(zip(bars, mib, strict=True)):
        bar.set(**bar_cue(number))
        axis.annotate(f" {value:.1f}", (value, bar.get_y() + bar.get_height() / 2), va="center")
    axis.invert_yaxis()
    axis.set_xlabel(f"on disk for {models} tasks (MiB)")
    axis.margins(x=0.1)
    told = ", ".join(f"{' '.join(name.split())} {value:.1f} MiB" for name, value in zip(names, mib, strict=True))
    figure.alt = f"Bars of what each way to keep {models} tasks takes on disk: {told}."
    return figure, {"name": names, "mib": mib}


@styled
def confusion(answers: Tensor, labels: Tensor, classes: Sequence[str], marked: Sequence[int]) -> tuple[Figure, dict]:
    """How often images of each class (rows) get each answer (columns), in %.

    ``answers`` and ``labels`` (n,) are class numbers; ``marked`` names for each class one wrong answer of interest.
    """
    k = len(classes)
    share = torch.zeros(k, k).index_put_((labels, answers), torch.tensor(1.0), accumulate=True)
    share = 100 * share / share.sum(1, keepdim=True).clamp(min=1)
    figure, axis = plt.subplots(figsize=(6.6, 5.4))
    image = axis.imshow(share.numpy(), cmap="cividis", vmin=0, vmax=100)
    spots = (("the class itself", range(k), "s", PALETTE[1]), ("its stand-in", marked, "^", PALETTE[4]))
    for name, at, marker, colour in spots:
        axis.scatter(list(at), range(k), s=110, marker=marker, facecolors="none", edgecolors=colour, lw=1.8, label=name)
    axis.set_xticks(range(k), classes, rotation=60, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(k), classes)
    axis.set(xlabel="answer of the head", ylabel="class of the image")
    figure.legend(loc="outside upper center", ncols=2)
    figure.colorbar(image, label="images of the class (%)")
    mean = lambda places: share[range(k), list(places)].mean().item()
    figure.alt = (
        "Heat map: the class of the image against the answer, in % of the images of each class. Squares mark the class "
        f"itself ({mean(range(k)):.0f} % in the mean over classes), triangles its stand-in ({mean(marked):.0f} %)."
    )
    return figure, {"classes": list(classes), "share": share.tolist(), "marked": list(marked)}


@styled
def accuracies(outcomes: Mapping[str, Mapping[str, Tensor]], draws: int = 2_000) -> tuple[Figure, dict]:
    """Accuracy of each row on each task and in the mean, with 95 % bootstrap intervals over images.

    ``outcomes`` is {row: {task: which images were right (n,)}}; data holds for each row the estimates, lows and highs
    in %, the mean of the tasks last.
    """
    tasks = list(next(iter(outcomes.values())))
    resampled = bootstrap(outcomes, draws)
    figure, axis = plt.subplots(figsize=(9, 4.2))
    data = {"columns": [*tasks, "mean"], "rows": {}}
    for number, (row, right) in enumerate(outcomes.items()):
        values = [100 * right[task].float().mean().item() for task in tasks]
        spread = torch.cat([resampled[row], resampled[row].mean(1, keepdim=True)], 1)
        ends = [accuracy_interval(right[task], column) for task, column in zip(tasks, spread.T, strict=False)]
        entry = estimates([*values, sum(values) / len(values)], [*ends, interval(spread[:, -1])])
        data["rows"][row] = entry
        shift = 0.12 * (number - (len(outcomes) - 1) / 2)
        where = [*(i + shift for i in range(len(tasks))), len(tasks) + 0.4 + shift]
        whiskers(axis, where, entry, number, row, linestyle="none")
    axis.axvline(len(tasks) - 0.3, color="0.75", linewidth=0.8)
    axis.set_xticks([*range(len(tasks)), len(tasks) + 0.4], data["columns"], rotation=25, ha="right")
    axis.set(ylabel="accuracy (%), 95 % interval", ylim=(0, 102))
    axis.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper center", ncols=min(5, len(outcomes)))
    means = ", ".join(f"{row} ({entry['value'][-1]:.0f} %)" for row, entry in data["rows"].items())
    figure.alt = f"Accuracy on each task and in the mean, with 95 % intervals; in the mean: {means}."
    return figure, data
