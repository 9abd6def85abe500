"""Decomposition: a matrix, its components and their energy, and what truncation costs it and its model."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from torch import Tensor

from dts_mini.core.state import State
from dts_mini.course.figures.shared import KINDS, intervals, layer_of, reach, whiskers
from dts_mini.course.style import PALETTE, SIGNS, cue, styled


@styled
def described(matrix: Tensor, ranks: Sequence[int], size: int = 64) -> tuple[Figure, dict]:
    """The top left corner (size x size) of a matrix M, and of M described by its leading components only."""
    u, s, vh = torch.linalg.svd(matrix.float(), full_matrices=False)
    views = {"M": matrix.float()}
    for rank in ranks:
        views[f"{rank} direction{'s' * (rank > 1)}"] = (u[:, :rank] * s[:rank]) @ vh[:rank]
    corners = {name: view[:size, :size] for name, view in views.items()}
    limit = corners["M"].abs().quantile(0.99).item()
    lines = -(-len(corners) // 2)
    figure, grid = plt.subplots(lines, 2, figsize=(6.4, 3 * lines), squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(corners) :]:
        axes.set_visible(False)
    for axes, (name, corner) in zip(grid.flat, corners.items(), strict=False):
        image = axes.imshow(corner.numpy(), cmap=SIGNS, vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(name)
    for axes in grid[-1]:
        axes.set_xlabel("column (number)")
    for axes in grid[:, 0]:
        axes.set_ylabel("row (number)")
    figure.colorbar(image, ax=grid, label="change of the weight", extend="both", shrink=0.7)
    strength = {name: corner.norm().item() / corners["M"].norm().item() for name, corner in corners.items()}
    figure.alt = (
        f"{len(corners)} heat maps of one corner on one colour scale: the matrix M, then M described by fewer and "
        "fewer directions. The texture of M gets smoother, then only stripes are left, then one pattern of rows and "
        "columns. The corner pales: "
        + ", ".join(f"{name} {share:.0%}" for name, share in strength.items() if name != "M")
        + " of M's strength."
    )
    return figure, {"limit": [limit]} | {name: corner.tolist() for name, corner in corners.items()}


@styled
def component(u: Tensor, s: float, v: Tensor, size: int = 40) -> tuple[Figure, dict]:
    """One component as an outer product: u (m) down the side, v (n) on top, s u v^T between; the first ``size``."""
    u, v = u[:size].float(), v[:size].float()
    product = float(s) * torch.outer(u, v)
    limit = product.abs().max().item()
    figure, grid = plt.subplots(2, 2, figsize=(5.8, 5.2), width_ratios=(1, 4), height_ratios=(1, 4))
    (corner, top), (side, middle) = grid
    corner.axis("off")
    corner.text(0.4, 0.5, f"s = {float(s):.2g}", ha="center", va="center")
    for sign, name in ((1, "positive"), (-1, "negative")):
        look = {"color": PALETTE[0 if sign > 0 else 3], "linestyle": "-" if sign > 0 else "--"}
        across, down = torch.nonzero(sign * v > 0).flatten(), torch.nonzero(sign * u > 0).flatten()
        top.vlines(across, 0, v[across], **look, label=name)
        side.hlines(down, 0, u[down], **look)
    image = middle.imshow(product.numpy(), cmap=SIGNS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    top.sharex(middle)
    side.sharey(middle)
    top.tick_params(labelbottom=False)
    top.set_ylabel("element of v")
    side.set(xlabel="element of u", ylabel="row (number)")
    side.xaxis.set_major_locator(MaxNLocator(2))
    side.tick_params(axis="x", labelrotation=90)  # there is no room for them side by side
    middle.tick_params(labelleft=False)
    middle.set_xlabel("column (number)")
    for axes in (top, side):
        axes.grid(color="0.9")
    figure.legend(loc="outside upper center", ncols=2)
    figure.colorbar(image, ax=grid[:, 1].tolist(), label=r"$s\,u\,v^\top$ (change of the weight)")
    figure.alt = (
        "One component. On the left the numbers of u as lines, one for each row; on top those of v, one for each "
        "column. Between them the heat map of their products: stripes along the rows and columns whose number in u "
        "or v is large, blue where both have the same sign, orange where they differ."
    )
    return figure, {"u": u.tolist(), "v": v.tolist(), "s": [float(s)], "product": product.tolist()}


@styled
def singular_values(named: Mapping[str, Tensor], rank: int) -> tuple[Figure, dict]:
    """Singular values (falling) of matrices of one shape, in % of its length, and the energy of the leading ones.

    ``rank`` is where a line marks the components that are kept. Data: values and energy in %, by name.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.4, 6.2), sharex=True)
    data = {"rank": [rank], "value": {}, "energy": {}}
    for number, (name, values) in enumerate(named.items()):
        share = values.double() / values.double().norm()
        data["value"][name] = (100 * share).tolist()
        data["energy"][name] = (100 * share.square().cumsum(0)).tolist()
        places, every = range(1, len(values) + 1), max(1, len(values) // 12)
        look = {**cue(number), "markevery": every, "markersize": 4}
        above.plot(places, data["value"][name], label=name, **look)
        below.plot(places, data["energy"][name], **look)
    for axes in (above, below):
        axes.axvline(rank, color="0.4", linestyle=":", label=f"rank {rank}" if axes is above else None)
        axes.grid(color="0.9")
    below.set_xlabel("component (number)")
    above.set(ylim=(0, None), ylabel="singular value\n(% of the matrix's length)")
    below.set(ylim=(0, 104), ylabel="energy of the leading components\n(% of the matrix's)")
    figure.legend(loc="outside upper center", ncols=2)
    held = ", ".join(f"{_plain(name)} {energy[rank - 1]:.0f} %" for name, energy in data["energy"].items())
    first = ", ".join(f"{_plain(name)} {value[0]:.0f} %" for name, value in data["value"].items())
    figure.alt = (
        f"Two panels over the component number. Above, singular values, falling; the first ones are {first} of the "
        f"matrix's length. Below, the energy of the leading components, rising to 100 %; at rank {rank}: {held}."
    )
    return figure, data


@styled
def truncation_error(matrix: Tensor, stated: Mapping[int, float]) -> tuple[Figure, dict]:
    """Relative error of a matrix truncated to each rank, as ``stated`` {rank: error in [0, 1]} and as measured.

    Two rivals: projections onto as many random directions, and the largest elements, as many as the factors of that
    rank have numbers. Data: all errors in %, by rank.
    """
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    relative = lambda other: 100 * ((matrix - other).norm() / matrix.norm()).item()
    sizes = matrix.abs().flatten().sort(descending=True).values
    ranks, measured = list(stated), [relative((u[:, :r] * s[:r]) @ vh[:r]) for r in stated]
    rivals = {"random directions, same rank": [], "largest elements, as many numbers": []}
    for r in ranks:
        q = torch.linalg.qr(torch.randn(matrix.shape[1], r, generator=torch.Generator().manual_seed(r))).Q
        rivals["random directions, same rank"].append(relative(matrix @ q @ q.T))
        least = sizes[min(r * (sum(matrix.shape) + 1), len(sizes)) - 1]
        rivals["largest elements, as many numbers"].append(relative(matrix.where(matrix.abs() >= least, 0)))
    figure, axes = plt.subplots(figsize=(6.4, 4.6))
    for number, (name, errors) in enumerate(rivals.items(), 1):
        axes.plot(ranks, errors, markersize=5, label=name, **cue(number))
    percent = [100 * float(error) for error in stated.values()]
    axes.plot(ranks, percent, color=PALETTE[0], linestyle="-", label="truncation, as stated")
    point = {"color": PALETTE[3], "linestyle": "", "marker": "D"}
    axes.plot(ranks, measured, label="truncation, as measured", **point)
    error = r"error $\Vert M - M_r \Vert\, / \,\Vert M \Vert$ (%)"
    axes.set(xlabel=r"rank $r$ (components kept)", ylabel=error, ylim=(0, None))
    axes.grid(color="0.9")
    figure.legend(loc="outside upper center", ncols=1)
    ends = lambda errors: f"from {errors[0]:.0f} % to {errors[-1]:.0f} %"
    off = max(abs(a - b) for a, b in zip(percent, measured, strict=True))
    figure.alt = (
        f"Relative error against rank, from {ranks[0]} to {ranks[-1]}. Truncation falls {ends(measured)}; the measured "
        f"points {'lie on' if off < 1 else 'are off'} the stated line. "
        + " ".join(f"{name[:1].upper()}{name[1:]}: {ends(errors)}." for name, errors in rivals.items())
    )
    found = {"truncation": measured} | rivals
    data = {name: dict(zip(ranks, errors, strict=True)) for name, errors in found.items()}
    return figure, {"stated": dict(zip(ranks, percent, strict=True))} | data


@styled
def rank_accuracy(
    rows: Mapping[str, Mapping[float, Mapping[str, float | Tensor]]], levels: Mapping[str, Tensor]
) -> tuple[Figure, dict]:
    """Error, accuracy and KL divergence of models rebuilt at several keep ratios: three panels, a line for each row.

    ``rows`` {name: {keep ratio: {"error": in [0, 1], "right": (n), "kl": (n) in nats}}}; ``levels`` {name: right (n)}
    are lines across. Data: error in %, accuracy in % and KL in nats with 95 % bootstrap intervals.
    """
    figure, (top, middle, last) = plt.subplots(3, 1, figsize=(6.4, 8.2), sharex=True)
    data = {"rows": {}, "levels": {}}
    for number, (name, found) in enumerate(rows.items()):
        ratios = sorted(found)
        entry = {
            "keep ratio": ratios,
            "error": [100 * float(found[ratio]["error"]) for ratio in ratios],
            "accuracy": intervals([found[ratio]["right"] for ratio in ratios], 100),
            "kl": intervals([found[ratio]["kl"] for ratio in ratios]),
        }
        data["rows"][name] = entry
        top.plot(ratios, entry["error"], markersize=6, label=name, **cue(number))
        whiskers(middle, ratios, entry["accuracy"], number, None)
        whiskers(last, ratios, entry["kl"], number, None)
    _levels(middle, levels, data, middle.axhline, middle.axhspan)
    for axes in (top, middle, last):
        axes.set_xscale("log")
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(color="0.9")
    last.set_xlabel(r"keep ratio $\rho$ (log scale)")
    top.set(ylim=(0, 104), ylabel="error of all matrices\n(% of their length)")
    middle.set(ylim=(0, 104), ylabel="accuracy (%)\n95 % interval")
    last.set(yscale="log", ylabel="KL from the expert (nats)\n95 % interval")
    figure.legend(loc="outside upper center", ncols=2)
    told = []
    for name, entry in data["rows"].items():
        at = lambda key, unit, entry=entry: f"from {key[0]:.3g} to {key[-1]:.3g} {unit}"
        told.append(
            f"{name[:1].upper()}{name[1:]}: error {at(entry['error'], '%')}, accuracy "
            f"{at(entry['accuracy']['value'], '%')}, KL divergence {at(entry['kl']['value'], 'nats')}."
        )
    levels = ", ".join(f"{name} {at['value']:.0f} %" for name, at in data["levels"].items())
    figure.alt = (
        f"Three panels against the keep ratio, from {ratios[0]:g} to {ratios[-1]:g}: error of the matrices, accuracy, "
        f"KL divergence. {' '.join(told)}" + (f" Accuracies to compare with: {levels}." if levels else "")
    )
    return figure, data


@styled
def same_error(rows: Mapping[str, Mapping[str, Tensor]], levels: Mapping[str, Tensor]) -> tuple[Figure, dict]:
    """Accuracy and KL divergence of several models, one below the other, with 95 % bootstrap intervals.

    ``rows`` {name: {"right": (n), "kl": (n) in nats}}; ``levels`` {name: right (n)} are lines across the accuracies.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.4, 4.8), sharey=True)
    names = list(rows)
    data = {
        "name": names,
        "accuracy": intervals([rows[name]["right"] for name in names], 100),
        "kl": intervals([rows[name]["kl"] for name in names]),
        "levels": {},
    }
    for axes, key in ((above, "accuracy"), (below, "kl")):
        for number in range(len(names)):
            one = {end: [numbers[number]] for end, numbers in data[key].items()}
            look = {**cue(number), "linestyle": "none", "capsize": 3, "markersize": 7}
            axes.errorbar(one["value"], [number], xerr=reach(one), **look)
        axes.grid(axis="x", color="0.9")
    _levels(above, levels, data, above.axvline, above.axvspan)
    above.set_yticks(range(len(names)), names)
    above.set(ylim=(len(names) - 0.5, -0.5), xlabel="accuracy (%), 95 % interval")
    below.set(xscale="log", xlabel="KL from the expert (nats, log scale), 95 % interval")
    figure.legend(loc="outside upper center", ncols=2)
    each = zip(names, data["accuracy"]["value"], data["kl"]["value"], strict=True)
    figure.alt = "Accuracy and KL divergence of several models, each with its interval. " + " ".join(
        f"{name[:1].upper()}{name[1:]}: {accuracy:.0f} %, {kl:.2g} nats." for name, accuracy, kl in each
    )
    return figure, data


@styled
def layer_errors(base: State, experts: Mapping[str, State], error_of: Callable[[Tensor], float]) -> tuple[Figure, dict]:
    """Truncation error of each task vector's matrices at one keep ratio, by layer and kind: mean and range, in %.

    ``error_of`` gives the relative error, in [0, 1], of a task vector's matrix (m x n).
    """
    places: dict[str, dict[str, list[float]]] = {}
    for name, tensor in base.items():
        if tensor.dim() != 2:
            continue
        kind = next((kind for kind, mark in KINDS.items() if mark and mark in name), None)
        kind = kind or ("positions" if "positional" in name else "projection")
        errors = [100 * float(error_of(expert[name] - tensor)) for expert in experts.values()]
        places.setdefault(kind, {})[layer_of(name)] = errors
    layers = sorted({layer for found in places.values() for layer in found})
    layers.sort(key=lambda layer: (layer == "output", layer != "input", layer))
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    data = {"layers": layers, "kinds": {}}
    for number, (kind, found) in enumerate(places.items()):
        present = [layer for layer in layers if layer in found]
        entry = {"layer": present, "value": [sum(found[layer]) / len(found[layer]) for layer in present]}
        entry |= {end: [pick(found[layer]) for layer in present] for end, pick in (("low", min), ("high", max))}
        data["kinds"][kind] = entry
        where = [layers.index(layer) + 0.1 * (number - 2.5) * (len(present) > 1) for layer in present]
        whiskers(axes, where, entry, number, kind, linestyle="none")
    axes.set_xticks(range(len(layers)), layers)
    axes.set(xlabel="layer", ylabel="truncation error (% of the matrix's length)\nmean and range of the experts")
    axes.set_ylim(0, 104)
    axes.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper center", ncols=3)
    told = " ".join(
        f"{kind[:1].upper()}{kind[1:]}: "
        + ", ".join(f"{layer} {value:.0f} %" for layer, value in zip(entry["layer"], entry["value"], strict=True))
        + "."
        for kind, entry in data["kinds"].items()
    )
    figure.alt = (
        f"Truncation error at one keep ratio by layer, mean and range of the experts, by kind of matrix. {told}"
    )
    return figure, data


def _plain(name: str) -> str:
    """A label without its mathematics' signs, for alt text."""
    return name.replace("$", "").replace("\\", "")


def _levels(axes: Axes, levels: Mapping[str, Tensor], data: dict, line, span) -> None:
    """Accuracies to compare with, as lines with their intervals; ``line`` and ``span`` say which way they run."""
    for number, (name, right) in enumerate(levels.items()):
        at = {key: values[0] for key, values in intervals([right], 100).items()}
        look = {"color": ("0.15", "0.45")[number % 2], "linestyle": ("-", "--")[number % 2]}
        line(at["value"], label=name, zorder=0, **look)
        span(at["low"], at["high"], color=look["color"], alpha=0.12, linewidth=0)
        data["levels"][name] = at
