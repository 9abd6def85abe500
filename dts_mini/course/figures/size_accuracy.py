"""What the bytes of a task's file buy: accuracy, KL divergence and error against storage, and where the bytes go."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dts_mini.course.style import bar_cue, cue, styled
from dts_mini.measures.tables import by_variant


@styled
def size_curves(table: Mapping) -> tuple[Figure, dict]:
    """Every DTS row of a headline table against the file that each task adds, in % of the float32 model (log axis).

    Left: mean accuracy as a share of the experts', in %, with its 95 % interval over test images. Right: KL
    divergence from the experts, in nats (log axis), for which the table holds no interval.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9))
    data = {}
    for number, (name, rows) in enumerate(by_variant(table).items()):
        size = [100 * row["storage"] for row in rows]
        value, low, high = ([100 * row["share of experts"][key] for row in rows] for key in ("value", "low", "high"))
        kl = [row["kl from experts"] for row in rows]
        reach = [[v - l for v, l in zip(value, low, strict=True)], [h - v for v, h in zip(value, high, strict=True)]]
        apart = [s * 1.04 ** (number - 1) for s in size]  # so that the intervals can be told apart
        left.errorbar(apart, value, reach, capsize=3, **cue(number), label=name)
        right.plot(size, kl, **cue(number))
        data[name] = {"storage": size, "value": value, "low": low, "high": high, "kl": kl}
    ticks = next(iter(data.values()))["storage"]  # the other curves' files are as large, but for a few zeros
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("a task's file (% of the float32 model)")
        axis.grid(color="0.9")
    left.axhline(100, color="0.35", linewidth=1, label="experts")
    right.set_yscale("log")
    left.set_ylabel("mean accuracy (% of the experts'),\n95 % interval")
    right.set_ylabel("KL divergence from the experts (nats)")
    figure.legend(loc="outside upper center", ncols=4)
    return figure, data


@styled
def every_method(rows: Sequence[Mapping], names: Sequence[str], grey: Sequence[str] = ()) -> tuple[Figure, dict]:
    """Methods of the measured curve against a task's bytes, in % of the float32 model (log axis), as two panels.

    Left: share of the experts' accuracy in %, with its 95 % interval over test images. Right: KL divergence (nats,
    log axis), from the least to the most of the seeds. ``names`` are drawn as curves, each with a cue of its own;
    ``grey`` as crosses, with names on the right.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.6))
    data: dict[str, dict] = {}
    points = [row for row in rows if "storage" in row and not row["size"].startswith("keep")]
    for number, name in enumerate(names):
        own = sorted((row for row in points if row["name"] == name), key=lambda row: row["storage"])
        size = [100 * row["storage"] for row in own]
        share = [100 * row["share of experts"]["value"] for row in own]
        kl = [row["kl from experts"]["value"] for row in own]
        panels[0].plot(size, share, **cue(number), label=name)
        panels[0].fill_between(size, *_band(own), color=cue(number)["color"], alpha=0.15, linewidth=0)
        panels[1].plot(size, kl, **cue(number))
        seeds = [row["kl from experts"]["each"] for row in own]
        ends = [min(each) for each in seeds], [max(each) for each in seeds]
        panels[1].fill_between(size, *ends, color=cue(number)["color"], alpha=0.15, linewidth=0)
        data[name] = {"storage": size, "share": share, "kl": kl}
    for row in (row for row in points if row["name"] in grey):
        size, share = 100 * row["storage"], 100 * row["share of experts"]["value"]
        data[row["name"]] = {"storage": [size], "share": [share], "kl": [row["kl from experts"]["value"]]}
        for axis, value in zip(panels, (share, row["kl from experts"]["value"]), strict=True):
            axis.plot(size, value, marker="x", color="0.35", linestyle="none")
    heights = [kl for name in data if name in grey for kl in data[name]["kl"]]
    for name in (name for name in data if name in grey):  # named where there is room: on the right, below a near one
        (size,), (kl,) = data[name]["storage"], data[name]["kl"]
        offset = (3, -9) if any(kl < other < 1.3 * kl for other in heights) else (3, 3)
        panels[1].annotate(name, (size, kl), xytext=offset, textcoords="offset points", fontsize=7, color="0.3")
    for axis in panels:
        axis.set_xscale("log")
        axis.set_xticks([0.25, 0.5, 1, 2, 3.7, 6.25, 12.5], ["0.25", "0.5", "1", "2", "3.7", "6.25", "12.5"])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("bytes of a task (% of the float32 model)")
        axis.grid(color="0.9")
    panels[0].axhline(100, color="0.35", linewidth=1)
    panels[0].set_ylim(80, 101)
    panels[1].set_yscale("log")
    panels[0].set_ylabel("mean accuracy (% of the experts')")
    panels[1].set_ylabel("KL divergence from the experts (nats)")
    figure.legend(loc="outside upper center", ncols=4)
    return figure, data


def _band(rows: Sequence[Mapping]) -> tuple[list[float], list[float]]:
    """The ends of the rows' intervals over test images, in %."""
    return [100 * row["images"]["low"] for row in rows], [100 * row["images"]["high"] for row in rows]


