"""What the bytes of a task's file buy: accuracy, KL divergence and error against storage, and where the bytes go."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dts_mini.course.figures.kinds import in_percent
from dts_mini.course.figures.shared import reach
from dts_mini.course.style import MARKERS, PALETTE, bar_cue, cue, styled
from dts_mini.measures.tables import by_variant


@styled
def size_curves(table: Mapping) -> tuple[Figure, dict]:
    """Every DTS row of a headline table against the file that each task adds, in % of the float32 model (log axis).

    Above: mean accuracy as a share of the experts', in %, with its 95 % interval over test images. Below: KL
    divergence from the experts, in nats (log axis), for which the table holds no interval.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 6.4), sharex=True)
    data = {}
    for number, (name, rows) in enumerate(by_variant(table).items()):
        size = [100 * row["storage"] for row in rows]
        share = in_percent([row["share of experts"] for row in rows])
        kl = [row["kl from experts"] for row in rows]
        apart = [s * 1.04 ** (number - 1) for s in size]  # so that the intervals can be told apart
        above.errorbar(apart, share["value"], reach(share), capsize=3, **cue(number), label=name)
        below.plot(size, kl, **cue(number))
        data[name] = {"storage": size, **share, "kl": kl}
    ticks = next(iter(data.values()))["storage"]  # the other curves' files are as large, but for a few zeros
    for axis in (above, below):
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(color="0.9")
    below.set_xlabel("a task's file (% of the float32 model)")
    above.axhline(100, color="0.35", linewidth=1, label="experts")
    below.set_yscale("log")
    above.set_ylabel("mean accuracy (% of the experts'),\n95 % interval")
    below.set_ylabel("KL divergence from the experts (nats)")
    figure.legend(loc="outside upper center", ncols=2)
    figure.alt = (
        "Two panels, one below the other, against a task's file on a log axis. Above: accuracy as a share of the "
        f"experts', with intervals. Below: KL divergence on a log axis. {_courses(data)}"
    )
    return figure, data


# Every method of the measured curve, by what it does with the bytes. A test holds the list whole.
KINDS = {
    "four groups (DTS)": ("DTS-T", "DTS-T, ranks by budget", "DTS-D, average"),
    "one step, then an entropy code (DRC)": ("DRC-T", "DRC-D, average"),
    "low rank, factors of few bits": (
        *("low-rank INT2", "low-rank INT3", "low-rank INT4", "Delta-CoMe"),
        *("DeltaMix", "DeltaMix, average"),
    ),
    "low rank, factors of 16 bits": ("TSV-C", "low-rank, water-filling", "Twin-Merging", "shared subspace"),
    "elements, no low rank": (
        *("rounding, entropy-coded", "magnitude pruning", "T-Switch", "T-Switch, a scale a tensor", "UltraDelta"),
        *("UltraDelta, 97 % sparse", "BitDelta", "TVQ INT2", "TVQ INT3", "TVQ INT4", "RTVQ B3O2"),
        *("EMR-Merging", "TALL masks"),
    ),
    "the expert itself": ("expert itself, low-rank", "expert itself, DTS", "expert itself, DRC"),
}
ALIASES = {"low rank, 2 bits": "low-rank INT2", "low rank, 3 bits": "low-rank INT3"}  # as a text calls them
BESIDE = ("DTS-T, ranks by budget", "DRC-T")  # stand in every panel


def by_kind(rows: Sequence[Mapping]) -> dict[str, dict[str, list[Mapping]]]:
    """{kind: {method: its rows}} of the measured curve, by bytes; without keep ratios and what cannot be made so small.

    A method that no kind names stands under "others".
    """
    kind_of = {name: kind for kind, names in KINDS.items() for name in names}
    points = [row for row in rows if row["group"] == "curve" and "storage" in row and row["name"] != "experts"]
    points = sorted((row for row in points if not row["size"].startswith("keep")), key=lambda row: row["storage"])
    found: dict[str, dict[str, list[Mapping]]] = {kind: {} for kind in [*KINDS, "others"]}
    for row in points:
        found[kind_of.get(row["name"], "others")].setdefault(row["name"], []).append(row)
    return {kind: methods for kind, methods in found.items() if methods}


def look(name: str, others: Sequence[str] = ()) -> dict:
    """The cue of a method: one colour for all that is DTS, one for all that is DRC, the rest in turn within their kind.

    Of several variants of a method the markers and dashes differ. ``others``: the methods around one that has no kind.
    """
    name = ALIASES.get(name, name)
    others = next((names for names in KINDS.values() if name in names), others)
    for method, number in (("DTS", 0), ("DRC", 3)):
        if name.startswith(method):
            variant = [other for other in others if other.startswith(method)].index(name) if name in others else 0
            return cue(number + 2 * variant) | {"color": PALETTE[number]}
    free = [n for n in range(7) if n not in (0, 3)]
    place = [other for other in others if not other.startswith(("DTS", "DRC"))].index(name) if name in others else 0
    empty = {"markerfacecolor": "white"} if place // len(MARKERS) % 2 else {}
    return cue(free[place % len(free)]) | {"marker": MARKERS[place % len(MARKERS)]} | empty


