"""The course's figures: each function returns (figure, data), the data plain lists that a test can read."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from dts_mini.core.delta import Flat, LowRank, TaskDelta
from dts_mini.core.state import State
from dts_mini.course.style import DASHES, MARKERS, PALETTE, bar_cue, cue, styled
from dts_mini.suites.evaluation import bootstrap, interval
from dts_mini.suites.mini.task import Task

# --- the suite, its experts, their task vectors ---


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
    return figure, data


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
        entry = _estimates([*values, sum(values) / len(values)], [interval(column) for column in spread.T])
        data["rows"][row] = entry
        shift = 0.12 * (number - (len(outcomes) - 1) / 2)
        where = [*(i + shift for i in range(len(tasks))), len(tasks) + 0.4 + shift]
        _whiskers(axis, where, entry, number, row, linestyle="none")
    axis.axvline(len(tasks) - 0.3, color="0.75", linewidth=0.8)
    axis.set_xticks([*range(len(tasks)), len(tasks) + 0.4], data["columns"], rotation=25, ha="right")
    axis.set(ylabel="accuracy (%), 95 % interval", ylim=(0, 102))
    axis.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper center", ncols=min(5, len(outcomes)))
    return figure, data


@styled
def triangle(base: State, first: State, second: State, names: tuple[str, str]) -> tuple[Figure, dict]:
    """theta_0, two experts and their average in the plane that they span, angles and lengths to scale.

    Lengths are in % of theta_0's own; data holds the points (x, y), theta_0 being the origin.
    """
    a, b = (_flat(expert) - _flat(base) for expert in (first, second))
    unit = 100 / _flat(base).norm().item()
    along = (a @ b / a.norm()).item()
    across = (b.norm().square() - along**2).clamp(min=0).sqrt().item()
    points = {names[0]: (a.norm().item() * unit, 0.0), names[1]: (along * unit, across * unit)}
    points["their average"] = tuple(sum(p) / 2 for p in zip(*points.values(), strict=True))
    figure, axis = plt.subplots(figsize=(5.6, 4.6))
    for number, (name, point) in enumerate(points.items()):
        look = cue(number)
        arrow = {"arrowstyle": "-|>", "color": look["color"], "linestyle": look["linestyle"], "lw": 1.8}
        axis.annotate("", point, (0, 0), arrowprops=arrow)
        axis.plot(*point, marker=look["marker"], color=look["color"], linestyle="none", label=name)
    axis.plot(0, 0, marker=cue(6)["marker"], color=cue(6)["color"], linestyle="none", label="theta_0")
    axis.plot(*zip(*list(points.values())[:2], strict=True), color="0.6", linewidth=0.8)
    axis.set(xlabel="along the first task vector (% of ||theta_0||)", ylabel="across it (% of ||theta_0||)")
    axis.set_aspect("equal")
    axis.margins(0.12)
    figure.legend(loc="outside upper center", ncols=2)
    return figure, {"name": ["theta_0", *points], "point": [(0.0, 0.0), *points.values()]}


KINDS = {
    "attention, in": "attn.in_proj_weight",
    "attention, out": "attn.out_proj.weight",
    "MLP, in": "mlp.c_fc.weight",
    "MLP, out": "mlp.c_proj.weight",
    "norms and biases": "bias|ln_",
    "patches, positions, projection": "",
}


@styled
def layer_lengths(base: State, experts: Mapping[str, State]) -> tuple[Figure, dict]:
    """Length of the task vectors by layer and kind of tensor, as % of theta_0's there: mean and range over experts."""
    places: dict[str, dict[str, list[str]]] = {kind: {} for kind in KINDS}
    for name in base:
        kind = next(kind for kind, marks in KINDS.items() if any(mark in name for mark in marks.split("|")))
        places[kind].setdefault(_layer(name), []).append(name)
    layers = sorted({_layer(name) for name in base}, key=lambda layer: (layer == "output", layer != "input", layer))
    figure, axis = plt.subplots(figsize=(8, 4))
    data = {"layers": layers, "kinds": {}}
    for number, (kind, members) in enumerate(places.items()):
        present = [layer for layer in layers if layer in members]
        if not present:
            continue
        share = [[_moved(base, expert, members[layer]) for expert in experts.values()] for layer in present]
        entry = {
            "layer": present,
            "value": [sum(part) / len(part) for part in share],
            "low": [min(part) for part in share],
            "high": [max(part) for part in share],
        }
        data["kinds"][kind] = entry
        where = [layers.index(layer) + 0.1 * (number - 2.5) for layer in present]
        _whiskers(axis, where, entry, number, kind, linestyle="none")
    axis.set_xticks(range(len(layers)), layers)
    axis.set(xlabel="layer", ylabel="length of the task vector\n(% of theta_0's; mean, range of experts)")
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper center", ncols=3)
    return figure, data


