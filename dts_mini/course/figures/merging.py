"""Personalised merging: the tables of accuracy and storage."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from dts_mini.course.figures.kinds import KEYS, in_percent, look, name_strips, range_of, spread
from dts_mini.course.figures.shared import reach
from dts_mini.course.style import DASHES, MARKERS, PALETTE, styled
from dts_mini.measures import tables
from dts_mini.measures.tables import FAMILIES, by_variant, rows_of


@styled
def mean_accuracies(table: Mapping, entry: str = "mean") -> tuple[Figure, dict]:
    """Mean accuracy of every row of a headline table with its 95 % interval over test inputs; or its ``gain kept``."""
    rows = table["rows"]
    names = [row["name"] for row in rows]
    value, low, high = ([100 * row[entry][key] for row in rows] for key in ("value", "low", "high"))
    what = {"mean": "mean accuracy", "gain kept": "share of the gain kept,"}[entry]
    figure, axes = plt.subplots(figsize=(7.4, 0.27 * len(rows) + 1.1))
    of = [tables.family(row) for row in rows]
    words = []
    for family in (each for each in FAMILIES if each in of):
        here = [place for place, each in enumerate(of) if each == family]
        own = {key: [ends[i] for i in here] for key, ends in zip(KEYS, (value, low, high), strict=True)}
        axes.errorbar(own["value"], here, xerr=reach(own), **look(family), capsize=3, label=family)
        words.append(f"{family} {range_of([value[i] for i in here])} %")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{what} over {len(table['columns'])} tasks (%), bars: 95 % intervals")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.alt = (
        f"{what.strip(',').capitalize()} of each row of the headline table with its interval: {'; '.join(words)}."
    )
    return figure, {"row": names, "family": of, "value": value, "low": low, "high": high}


@styled
def task_strips(table: Mapping, keep_ratio: float = 0.1) -> tuple[Figure, dict]:
    """A strip for each task and for their mean: zero-shot, every merge of a headline table, every DTS row, the expert.

    Of DTS the rows at ``keep_ratio``.
    """
    groups = {family: rows_of(table, family) for family in ("zero-shot", "base merge", "experts")}
    groups |= {family: rows_of(table, family, keep_ratio=keep_ratio) for family in ("DTS-T", "DTS-D")}
    strips = {"mean": "mean"} | {task: task for task in table["columns"]}
    cell = lambda row, name: row["mean"] if name == "mean" else row["accuracy"][name]
    figure, axes = plt.subplots(figsize=(6.8, 0.36 * len(strips) + 1.1))
    data = {}
    for y, name in enumerate(strips):
        data[name] = {family: in_percent([cell(row, name) for row in rows]) for family, rows in groups.items()}
        for family, found in data[name].items():
            points = {key: found["value"] for key in KEYS}  # the intervals stand in the table
            above = 0.25 if family == "experts" else 0  # DTS would cover it: it points down to its place
            spread(axes, y - above, points, family, size=7 if family == "zero-shot" else 5)
    name_strips(axes, list(strips))
    middle = lambda family: sum(ends := data["mean"][family]["value"]) / len(ends)
    words = (("zero-shot", "zero-shot", "center"), ("base merge", "every merge", "center"), ("DTS-D", "DTS", "center"))
    for family, word, where in words:
        axes.text(middle(family), -0.42, word, ha=where, va="bottom", color=PALETTE[6], weight="bold")
    axes.text(middle("experts") + 1.2, -0.25, "experts", va="center", color=PALETTE[6], weight="bold")
    axes.set_ylim(top=-1.1)
    axes.set_xlabel(f"accuracy on test images (%); DTS at keep ratio {keep_ratio}")
    words = "; ".join(f"{family} {range_of(found['value'])} %" for family, found in data["mean"].items())
    figure.alt = (
        "Accuracy, a strip for each task and one for their mean: zero-shot far left, every merge spread between, every "
        f"DTS row close to the expert at the right. In the mean: {words}."
    )
    return figure, data


@styled
def base_choice(bases: Mapping[str, Mapping]) -> tuple[Figure, dict]:
    """How accurate each base is by itself, how long the remainders over it are, and how close rebuilt experts come.

    ``bases`` is {name: {"accuracy": .., "length": .., "kl": .. nats}}, each an estimate {"value", "low", "high"};
    the ends of a length are the shortest and the longest task's. The bases stand by rising accuracy.
    """
    names = sorted(bases, key=lambda name: bases[name]["accuracy"]["value"])
    panels = (
        ("accuracy", 100, "accuracy of the base itself (%), bars: 95 % intervals"),
        ("length", 1, "length of the remainder / of the task vector, bars: all tasks"),
        ("kl", 1, "KL(expert, rebuilt) (nats), bars: 95 % intervals"),
    )
    figure, rows = plt.subplots(len(panels), 1, figsize=(6.4, len(panels) * (0.26 * len(names) + 0.7)))
    data = {"base": names}
    for axes, (what, unit, label) in zip(rows, panels, strict=True):
        data[what] = {key: [unit * bases[name][what][key] for name in names] for key in KEYS}
        for y, name in enumerate(names):
            one = {key: data[what][key][y : y + 1] for key in KEYS}
            spread(axes, y, one, "zero-shot" if name == "theta_0" else "base merge", elinewidth=1.2, capsize=3)
        name_strips(axes, [r"$\theta_0$" if name == "theta_0" else name for name in names])
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
    columns = zip(names, *(data[what]["value"] for what, _, _ in panels), strict=True)
    words = (f"{name} {own:.0f} %, {long:.1f}, {kl:.3f} nats" for name, own, long, kl in columns)
    figure.alt = (
        "Bases from the least to the most accurate, a strip each in three panels: their own accuracy, the length of "
        "the remainders over them, and the KL divergence of rebuilt experts, which does not follow: "
        f"{'; '.join(words)}."
    )
    return figure, data


@styled
def two_measures(table: Mapping) -> tuple[Figure, dict]:
    """Share of the experts' accuracy, and KL divergence from the experts, against the file that each task adds.

    DTS-D over a merge with one keep ratio is a point by itself.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(6.6, 6.0), sharex=True)
    curves = by_variant(table)
    in_curves = {row["name"] for rows in curves.values() for row in rows}
    single = [row for row in rows_of(table, "DTS-T", "DTS-D") if row["name"] not in in_curves]
    data = {}
    for number, (name, points) in enumerate(curves.items()):
        size = [100 * row["storage"] for row in points]
        share = in_percent([row["share of experts"] for row in points])
        apart = [row["kl from experts"] for row in points]
        moved = [s * 1.04 ** (number - 1) for s in size]
        looks = look(tables.family(points[0])) | {"linestyle": DASHES[number], "label": name}
        looks |= {"marker": MARKERS[1 + number]} if number > 1 else {}  # DTS-D over another merge: the same colour
        top.errorbar(moved, share["value"], reach(share), capsize=2, **looks)
        bottom.plot(moved, apart, **looks)
        data[name] = {"storage": size, "share": share, "kl": apart}
    for row in single:
        name, size = row["name"].rsplit(", ", 1)[0], 100 * row["storage"]
        bottom.plot(size, row["kl from experts"], **look(tables.family(row)), markerfacecolor="none")
        word = name.replace("DTS-D, ", "over ")
        bottom.annotate(word, (size, row["kl from experts"]), (9, 0), textcoords="offset points", va="center")
        data[name] = {"storage": [size], "kl": [row["kl from experts"]]}
    top.axhline(100, color="0.35", linewidth=1)
    top.text(1, 100, "experts ", transform=top.get_yaxis_transform(), ha="right", va="bottom")
    top.set_ylabel("share of the experts' accuracy (%)\nbars: 95 % intervals")
    bottom.set_ylabel("KL(expert, rebuilt) (nats)")
    bottom.set_ylim(bottom=0)
    ticks = next(iter(data.values()))["storage"]
    for axes in (top, bottom):
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
    bottom.set_xlabel("a task's file (% of the model; points moved apart a little)")
    top.legend(loc="lower right")
    apart = "; ".join(f"{name} {', '.join(f'{kl:.3f}' for kl in found['kl'])}" for name, found in data.items())
    figure.alt = (
        "Two panels against a task's file size. Top: the share of the experts' accuracy rises with it, the intervals "
        f"of all curves overlap. Bottom: KL divergence from the experts falls with it; in nats: {apart}."
    )
    return figure, data