@styled
def every_method(rows: Sequence[Mapping]) -> tuple[Figure, dict]:
    """KL divergence (nats) of every row of the measured curve against a task's bytes, on log axes: a panel a kind.

    Bytes are in % of the float32 model. DTS with ranks by budget and DRC-T stand in every panel. Names stand beside a
    panel, from the line that ends highest to the lowest; what has one size is a marker. Bands reach from the least to
    the most of the seeds. ``data``: {method: {"storage", "kl"}}.
    """
    kinds = by_kind(rows)
    known = {name: own for methods in kinds.values() for name, own in methods.items()}
    two = {name: own for kind in list(KINDS)[:2] for name, own in kinds.get(kind, {}).items()}
    panels = {"four groups (DTS); one step and an entropy code (DRC)": two} if two else {}
    panels |= {kind: methods for kind, methods in kinds.items() if kind not in list(KINDS)[:2]}
    heights = [max(7, 1 + len(methods)) for methods in panels.values()]
    size = {"figsize": (7.2, 0.6 + 0.235 * sum(heights)), "height_ratios": heights}
    figure, axes = plt.subplots(len(panels), 1, sharex=True, squeeze=False, **size)
    data: dict[str, dict[str, list[float]]] = {}
    for axis, (kind, methods) in zip(axes[:, 0], panels.items(), strict=True):
        for name in BESIDE:
            if name in known and name not in methods:
                plain = {"color": look(name)["color"], "linewidth": 1, "linestyle": (0, (1, 1))}
                axis.plot(*_column(known[name]), **plain, label=name)
        for name, own in methods.items():
            size, kl = _column(own)
            axis.plot(size, kl, **look(name, list(methods)), markersize=4.5, linewidth=1.3, label=name)
            seeds = [row["kl from experts"]["each"] for row in own]
            low, high = [min(each) for each in seeds], [max(each) for each in seeds]
            axis.fill_between(size, low, high, color=look(name, list(methods))["color"], alpha=0.15, linewidth=0)
            data[name] = {"storage": size, "kl": kl}
        axis.set(xscale="log", yscale="log", title=kind, ylabel="KL (nats)")
        axis.set_xticks([0.25, 0.5, 1, 2, 3.7, 6.25, 12.5], ["0.25", "0.5", "1", "2", "3.7", "6.25", "12.5"])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(color="0.9")
        lines, names = axis.get_legend_handles_labels()
        lines = [
            line for _, line in sorted(zip(names, lines, strict=True), key=lambda it: -_column(known[it[0]])[1][-1])
        ]
        axis.legend(handles=lines, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, handlelength=2.6)
    axes[-1, 0].set_xlabel("bytes of a task (% of the float32 model)")
    figure.alt = (
        "KL divergence from the experts against the bytes of a task, both on log axes; a panel for each kind of "
        f"method, and in every panel DTS and DRC. {_courses(data)}"
    )
    return figure, data