@styled
def cosine_map(cosines: Tensor, names: Sequence[str]) -> tuple[Figure, dict]:
    """Cosines (k, k) of k named vectors, each written in its cell."""
    figure, axis = plt.subplots(figsize=(6.6, 5.4))
    image = axis.imshow(cosines.numpy(), cmap="cividis", vmin=min(0.0, cosines.min().item()), vmax=1)
    for i, row in enumerate(cosines.tolist()):
        for j, value in enumerate(row):
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="k" if value > 0.6 else "w")
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="task", ylabel="task")
    figure.colorbar(image, label="cosine of the task vectors (no unit)")
    return figure, {"names": list(names), "cosines": cosines.tolist()}


@styled
def similarity_scatter(
    partners: Mapping[str, Tensor],
    similarities: Mapping[str, Mapping[str, float]],
    levels: Mapping[str, Tensor],
    task: str,
) -> tuple[Figure, dict]:
    """Accuracy on ``task`` of its expert merged with each partner, against how alike the two are; a panel a measure.

    ``partners`` and ``levels`` (drawn as lines across) hold which images were right (n,), ``similarities``
    {measure: {partner: similarity}}. Data: estimates in % with 95 % bootstrap intervals, most alike last.
    """
    resampled = bootstrap({name: {task: right} for name, right in {**partners, **levels}.items()})
    at = {
        name: _estimates([100 * right.float().mean().item()], [interval(resampled[name][:, 0])])
        for name, right in {**partners, **levels}.items()
    }
    figure, panels = plt.subplots(
        1, len(similarities), figsize=(4.6 * len(similarities), 4.6), sharey=True, squeeze=False
    )
    data = {"measures": {}, "levels": {name: at[name] for name in levels}}
    for axis, (measure, alike) in zip(panels[0], similarities.items(), strict=True):
        names = sorted(partners, key=alike.__getitem__)
        for name in names:
            look = list(partners).index(name)
            label = name if not data["measures"] else None
            _whiskers(axis, [alike[name]], at[name], look, label, linestyle="none")
        for number, name in enumerate(levels):
            look = {"color": ("0.15", "0.35", "0.5")[number % 3], "linestyle": ("-", "--", ":")[number % 3]}
            axis.axhline(at[name]["value"][0], label=name if not data["measures"] else None, **look)
            axis.axhspan(at[name]["low"][0], at[name]["high"][0], color=look["color"], alpha=0.12, linewidth=0)
        axis.set_xlabel(f"{measure} (cosine)")
        entry = {key: [at[name][key][0] for name in names] for key in ("value", "low", "high")}
        data["measures"][measure] = {"partner": names, "similarity": [alike[name] for name in names], **entry}
    figure.axes[0].set_ylabel(f"accuracy on {task} (%), 95 % interval")
    figure.legend(loc="outside upper center", ncols=4)
    return figure, data


def _flat(state: State) -> Tensor:
    """All numbers of a state dict as one vector, in the order of its tensors' names: files differ in their own order."""
    return torch.cat([state[name].flatten() for name in sorted(state)])


