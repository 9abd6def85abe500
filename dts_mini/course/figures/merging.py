"""Personalised merging: the tables of accuracy and storage."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dts_mini.course.style import DASHES, MARKERS, PALETTE, bar_cue, cue, styled

FAMILIES = ("zero-shot", "base merge", "DTS-T", "DTS-D", "experts")


def family(row: str) -> str:
    """What kind of row of the headline table this is: one of FAMILIES."""
    if row in ("zero-shot", "experts"):
        return row
    return row[:5] if row.startswith("DTS") else "base merge"


@styled
def mean_accuracies(table: Mapping) -> tuple[Figure, dict]:
    """Mean accuracy of every row of a headline table, with its 95 % interval over test images."""
    rows = table["rows"]
    names = [row["name"] for row in rows]
    value, low, high = ([100 * row["mean"][key] for row in rows] for key in ("value", "low", "high"))
    figure, axes = plt.subplots(figsize=(7.4, 0.27 * len(rows) + 1.1))
    for number, kind in enumerate(FAMILIES):
        here = [place for place, name in enumerate(names) if family(name) == kind]
        reach = [[value[i] - low[i] for i in here], [high[i] - value[i] for i in here]]
        looks = {"color": PALETTE[number], "fmt": MARKERS[number], "capsize": 3, "label": kind}
        axes.errorbar([value[i] for i in here], here, xerr=reach, **looks)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"mean accuracy over {len(table['columns'])} tasks (%), bars: 95 % intervals")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, {"row": names, "family": [family(n) for n in names], "value": value, "low": low, "high": high}


@styled
def accuracy_against_storage(table: Mapping) -> tuple[Figure, dict]:
    """Mean accuracy of DTS, with its 95 % interval, against the file that each task adds; merges and experts beside."""
    rows = {row["name"]: row for row in table["rows"]}
    curves: dict[str, list] = {}
    for name in rows:
        if name.startswith("DTS"):
            curves.setdefault(name.rsplit(", ", 1)[0], []).append(rows[name])
    figure, axes = plt.subplots(figsize=(7.0, 3.6))
    data = {}
    for number, (name, points) in enumerate(curves.items()):
        size = [100 * row["storage"] for row in points]
        value, low, high = ([100 * row["mean"][key] for row in points] for key in ("value", "low", "high"))
        reach = [[v - l for v, l in zip(value, low, strict=True)], [h - v for v, h in zip(value, high, strict=True)]]
        axes.errorbar([s * 1.03**number for s in size], value, reach, capsize=3, **cue(number), label=name)
        data[name] = {"storage": size, "value": value, "low": low, "high": high}
    for number, name in enumerate(("experts", "TIES", "average", "zero-shot")):
        value = 100 * rows[name]["mean"]["value"]
        axes.axhline(value, color="0.35", linestyle=DASHES[number], linewidth=1, label=name)
        data[name] = {"value": [value]}
    axes.set_xscale("log")
    ticks = next(iter(data.values()))["storage"]  # the other curves' files are as large, but for a few zeros
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("a task's file (% of the float32 model; points moved apart a little)")
    axes.set_ylabel("mean accuracy (%)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, data


@styled
def task_accuracies(table: Mapping, names: Sequence[str]) -> tuple[Figure, dict]:
    """Accuracy on each task, with 95 % intervals, of some rows of a table."""
    rows = {row["name"]: row for row in table["rows"]}
    tasks, width = list(table["columns"]), 0.84 / len(names)
    figure, axes = plt.subplots(figsize=(max(5.0, 1.15 * len(tasks) + 1), 3.4))
    data = {"task": tasks}
    for number, name in enumerate(names):
        cells = [rows[name]["accuracy"][task] for task in tasks]
        value, low, high = ([100 * cell[key] for cell in cells] for key in ("value", "low", "high"))
        reach = [[v - l for v, l in zip(value, low, strict=True)], [h - v for v, h in zip(value, high, strict=True)]]
        place = [i + (number - (len(names) - 1) / 2) * width for i in range(len(tasks))]
        axes.bar(place, value, width, yerr=reach, ecolor="0.2", capsize=2, **bar_cue(number), label=name)
        data[name] = {"value": value, "low": low, "high": high}
    axes.set_xticks(range(len(tasks)), tasks, rotation=20, ha="right")
    axes.set_ylim(0, 100)
    axes.set_xlabel("task")
    axes.set_ylabel("accuracy (%)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, data