def _courses(data: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Each method's KL from its fewest bytes to its most, in words."""
    told = (
        f"{name}: {_short(d['kl'][0])}" + (f" to {_short(d['kl'][-1])}" if len(d["kl"]) > 1 else "")
        for name, d in data.items()
    )
    return f"KL in nats from the fewest bytes to the most, {'; '.join(told)}."


def _short(number: float) -> str:
    return f"{number:.2g}"


def _column(rows: Sequence[Mapping]) -> tuple[list[float], list[float]]:
    return [100 * row["storage"] for row in rows], [row["kl from experts"]["value"] for row in rows]


SECTIONS = {
    "DTS: groups": ("2 groups", "8 groups", "a partition a vector"),
    "DTS: levels and values": ("group means", "Lloyd-Max levels", "singular values refitted"),
    "DTS: norms": ("norm restored", "norm half restored"),
    "DTS: shares of the budget": ("errors relative to each matrix", "errors of all matrices alike"),
    "DTS: blocks": ("residual-corrected blocks of 4", "all that helps, 2 bits"),
    "DRC": ("DRC",),
    "DRC: rounding": ("DRC, nothing fitted", "DRC, rounded to nearest", "DRC, no component cut"),
    "DRC: norms": ("DRC, norm not restored", "DRC, norm wholly restored"),
    "DRC: shares of the budget": ("DRC, errors of all tensors alike", "DRC, errors relative to each tensor"),
}
"""The rows of the ablation by what they change; a row that no section names stands under "others"."""


@styled
def ablation_bars(rows: Sequence[Mapping], reference: str) -> tuple[Figure, dict]:
    """KL divergence of each row of the ablation, in nats, as bars in sections; a line at the row ``reference``.

    A bar is the mean over seeds of experts, and a dot on it each of them. ``data``: {section: {row: KL}}.
    """
    found = {row["name"]: row["kl from experts"] for row in rows if "storage" in row}
    named = {name for names in SECTIONS.values() for name in names} | {reference}
    sections = {"to compare with": (reference,), **SECTIONS, "others": [name for name in found if name not in named]}
    data = {title: {n: found[n]["value"] for n in names if n in found} for title, names in sections.items()}
    data = {title: own for title, own in data.items() if own}
    figure, axis = plt.subplots(figsize=(7.2, 0.26 * len(found) + 0.3 * len(data) + 0.8))
    beside = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
    clear = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # of the line
    place, ticks = 0.0, {}
    for title, own in data.items():
        heading = {"xycoords": axis.get_yaxis_transform(), "fontsize": 8.5, "fontweight": "bold", "va": "center"}
        axis.annotate(title, (0.01, place), **heading)
        for name, kl in own.items():
            place += 1
            ticks[place], each = name, found[name]["each"]
            axis.barh(place, kl, height=0.75, **bar_cue(3 if title.startswith("DRC") else 0))
            axis.plot(each, [place] * len(each), "o", markersize=2.5, color="black", alpha=0.7)
            axis.annotate(f"{kl:.4f}", (max(each), place), **beside, bbox=clear)
        place += 1.25
    axis.axvline(found[reference]["value"], color="0.35", linewidth=1, zorder=0.5)
    axis.set_yticks(list(ticks), [name.removeprefix("DRC, ") for name in ticks.values()])
    axis.tick_params(axis="y", length=0)
    axis.margins(y=0.01)
    axis.invert_yaxis()
    axis.set_xlabel("KL divergence from the experts (nats); dots: each seed")
    bars = ". ".join(f"{title}: " + ", ".join(f"{n} {kl:.4f}" for n, kl in own.items()) for title, own in data.items())
    figure.alt = (
        f"Horizontal bars of the KL divergence from the experts, in nats, in sections, a line at {reference}. {bars}."
    )
    return figure, data


@styled
def layer_ranks(ranks: Mapping[str, Mapping[str, int]]) -> tuple[Figure, dict]:
    """Components that each method gives each matrix, a panel a method: {method: {tensor: rank}}, grouped by kind.

    A bar is one matrix. Within a kind they stand in the order of the model's layers, and no line joins them.
    """
    tensors = list(next(iter(ranks.values())))
    kinds: dict[str, list[str]] = {}
    for name in tensors:
        kinds.setdefault(next((kind for kind, part in KINDS_OF_TENSORS.items() if part in name), "others"), []).append(
            name
        )
    size = {"figsize": (7.2, 0.5 + 1.5 * len(ranks))}
    figure, axes = plt.subplots(len(ranks), 1, sharex=True, sharey=True, squeeze=False, **size)
    data: dict[str, dict[str, list[int]]] = {}
    for axis, (number, (method, given)) in zip(axes[:, 0], enumerate(ranks.items()), strict=True):
        place, middle = 0, {}
        for kind, names in kinds.items():
            places = range(place, place + len(names))
            colour = PALETTE[3 if method.startswith("DRC") else 0]
            axis.bar(places, [given[name] for name in names], 0.8, **bar_cue(number) | {"facecolor": colour})
            middle[kind] = place + (len(names) - 1) / 2
            place += len(names) + 1
        axis.set_title(method)
        axis.set_xticks(list(middle.values()), list(middle), fontsize=8.5)
        axis.tick_params(axis="x", length=0)
        axis.grid(axis="y", color="0.9")
        data[method] = {kind: [given[name] for name in names] for kind, names in kinds.items()}
    figure.supylabel("components kept", fontsize="medium")
    most = {m: max((r, kind) for kind, own in given.items() for r in own) for m, given in data.items()}
    told = "; ".join(f"{m}: {r} at most, in {' '.join(kind.split())}" for m, (r, kind) in most.items())
    figure.alt = f"Bars of the components that each matrix keeps, by kind of matrix, a panel for each method. {told}."
    return figure, data


KINDS_OF_TENSORS = {
    "attention, in": "attn.in_proj",
    "attention, out": "attn.out_proj",
    "MLP, in": "mlp.c_fc",
    "MLP, out": "mlp.c_proj",
    "before and after\nthe blocks": "",
}


@styled
def component_errors(energy: Sequence[float], left: Mapping[str, Sequence[float]]) -> tuple[Figure, dict]:
    """What coding leaves of each component of one matrix: its squared error against the component's own energy.

    ``energy``: s_i^2, falling. ``left``: {method: squared error along u_i}.
    """
    figure, axis = plt.subplots(figsize=(7.2, 3.6))
    axis.plot(range(1, len(energy) + 1), energy, color="0.2", linewidth=1.5, label="the component itself, $s_i^2$")
    for method, errors in left.items():
        points = look(method, list(left)) | {"linestyle": "none", "markersize": 4}
        axis.plot(range(1, len(errors) + 1), errors, **points, label=f"left by {method}")
    axis.set(yscale="log", xlabel="component $i$, the strongest first", ylabel="squared error")
    axis.set_ylim(bottom=min(min(errors) for errors in left.values()) / 2)
    axis.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper center", ncols=2)
    ends = "; ".join(f"{m}: {_short(e[0])} of the strongest, {_short(min(e))} at least" for m, e in left.items())
    figure.alt = (
        "Squared error that is left of each component of one matrix, the strongest first, on a log axis, below the "
        f"falling curve of the components themselves. {ends}. Beyond the last component kept the points lie on the "
        "curve."
    )
    return figure, {"energy": list(energy), **{method: list(errors) for method, errors in left.items()}}


@styled
def rate_distortion(
    measured: Mapping[str, Sequence[tuple[float, float, float]]], limit: tuple[Sequence[float], Sequence[float]]
) -> tuple[Figure, dict]:
    """What one expert's bytes leave: squared error (share of the task vector's) and KL (nats), one below the other.

    ``measured``: {method: (bits per parameter, error, KL), one for each size}. ``limit``: (bits, errors)
    of the best possible code, drawn in the upper panel without points: of the KL no limit is known. All axes are
    logarithmic.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 6.4), sharex=True)
    data = {}
    for method, points in measured.items():
        bits, errors, kl = zip(*points, strict=True)
        above.plot(bits, errors, **look(method, list(measured)), label=method)
        below.plot(bits, kl, **look(method, list(measured)))
        data[method] = {"bits": list(bits), "error": list(errors), "kl": list(kl)}
    above.fill_between(*limit, min(limit[1]) / 2, color="0.88", label="beyond the limit")
    above.plot(*limit, color="0.2", linewidth=1.5)
    ticks = [0.1, 0.2, 0.5, 1, 2, 5]
    lows = [min(entry["bits"]) for entry in data.values()]
    for axis in (above, below):
        axis.set(xscale="log", yscale="log")
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(color="0.9")
    shares = [0.1, 0.2, 0.3, 0.5]
    above.set_yticks(shares, [f"{share:g}" for share in shares])
    above.yaxis.set_minor_locator(NullLocator())
    above.set_ylim(bottom=0.6 * min(min(entry["error"]) for entry in data.values()))
    above.set_xlim(0.8 * min(lows), 1.25 * max(max(entry["bits"]) for entry in data.values()))
    above.set_ylabel("squared error\n(share of the task vector's)")
    below.set(xlabel="bits per parameter", ylabel="KL divergence\nfrom the expert (nats)")
    figure.legend(loc="outside upper center", ncols=3)
    told = "; ".join(
        f"{m}: error {e['error'][0]:.2f} to {e['error'][-1]:.2f}, KL {_short(e['kl'][0])} to {_short(e['kl'][-1])}"
        for m, e in data.items()
    )
    figure.alt = (
        "Two panels, one below the other, against bits per parameter, all on log axes. Above: the squared error that "
        "is left, and in grey what no code reaches. Below: KL divergence, in nats. From the fewest to the most bits, "
        f"{told}."
    )
    return figure, data


@styled
def bound_tightness(bounds: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[Figure, dict]:
    """Measured error of each matrix against its bound: {method: {tensor: (truncation, coding, error)}}, shares."""
    figure, axis = plt.subplots(figsize=(5.2, 4.2))
    data = {}
    for method, own in bounds.items():
        bound, error = [t + c for t, c, _ in own.values()], [e for *_, e in own.values()]
        axis.plot(bound, error, **(look(method, list(bounds)) | {"linestyle": "none"}), label=method)
        data[method] = [bound, error]
    most = max(max(bound) for bound, _ in data.values()) * 1.05
    axis.plot([0, most], [0, most], color="0.35", linewidth=1, label="bound = error")
    axis.set_xlim(0, most)
    axis.set_ylim(0, most)
    axis.set_xlabel("bound: truncation + coding")
    axis.set_ylabel("measured error")
    axis.legend(loc="upper left")
    shares = {m: [e / b for b, e in zip(*d, strict=True) if b] for m, d in data.items()}
    told = "; ".join(f"{m}: {min(own):.0%} to {max(own):.0%} of the bounds" for m, own in shares.items() if own)
    figure.alt = (
        f"Measured error of each matrix against its bound, and a diagonal where both are equal. Errors: {told}."
    )
    return figure, data
