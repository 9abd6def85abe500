"""Scaling, and the bytes of a file."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from dts_mini.core.delta import TaskDelta, storage
from dts_mini.core.dts import Flat, LowRank
from dts_mini.course.figures.shared import reach, whiskers
from dts_mini.course.figures.thresholding import GROUP_NAMES
from dts_mini.course.style import GROUPS, PALETTE, bar_cue, cue, styled
from dts_mini.suites.evaluation import interval


def delta_bytes(delta: TaskDelta) -> dict[str, int]:
    """Where the bytes of a delta's file go: codes by kind of tensor, singular values, scales, zeros, and the rest."""
    found = dict.fromkeys(("codes of matrices", "codes of other tensors", "singular values", "scales", "zeros"), 0)
    for part in delta.parts.values():
        if isinstance(part, LowRank):
            factors, kind = (part.left, part.right), "codes of matrices"
            found["singular values"] += part.s.nbytes
        elif isinstance(part, Flat):
            factors, kind = (part.coded,), "codes of other tensors"
        else:
            continue
        for coded in factors:
            found[kind] += coded.codes.nbytes
            found["scales"] += coded.scales.nbytes
            found["zeros"] += min(-(-coded.elements // 8), coded.zeros.nbytes)
    return found | {"header and table": len(delta.to_bytes()) - sum(found.values())}


def _sign(x: float) -> str:
    """The colour of a sign, the same in all figures."""
    return PALETTE[0 if x > 0 else 3]


@styled
def file_bytes(delta: TaskDelta) -> tuple[Figure, dict]:
    """The file of a delta as a slice of its expert, to scale, and below it the slice taken apart; both in KiB."""
    counts = storage(delta)
    parts = {name: count / 1024 for name, count in delta_bytes(delta).items()}
    expert, file = counts.model / 1024, counts.file / 1024
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.4, 3.3), height_ratios=(1, 1.6))
    above.barh(0, expert, color="0.85", edgecolor="0.5")
    above.barh(0, file, facecolor=PALETTE[0])
    above.annotate("the expert, float32", (expert / 2, 0), ha="center", va="center")
    above.set_xlim(0, expert)
    above.set_yticks([])
    above.xaxis.tick_top()
    above.xaxis.set_label_position("top")
    above.spines[["top", "bottom"]].set_visible(False)
    above.set_xlabel("size of the expert (KiB)")
    start = 0.0
    for number, (name, kib) in enumerate(parts.items()):
        below.barh(0, kib, left=start, **bar_cue(number), linewidth=0, label=f"{name}: {kib:.1f} KiB")
        start += kib
    below.set_xlim(0, file)
    below.set_ylim(-0.5, 0.5)
    below.set_yticks([])
    below.set_xlabel("size of the file of one task (KiB)")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    for left, right in ((0, 0), (file, file)):
        ends = {"xyA": (left, -0.4), "coordsA": above.transData, "xyB": (right, 0.4), "coordsB": below.transData}
        figure.add_artist(ConnectionPatch(**ends, color="0.5", linewidth=0.8, linestyle=":"))
    figure.alt = (
        f"Above, a long grey bar: the expert in float32, {expert:,.0f} KiB. Its left end, a sliver, is the file, "
        f"{file:.1f} KiB. Below, the sliver taken apart: "
        + ", ".join(f"{n} {k:.1f} KiB" for n, k in parts.items())
        + "."
    )
    return figure, {"expert": expert, "file": file, "part": list(parts), "kib": list(parts.values())}


@styled
def stairs(x: Tensor, codes: Tensor) -> tuple[Figure, dict]:
    """The elements of a factor, sorted, and the root mean square of the group that each is in, of four."""
    x, order = x.flatten().double().sort()
    codes = codes.flatten()[order]
    share = torch.linspace(0, 100, len(x), dtype=torch.float64)
    groups = {code: x[codes == code] for code in range(4)}
    values = {code: (group.sign().sum().sign() * group.square().mean().sqrt()).item() for code, group in groups.items()}
    figure, axes = plt.subplots(figsize=(6.6, 3.6))
    few = torch.linspace(0, len(x) - 1, min(len(x), 500)).round().long()
    axes.plot(share[few], x[few], color="black", linewidth=1.2, label="element")
    for code, name in enumerate(GROUP_NAMES):
        mine, weak = share[codes == code], code in (1, 2)
        look = {"color": cue(GROUPS[code])["color"], "linestyle": "--" if weak else "-", "linewidth": 3}
        axes.plot(mine[[0, -1]], [values[code]] * 2, **look, label=name)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xlabel("elements, sorted (% of all)")
    axes.set_ylabel("element, and its group's value")
    axes.legend(fontsize="small", loc="upper left")
    figure.alt = (
        "All elements, sorted, as a rising curve: steep at both ends, flat between. Over it four level steps, one "
        "for each group: " + ", ".join(f"{name} at {values[code]:.3f}" for code, name in enumerate(GROUP_NAMES)) + ". "
        "Each step is about as long as the others; at both ends the curve runs far beyond the strong ones."
    )
    return figure, {"element": x[few].tolist(), "value": [values[code] for code in range(4)]}