@styled
def ablation_bars(rows: Sequence[Mapping], reference: str) -> tuple[Figure, dict]:
    """KL divergence of each row of the ablation, in nats, as bars in order; a line at the row ``reference``.

    A bar is the mean over seeds of experts, and a dot on it each of them.
    """
    found = {row["name"]: row["kl from experts"] for row in rows if "storage" in row}
    data = {name: kl["value"] for name, kl in found.items()}
    figure, axis = plt.subplots(figsize=(7.5, 0.3 * len(data) + 1))
    beside = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
    clear = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # of the line
    for place, (name, kl) in enumerate(found.items()):
        axis.barh(place, kl["value"], **bar_cue(name.startswith("DRC")))
        axis.plot(kl["each"], [place] * len(kl["each"]), "o", markersize=2.5, color="black", alpha=0.7)
        axis.annotate(f"{kl['value']:.4f}", (max(kl["each"]), place), **beside, bbox=clear)
    axis.axvline(data[reference], color="0.35", linewidth=1)
    axis.set_yticks(range(len(data)), list(data))
    axis.margins(y=0.01)
    axis.invert_yaxis()
    axis.set_xlabel("KL divergence from the experts (nats); dots: each seed")
    return figure, data


@styled
def layer_ranks(ranks: Mapping[str, Mapping[str, int]]) -> tuple[Figure, dict]:
    """Components that each method gives each matrix: {method: {tensor: rank}}, a column a tensor."""
    tensors = list(next(iter(ranks.values())))
    figure, axis = plt.subplots(figsize=(9, 3.8))
    for number, (method, given) in enumerate(ranks.items()):
        axis.plot(range(len(tensors)), [given[name] for name in tensors], **cue(number), label=method)
    short = [
        name.removeprefix("transformer.resblocks.").removesuffix(".weight").removesuffix("_weight") for name in tensors
    ]
    axis.set_xticks(range(len(tensors)), short, rotation=60, ha="right", fontsize=8)
    axis.set_ylabel("components kept")
    axis.set_ylim(bottom=0)
    axis.grid(color="0.9")
    axis.legend()
    return figure, {method: list(given.values()) for method, given in ranks.items()}


@styled
def rate_distortion(
    measured: Mapping[str, tuple[Sequence[float], Sequence[float]]], limit: tuple[Sequence[float], Sequence[float]]
) -> tuple[Figure, dict]:
    """Squared error of a rebuilt difference, as a share, against bits a parameter (log axes), and a limit below.

    ``measured``: {method: (bits, errors)}. ``limit``: (bits, errors), drawn as a line without points.
    """
    figure, axis = plt.subplots(figsize=(6.8, 3.8))
    for number, (method, (bits, errors)) in enumerate(measured.items()):
        axis.plot(bits, errors, **cue(number), label=method)
    axis.fill_between(*limit, min(limit[1]) / 2, color="0.88", label="beyond the limit")
    axis.plot(*limit, color="0.2", linewidth=1.5)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(bottom=min(limit[1]) / 2)
    axis.set_xlabel("bits a parameter")
    axis.set_ylabel("squared error (share of the difference)")
    axis.legend(frameon=True, facecolor="white", framealpha=1)
    return figure, {method: [list(bits), list(errors)] for method, (bits, errors) in measured.items()}


@styled
def bound_tightness(bounds: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[Figure, dict]:
    """Measured error of each matrix against its bound: {method: {tensor: (truncation, coding, error)}}, shares."""
    figure, axis = plt.subplots(figsize=(5.2, 4.2))
    data = {}
    for number, (method, own) in enumerate(bounds.items()):
        bound, error = [t + c for t, c, _ in own.values()], [e for *_, e in own.values()]
        axis.plot(bound, error, **(cue(number) | {"linestyle": "none"}), label=method)
        data[method] = [bound, error]
    most = max(max(bound) for bound, _ in data.values()) * 1.05
    axis.plot([0, most], [0, most], color="0.35", linewidth=1, label="bound = error")
    axis.set_xlim(0, most)
    axis.set_ylim(0, most)
    axis.set_xlabel("bound: truncation + coding")
    axis.set_ylabel("measured error")
    axis.legend(loc="upper left")
    return figure, data
