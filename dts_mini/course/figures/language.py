"""Models that read: where the bytes of a text model go, and what its heads say of their tasks."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dts_mini.course.style import bar_cue, styled


@styled
def where_bytes_go(parts: Mapping[str, Mapping[str, tuple[float, float]]]) -> tuple[Figure, dict]:
    """What each kind of tensor takes of a model's parameters and of a task's file: two stacked bars a model, in %.

    ``parts`` is {model: {kind of tensor: (parameters, bits of the file)}}, in any unit.
    """
    figure, axis = plt.subplots(figsize=(7.2, 0.75 * 2 * len(parts) + 1.2))
    data: dict[str, dict[str, tuple[float, float]]] = {}
    ticks = {}
    for row, (model, kinds) in enumerate(parts.items()):
        sums = [sum(own[i] for own in kinds.values()) for i in (0, 1)]
        data[model] = {kind: tuple(100 * own[i] / sums[i] for i in (0, 1)) for kind, own in kinds.items()}
        for i, what in enumerate(("parameters", "file")):
            place, start = 2.5 * row + 0.95 * i, 0.0
            ticks[place] = f"{model}, {what}"
            for number, (kind, share) in enumerate(data[model].items()):
                label = kind if not ticks.keys() - {place} else None
                axis.barh(place, share[i], 0.8, left=start, **bar_cue(number), label=label)
                if share[i] >= 7:
                    clear = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                    axis.text(start + share[i] / 2, place, f"{share[i]:.0f}", ha="center", va="center", bbox=clear)
                start += share[i]
    axis.set_yticks(list(ticks), list(ticks.values()))
    axis.invert_yaxis()
    axis.set(xlabel="share (%)", xlim=(0, 100))
    figure.legend(loc="outside upper center", ncols=3)
    told = "; ".join(
        f"{model}: " + ", ".join(f"{kind} {a:.0f} and {b:.0f}" for kind, (a, b) in kinds.items())
        for model, kinds in data.items()
    )
    figure.alt = (
        "Two stacked bars for each model: what each kind of tensor takes of the parameters, and of a task's file, "
        f"in %. {told}."
    )
    return figure, data


@styled
def descriptor_cosines(
    seen: Sequence[str], cosines: Mapping[str, Mapping[str, Sequence[float]]]
) -> tuple[Figure, dict]:
    """Cosines of a new task's descriptor with those of the seen tasks: a panel a model, a bar a way to make them.

    ``cosines`` is {model: {way: a value for each of ``seen``}}.
    """
    figure, axes = plt.subplots(len(cosines), 1, figsize=(7.2, 2.1 * len(cosines) + 0.6), sharex=True, squeeze=False)
    data = {model: {way: list(map(float, row)) for way, row in ways.items()} for model, ways in cosines.items()}
    for axis, (model, ways) in zip(axes[:, 0], data.items(), strict=True):
        width = 0.8 / len(ways)
        for number, (way, row) in enumerate(ways.items()):
            places = [i + (number - (len(ways) - 1) / 2) * width for i in range(len(seen))]
            axis.bar(places, row, width, **bar_cue(number), label=way)
        axis.axhline(0, color="0.35", linewidth=1)
        axis.set(title=model, ylabel="cosine", ylim=(min(0, *(min(r) for r in ways.values())) - 0.05, 1))
        axis.set_xticks(range(len(seen)), seen)
    axes[-1, 0].set_xlabel("seen task")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    told = "; ".join(
        f"{model}, {way}: " + ", ".join(f"{task} {value:.1f}" for task, value in zip(seen, row, strict=True))
        for model, ways in data.items()
        for way, row in ways.items()
    )
    figure.alt = (
        f"Bars of the cosine of the new task's descriptor with each seen task's, a panel for each model. {told}."
    )
    return figure, data