@styled
def group_error(x: Tensor, scales: Mapping[str, float], bins: int = 40) -> tuple[Figure, dict]:
    """Elements (n,) of one group, and the squared error that each value for all of them would have.

    ``scales`` are values to mark, by name. The error is relative to the group's energy, sum x^2, in %.
    """
    x = x.flatten().double()
    reach = x.abs().quantile(0.995).item() * (1 if x.sum() > 0 else -1)
    grid = torch.linspace(0, reach, 101, dtype=torch.float64)
    error = lambda v: 100 * ((x.square().sum() - 2 * v * x.sum() + len(x) * v**2) / x.square().sum())
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.6, 4.4), sharex=True, height_ratios=(1, 1.5))
    edges = torch.linspace(min(0, reach), max(0, reach), bins + 1, dtype=torch.float64)
    counts = torch.histogram(x, edges).hist.int().tolist()
    above.bar((edges[1:] + edges[:-1]) / 2, counts, abs(reach) / bins, facecolor=_sign(reach), label="elements")
    above.set_ylabel("elements (count)")
    below.plot(grid, error(grid), color="0.35", label="error of the group")
    for number, (name, v) in enumerate(scales.items()):
        look = cue(number)
        above.axvline(v, color=look["color"], linestyle=look["linestyle"], label=name)
        below.axvline(v, color=look["color"], linestyle=look["linestyle"], linewidth=0.8)
        below.plot([v], [error(v).item()], **{**look, "linestyle": ""}, markersize=8, label=name)
    above.legend()
    below.legend()
    below.set_ylim(bottom=0)
    below.set_xlabel("value that every element of the group gets")
    below.set_ylabel("squared error (% of energy)")
    marks = {name: [v, error(v).item()] for name, v in scales.items()}
    figure.alt = (
        "Above, a histogram of the group's elements. Below, the squared error of the group against its value: a "
        "parabola. Marked in both: "
        + "; ".join(f"{name} at {v:.3f} with an error of {e:.1f} % of the energy" for name, (v, e) in marks.items())
        + "."
    )
    return figure, {"counts": counts, "value": grid.tolist(), "error": error(grid).tolist(), "marks": marks}


