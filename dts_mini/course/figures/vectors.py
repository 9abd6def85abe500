"""Task vectors: how far and where they go, how alike they are, what merging two of them costs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.core.state import State
from dts_mini.course.figures.shared import KINDS, estimates, layer_of, whiskers
from dts_mini.course.style import cue, styled
from dts_mini.suites.evaluation import accuracy_interval, bootstrap


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
    axis.plot(0, 0, marker=cue(6)["marker"], color=cue(6)["color"], linestyle="none", label=r"$\theta_0$")
    axis.plot(*zip(*list(points.values())[:2], strict=True), color="0.6", linewidth=0.8)
    share = r"% of $\Vert\theta_0\Vert$"
    axis.set(xlabel=f"along the first task vector ({share})", ylabel=f"across it ({share})")
    axis.set_aspect("equal")
    axis.margins(0.12)
    figure.legend(loc="outside upper center", ncols=2)
    figure.alt = (
        f"Three arrows from theta_0, to scale: to the expert of {names[0]}, to that of {names[1]}, and to their "
        "average, which lies half-way between the two."
    )
    return figure, {"name": ["theta_0", *points], "point": [(0.0, 0.0), *points.values()]}


@styled
def layer_lengths(base: State, experts: Mapping[str, State]) -> tuple[Figure, dict]:
    """Length of the task vectors by layer and kind of tensor, as % of theta_0's there: mean and range over experts."""
    places: dict[str, dict[str, list[str]]] = {kind: {} for kind in KINDS}
    for name in base:
        kind = next(kind for kind, marks in KINDS.items() if any(mark in name for mark in marks.split("|")))
        places[kind].setdefault(layer_of(name), []).append(name)
    layers = sorted({layer_of(name) for name in base}, key=lambda layer: (layer == "output", layer != "input", layer))
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
        whiskers(axis, where, entry, number, kind, linestyle="none")
    axis.set_xticks(range(len(layers)), layers)
    axis.set(xlabel="layer", ylabel="length of the task vector\n" r"(% of $\theta_0$'s; mean, range of experts)")
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper center", ncols=3)
    ends = [x for entry in data["kinds"].values() for x in (min(entry["low"]), max(entry["high"]))]
    figure.alt = (
        "Length of the task vectors as a share of theta_0's, for the input, each block and the output, and for each "
        f"kind of tensor: mean and range over the experts, from {min(ends):.0f} to {max(ends):.0f} %."
    )
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
    others = cosines[~torch.eye(len(names), dtype=torch.bool)]
    figure.alt = (
        f"Heat map of the cosines between the task vectors of {', '.join(names)}; each cell holds its number. The "
        f"diagonal is one, all others lie between {others.min():.2f} and {others.max():.2f}."
    )
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
        name: estimates([100 * right.float().mean().item()], [accuracy_interval(right, resampled[name][:, 0])])
        for name, right in {**partners, **levels}.items()
    }
    figure, panels = plt.subplots(
        len(similarities), 1, figsize=(6.4, 3.3 * len(similarities) + 1), sharey=True, squeeze=False
    )
    data = {"measures": {}, "levels": {name: at[name] for name in levels}}
    for axis, (measure, alike) in zip(panels[:, 0], similarities.items(), strict=True):
        names = sorted(partners, key=alike.__getitem__)
        for name in names:
            look = list(partners).index(name)
            label = name if not data["measures"] else None
            whiskers(axis, [alike[name]], at[name], look, label, linestyle="none")
        for number, name in enumerate(levels):
            look = {"color": ("0.15", "0.35", "0.5")[number % 3], "linestyle": ("-", "--", ":")[number % 3]}
            axis.axhline(at[name]["value"][0], label=name if not data["measures"] else None, **look)
            axis.axhspan(at[name]["low"][0], at[name]["high"][0], color=look["color"], alpha=0.12, linewidth=0)
        axis.set_xlabel(f"{measure} (cosine)")
        axis.set_ylabel(f"accuracy on {task} (%),\n95 % interval")
        entry = {key: [at[name][key][0] for name in names] for key in ("value", "low", "high")}
        data["measures"][measure] = {"partner": names, "similarity": [alike[name] for name in names], **entry}
    figure.legend(loc="outside upper center", ncols=4)
    level = "; ".join(f"{name} {at[name]['value'][0]:.0f} %" for name in levels)
    best, worst = (choose(partners, key=lambda name: at[name]["value"][0]) for choose in (max, min))
    figure.alt = (
        f"Accuracy on {task} of its expert averaged with each other expert, against how alike the two tasks are, by "
        f"{' and by '.join(similarities)}: best with {best} ({at[best]['value'][0]:.0f} %), worst with {worst} "
        f"({at[worst]['value'][0]:.0f} %). Lines: {level}."
    )
    return figure, data


def _flat(state: State) -> Tensor:
    """All numbers of a state dict as one vector, in the order of its tensors' names: files have orders of their own."""
    return torch.cat([state[name].flatten() for name in sorted(state)])


def _moved(base: State, expert: State, names: Sequence[str]) -> float:
    """How far these tensors moved, in % of their length in the base."""
    far = sum((expert[name] - base[name]).square().sum().item() for name in names)
    return 100 * (far / sum(base[name].square().sum().item() for name in names)) ** 0.5