@styled
def two_suites(first: Mapping, honest: Mapping, keep_ratio: float = 0.1) -> tuple[Figure, dict]:
    """Mean accuracy of each row of two headline tables, joined: names misused in the captions (hollow), and honest.

    Of DTS the rows at ``keep_ratio``.
    """
    families = ("zero-shot", "cheap", "base merge", "DRC", "experts")
    shown = {
        row["name"] for row in [*rows_of(first, *families), *rows_of(first, "DTS-T", "DTS-D", keep_ratio=keep_ratio)]
    }
    both = {"names misused": first, "honest": honest}
    rows = {suite: {row["name"]: row for row in table["rows"]} for suite, table in both.items()}
    names = [row["name"] for row in first["rows"] if row["name"] in shown]
    data = {"row": names} | {suite: in_percent([own[name]["mean"] for name in names]) for suite, own in rows.items()}
    of = {name: tables.family(rows["names misused"][name]) for name in names}
    figure, axes = plt.subplots(figsize=(6.4, 0.29 * len(names) + 1.3))
    for y, name in enumerate(names):
        ends = [data[suite]["value"][y] for suite in both]
        axes.plot(ends, [y, y], color="0.6", linewidth=1.2, zorder=1)
        for suite in both:
            one = {key: data[suite][key][y : y + 1] for key in KEYS}
            hollow = {"markerfacecolor": "white"} if suite == "names misused" else {}
            spread(axes, y, one, of[name], **hollow)
    name_strips(axes, names)
    axes.set_xlabel(f"mean accuracy over {len(first['columns'])} tasks (%), bars: 95 % intervals")
    axes.set_title("hollow: class names misused in the captions; filled: honest", fontsize="medium")
    words = []
    for family in dict.fromkeys(of.values()):
        places = [y for y, name in enumerate(names) if of[name] == family]
        was, now = (range_of([data[suite]["value"][y] for y in places]) for suite in both)
        words.append(f"{family} {was} % and {now} %")
    figure.alt = (
        "Mean accuracy of each row, once with class names misused in the pretraining's captions, once with honest "
        f"ones: {'; '.join(words)}."
    )
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
        family = {"experts": "experts", "one merged model": "base merge"}.get(name, "DTS-D")
        looks = look(family) | {"marker": MARKERS[number], "linestyle": DASHES[number]}
        axes.plot(tasks, values, **looks, markersize=4, markevery=max(1, most // 10), label=name)
    axes.set_xlabel("number of tasks")
    axes.set_ylabel("storage (models)")
    axes.set_ylim(0, min(most, 4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.alt = (
        "Storage in units of one model against the number of tasks. The experts take one more for each task and leave "
        f"the picture; at {most} tasks "
        + ", ".join(f"{name} takes {values[-1]:.2f}" for name, values in lines.items() if name != "experts")
        + "."
    )
    return figure, {"tasks": tasks, **lines}