def _layer(name: str) -> str:
    if "resblocks." in name:
        return f"block {int(name.split('resblocks.')[1].split('.')[0]) + 1}"
    return "output" if name.startswith(("ln_post", "proj")) else "input"


def _moved(base: State, expert: State, names: Sequence[str]) -> float:
    """How far these tensors moved, in % of their length in the base."""
    far = sum((expert[name] - base[name]).square().sum().item() for name in names)
    return 100 * (far / sum(base[name].square().sum().item() for name in names)) ** 0.5


def _estimates(values: list[float], intervals: list[tuple[float, float]]) -> dict[str, list[float]]:
    """Values, already in %, and their intervals, put in %."""
    low, high = zip(*intervals, strict=True)
    return {"value": values, "low": [100 * x for x in low], "high": [100 * x for x in high]}


def _whiskers(axis: Axes, x: Sequence[float], entry: Mapping[str, list[float]], index: int, label, **look) -> None:
    """Estimates with their intervals, in the colour and marker of series ``index``."""
    value, low, high = (torch.tensor(entry[key]) for key in ("value", "low", "high"))
    error = torch.stack([value - low, high - value]).clamp(min=0).numpy()
    axis.errorbar(x, value.numpy(), yerr=error, capsize=2, markersize=6, label=label, **{**cue(index), **look})


# --- one matrix: decomposition, thresholding, scaling ---


