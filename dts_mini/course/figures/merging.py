"""Personalised merging: the tables of accuracy and storage."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from dts_mini.course.style import DASHES, MARKERS, PALETTE, bar_cue, cue, styled
from dts_mini.measures.tables import by_variant

_KEYS = ("value", "low", "high")
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
    figure, axes = plt.subplots(figsize=(7.0, 3.6))
    data = {}
    for number, (name, points) in enumerate(by_variant(table).items()):
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


@styled
def base_choice(bases: Mapping[str, Mapping]) -> tuple[Figure, dict]:
    """How close rebuilt experts come over each base, against the base's own accuracy and the remainder's length.

    ``bases`` is {name: {"accuracy": .., "length": .., "kl": .. nats}}, each an estimate {"value", "low", "high"};
    the ends of a length are the shortest and the longest task's.
    """
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.6), sharey=True)
    across = (
        ("accuracy", 100, "accuracy of the base itself (%)"),
        ("length", 1, "length of the remainder / of the task vector"),
    )
    data = {"base": list(bases), "kl": {key: [row["kl"][key] for row in bases.values()] for key in _KEYS}}
    for axes, (what, unit, label) in zip(panels, across, strict=True):
        data[what] = {key: [unit * row[what][key] for row in bases.values()] for key in _KEYS}
        for number, name in enumerate(bases):
            x, y = ({key: data[c][key][number] for key in _KEYS} for c in (what, "kl"))
            reach = [[[e["value"] - e["low"]], [e["high"] - e["value"]]] for e in (x, y)]
            looks = {**cue(number), "linestyle": "none", "markersize": 7, "capsize": 2}
            axes.errorbar(x["value"], y["value"], xerr=reach[0], yerr=reach[1], **looks, label=name)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("KL divergence from the experts\n(nats), bars: 95 % intervals")
    panels[1].legend(title="base", loc="upper left", bbox_to_anchor=(1, 1))
    return figure, data


@styled
def two_measures(table: Mapping) -> tuple[Figure, dict]:
    """Share of the experts' accuracy, and KL divergence from the experts, against the file that each task adds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.4))
    data = {}
    for number, (name, points) in enumerate(by_variant(table).items()):
        size = [100 * row["storage"] for row in points]
        share = {key: [100 * row["share of experts"][key] for row in points] for key in _KEYS}
        apart = [row["kl from experts"] for row in points]
        reach = [[v - e for v, e in zip(share["value"], share["low"], strict=True)]]
        reach += [[e - v for v, e in zip(share["value"], share["high"], strict=True)]]
        moved = [s * 1.04 ** (number - 1) for s in size]
        left.errorbar(moved, share["value"], reach, capsize=2, **cue(number), label=name)
        right.plot(moved, apart, **cue(number), label=name)
        data[name] = {"storage": size, "share": share, "kl": apart}
    left.axhline(100, color="0.35", linewidth=1, label="experts")
    left.set_ylabel("share of the experts' accuracy (%)\nbars: 95 % intervals")
    right.set_ylabel("KL divergence from the experts (nats)")
    right.set_ylim(bottom=0)
    ticks = next(iter(data.values()))["storage"]
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("a task's file (% of the model)")
        axes.grid(alpha=0.3)
    left.legend(fontsize="small")
    return figure, data


@styled
def storage_by_tasks(model: int, files: Mapping[str, int], most: int = 20) -> tuple[Figure, dict]:
    """Bytes of 1 to ``most`` tasks in units of one model: experts, one shared model with a file each, one merge.

    ``files`` holds the bytes of a task's file by name.
    """
    tasks = list(range(1, most + 1))
    lines = {"experts": [float(n) for n in tasks]}
    lines |= {f"shared model + files, {name}": [1 + n * file / model for n in tasks] for name, file in files.items()}
    lines["one merged model"] = [1.0] * most
    figure, axes = plt.subplots(figsize=(7.4, 3.4))
    for number, (name, values) in enumerate(lines.items()):
        axes.plot(tasks, values, **cue(number), markersize=4, markevery=max(1, most // 10), label=name)
    axes.set_xlabel("number of tasks")
    axes.set_ylabel("storage (models)")
    axes.set_ylim(0, min(most, 4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure, {"tasks": tasks, **lines}