@styled
def length_and_answers(curve: Sequence[Mapping], marks: Mapping[str, Mapping]) -> tuple[Figure, dict]:
    """One remainder made shorter and longer: its error, and the KL divergence of its answers, with 95 % intervals.

    A point holds ``length`` and ``error``, relative to the task vector's, and ``kl`` with ``interval``, in nats.
    ``marks`` are such points by name, put on top of the curve.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.4, 5.4), sharex=True)
    rows = {name: [point] for name, point in marks.items()} | {"one remainder, stretched": list(curve)}
    data = {}
    for number, (name, points) in enumerate(rows.items()):
        length = [point["length"] for point in points]
        error = [point["error"] for point in points]
        kl = [point["kl"] for point in points]
        low, high = zip(*(point["interval"] for point in points), strict=True)
        entry = {"value": kl, "low": list(low), "high": list(high)}
        look = {"linestyle": "", "zorder": 3} if name in marks else {"color": "0.45", "marker": ".", "linestyle": "-"}
        above.plot(length, error, **{**cue(number), **look}, markersize=6, label=name)
        whiskers(below, length, entry, number, name, **look)
        data[name] = {"length": length, "error": error, "kl": entry}
    for axes in (above, below):
        axes.axvline(1, color="0.6", linestyle=":", linewidth=1, label="the task vector's length")
        axes.grid(axis="y", alpha=0.3)
    below.set_xlabel("length (task vector = 1)")
    above.set_ylabel("relative error")
    below.set_ylabel("KL divergence (nats)")
    below.set_ylim(bottom=0)
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.alt = (
        "Two curves against the length of one remainder, stretched: "
        + "; ".join(
            f"{what} is lowest, {min(points)[0]:.3g}, at length {min(points)[1]:.2f}"
            for what, points in (
                ("above, the relative error", [(point["error"], point["length"]) for point in curve]),
                ("below, the KL divergence in nats", [(point["kl"], point["length"]) for point in curve]),
            )
        )
        + ". On top of the curves: "
        + "; ".join(
            f"{name}, length {p['length']:.2f}, error {p['error']:.2f}, KL {p['kl']:.3f}" for name, p in marks.items()
        )
        + "."
    )
    return figure, data


@styled
def scaling_costs(lost: Mapping[str, Tensor], kl: Mapping[str, Tensor], tasks: Sequence[str]) -> tuple[Figure, dict]:
    """What kinds of scaling cost on each task and in the mean, with 95 % intervals over test images.

    ``lost`` and ``kl`` are resampled estimates (draws, tasks) by row: accuracy lost as a share, and KL in nats.
    """
    columns = [*tasks, "all tasks"]
    figure, axes = plt.subplots(2, 1, figsize=(6.4, 7.2))
    data = {"column": columns, "lost": {}, "kl": {}}
    for axis, (kind, rows, factor) in zip(axes, (("lost", lost, 100), ("kl", kl, 1)), strict=True):
        for number, (name, draws) in enumerate(rows.items()):
            draws = factor * torch.cat([draws, draws.mean(1, keepdim=True)], 1)
            low, high = zip(*(interval(column) for column in draws.T), strict=True)
            entry = {"value": draws.mean(0).tolist(), "low": list(low), "high": list(high)}
            place = torch.arange(len(columns)) + (number - (len(rows) - 1) / 2) * 0.22
            look = {**cue(number), "linestyle": "", "markersize": 6, "capsize": 2}
            axis.errorbar(entry["value"], place, xerr=reach(entry), **look, label=name)
            data[kind][name] = entry
        axis.axhline(len(tasks) - 0.5, color="0.6", linewidth=0.8)
        axis.grid(axis="x", alpha=0.3)
        axis.set_yticks(range(len(columns)), columns)
        axis.invert_yaxis()
    axes[0].axvline(0, color="0.6", linewidth=0.8)
    axes[0].set_xlabel("accuracy lost to the expert (points)")
    axes[1].set_xscale("log")
    axes[1].set_xlabel("KL divergence from the expert (nats, logarithmic)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(lost))
    figure.alt = (
        "For each task and for all, with 95 % intervals: above, the accuracy lost to the expert; below, the KL "
        "divergence on a logarithmic axis. For all tasks: "
        + "; ".join(
            f"{name} {data['lost'][name]['value'][-1]:.1f} points and {data['kl'][name]['value'][-1]:.3f} nats"
            for name in lost
        )
        + ". On single tasks the intervals of the losses overlap; the KL divergences keep their order."
    )
    return figure, data


@styled
def trial_rows(trials: Mapping[str, Tensor]) -> tuple[Figure, dict]:
    """What was tried, a row each: resampled estimates (draws,) of the mean KL divergence, with 95 % intervals."""
    figure, axes = plt.subplots(figsize=(6.4, 1.2 + 0.42 * len(trials)))
    data = {"trial": list(trials), "value": [], "low": [], "high": []}
    for place, draws in enumerate(trials.values()):
        one = {
            key: [x] for key, x in zip(("value", "low", "high"), (draws.mean().item(), *interval(draws)), strict=True)
        }
        look = {**cue(0 if place else 6), "linestyle": "", "markersize": 6, "capsize": 3}
        axes.errorbar(one["value"], [place], xerr=reach(one), **look)
        for key, number in one.items():
            data[key] += number
    axes.axvline(data["value"][0], color="0.6", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(trials)), list(trials))
    axes.invert_yaxis()
    axes.set_ylim(len(trials) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("KL divergence on validation images, mean over the tasks (nats)")
    best = min(trials, key=lambda name: trials[name].mean())
    figure.alt = (
        "The mean KL divergence on validation images, with 95 % intervals, a row for each trial: "
        + ", ".join(f"{name} {value:.4f}" for name, value in zip(trials, data["value"], strict=True))
        + f". A dotted line marks the first; the lowest is {best}."
    )
    return figure, data