@styled
def singular_values(values: Sequence[float], rank: int) -> tuple[Figure, dict]:
    """All singular values of a matrix, and the share of its energy that its leading components hold.

    ``values`` fall; ``rank`` is where a line marks the components that are kept. Energy in % of ||M||_F^2.
    """
    values = [float(v) for v in values]
    total, energy = sum(v * v for v in values), []
    for value in values:
        energy.append((energy[-1] if energy else 0.0) + 100 * value * value / total)
    component = list(range(1, len(values) + 1))
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.1))
    every = max(1, len(values) // 12)
    left.plot(component, values, **cue(0), markevery=every, markersize=4, label="singular value")
    right.plot(component, energy, **cue(2), markevery=every, markersize=4, label="energy of the leading ones")
    right.set_ylim(0, 104)
    for axes in (left, right):
        axes.axvline(rank, color=PALETTE[6], linestyle=":", label=f"rank {rank}")
        axes.set_xlabel("component (number)")
        axes.legend()
    left.set_ylim(0)
    left.set_ylabel("singular value (weight units)")
    right.set_ylabel("energy (% of the matrix's)")
    return figure, {"component": component, "value": values, "energy": energy, "rank": [rank]}


@styled
def truncation_error(ranks: Sequence[int], measured: Sequence[float], stated: Sequence[float]) -> tuple[Figure, dict]:
    """Relative error of truncated SVDs: measured on rebuilt matrices, and stated by Eckart and Young; in [0, 1]."""
    measured, stated = ([100 * float(e) for e in errors] for errors in (measured, stated))
    figure, axes = plt.subplots(figsize=(5.6, 3.2))
    axes.plot(ranks, stated, color=PALETTE[0], linestyle="-", label="stated: from the singular values")
    axes.plot(ranks, measured, color=PALETTE[3], linestyle="", marker="D", label="measured: on the rebuilt matrix")
    axes.set_xlabel("rank (components kept)")
    axes.set_ylabel("error ‖M − M_r‖ / ‖M‖ (%)")
    axes.set_ylim(0)
    axes.legend()
    return figure, {"rank": list(ranks), "measured": measured, "stated": stated}


GROUP_NAMES = ("strong negative", "weak negative", "weak positive", "strong positive")


@styled
def group_histogram(elements: Tensor, codes: Tensor, scales: Sequence[float], bins: int = 81) -> tuple[Figure, dict]:
    """Elements of a factor by size, stacked by their group of four, and the one value that each group becomes."""
    elements, codes, scales = elements.flatten(), codes.flatten(), [float(s) for s in scales]
    reach = elements.abs().quantile(0.999).item()
    edges = torch.linspace(-reach, reach, bins + 1)
    counts = {
        name: torch.histogram(elements[codes == g].cpu().float(), edges).hist.int().tolist()
        for g, name in enumerate(GROUP_NAMES)
    }
    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    floor, middles = torch.zeros(bins), (edges[1:] + edges[:-1]) / 2
    for g, (name, count) in enumerate(counts.items()):
        bars = bar_cue((3, 1, 5, 0)[g])
        axes.bar(middles, count, 2 * reach / bins, floor, **bars, linewidth=0, label=name)
        floor += torch.tensor(count)
    for g, value in enumerate(scales):
        label = "the group's value" if g == 0 else None
        axes.axvline(value, color=PALETTE[6], linestyle="--", linewidth=1.4, label=label)
    axes.set_xlabel("element of U (unit-length columns)")
    axes.set_ylabel("elements (count)")
    axes.legend(loc="upper right")
    return figure, {"edges": edges.tolist(), "counts": counts, "scales": scales}


@styled
def code_image(codes: Tensor, columns: int = 96) -> tuple[Figure, dict]:
    """Group codes (k x n) of a factor's first ``columns`` elements a row, as an image; dark to light is 0 to 3."""
    window = codes[:, :columns].int()
    colours = ListedColormap([colormaps["cividis"](x) for x in (0.0, 0.35, 0.7, 1.0)])
    figure, axes = plt.subplots(figsize=(8.4, 2.4))
    image = axes.imshow(window.numpy(), cmap=colours, vmin=-0.5, vmax=3.5, interpolation="nearest", aspect="auto")
    bar = figure.colorbar(image, ax=axes, ticks=range(4))
    bar.ax.set_yticklabels([f"{code:02b} {name}" for code, name in enumerate(GROUP_NAMES)])
    bar.set_label("code (2 bits)")
    axes.set_xlabel("element of the vector (number)")
    axes.set_ylabel("component (number)")
    return figure, {"codes": window.tolist()}


@styled
def matrices(named: Mapping[str, Tensor], size: int = 64) -> tuple[Figure, dict]:
    """The top left corner (size x size) of several matrices of one shape, side by side on one colour scale."""
    corners = {name: matrix[:size, :size].float() for name, matrix in named.items()}
    limit = next(iter(corners.values())).abs().quantile(0.99).item()
    figure, all_axes = plt.subplots(1, len(corners), figsize=(2.9 * len(corners) + 0.9, 3.0), squeeze=False)
    for axes, (name, corner) in zip(all_axes[0], corners.items(), strict=True):
        image = axes.imshow(corner.numpy(), cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(name)
        axes.set_xlabel("column (number)")
    all_axes[0, 0].set_ylabel("row (number)")
    figure.colorbar(image, ax=all_axes[0].tolist(), label="change of the weight", extend="both")
    return figure, {"limit": [limit]} | {name: corner.tolist() for name, corner in corners.items()}


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
            found["zeros"] += -(-coded.elements // 8) if coded.zeros_as_mask else coded.zeros.nbytes
    return found | {"header and table": len(delta.to_bytes()) - sum(found.values())}


@styled
def file_bytes(delta: TaskDelta) -> tuple[Figure, dict]:
    """The file of a delta taken apart, in KiB."""
    data = {name: count / 1024 for name, count in delta_bytes(delta).items()}
    figure, axes = plt.subplots(figsize=(6.4, 2.7))
    for place, kib in enumerate(data.values()):
        axes.barh(place, kib, **bar_cue(place))
        axes.annotate(f" {kib:.1f}", (kib, place), va="center")
    axes.set_yticks(range(len(data)), list(data))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("size in the file (KiB)")
    return figure, {"part": list(data), "kib": list(data.values())}


# --- personalised merging ---

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
