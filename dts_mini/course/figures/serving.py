"""Serving many experts: what swapping does to the weights, and what each way of serving costs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dts_mini.course.style import bar_cue, cue, styled


@styled
def drift(errors: Mapping[str, Sequence[float]]) -> tuple[Figure, dict]:
    """How far the base has drifted after each swap, by way of swapping, as a share of a remainder's length (log axis).

    A way that never drifts holds zeros only, which a log axis cannot show: its line runs along the bottom, and its
    label says so.
    """
    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    positive = [error for line in errors.values() for error in line if error > 0]
    floor = min(positive, default=1.0) / 10
    for number, (name, line) in enumerate(errors.items()):
        exact = not any(line)
        swaps = range(1, len(line) + 1)
        label = f"{name}: exactly zero" if exact else name
        axis.plot(swaps, [max(e, floor) for e in line], **cue(number), markevery=len(line) // 8 or 1, label=label)
    axis.set_yscale("log")
    axis.set_ylim(bottom=floor / 2)
    axis.set(xlabel="swaps so far", ylabel="drift of the base\n(share of a remainder's length)")
    axis.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper center", ncols=2)
    ends = "; ".join(f"{name}, {line[-1]:.1g}" if any(line) else f"{name}, zero" for name, line in errors.items())
    figure.alt = f"Drift of the base against the number of swaps, on a log axis. After the last swap: {ends}."
    return figure, {name: list(line) for name, line in errors.items()}


@styled
def serving_cost(shape: tuple[int, int], ranks: Sequence[int], tokens: Sequence[int]) -> tuple[Figure, dict]:
    """Multiplications per token for one m x n matrix against the tokens served between two swaps, plain W x being 1.

    Rebuilding costs m n r once for each swap; the side path costs r (m + n) for each token.
    """
    m, n = shape
    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    data = {"tokens": list(tokens), "even": m * n / (m + n), "rebuild": {}, "side": {}}
    for number, rank in enumerate(ranks):
        data["rebuild"][rank] = [1 + rank / t for t in tokens]
        data["side"][rank] = [1 + rank * (m + n) / (m * n)] * len(tokens)
        axis.plot(tokens, data["rebuild"][rank], **cue(2 * number), label=f"rebuild, rank {rank}")
        axis.plot(tokens, data["side"][rank], **cue(2 * number + 1), label=f"side path, rank {rank}")
    axis.axvline(data["even"], color="0.35", linewidth=1, label="where both cost the same")
    axis.set(xscale="log", yscale="log", xlabel="tokens served between two swaps")
    axis.set_ylabel("multiplications per token\n(plain $W x$ is 1)")
    axis.grid(color="0.9")
    figure.legend(loc="outside upper center", ncols=3)
    figure.alt = (
        "Multiplications per token against the tokens served between two swaps, on log axes. Rebuilding falls, the "
        f"side path is level; for every rank the two lines meet at {data['even']:.0f} tokens."
    )
    return figure, data


@styled
def serving_times(runs: Sequence[Mapping], ways: Sequence[str]) -> tuple[Figure, dict]:
    """The time of a request by way and batch size, as a multiple of the base's own forward: a panel a model.

    Bars are medians, whiskers the quartiles, over the rounds of ``python -m benchmarks.serving``. A batch of one holds
    one task: it has no mixed bar.
    """
    figure, panels = plt.subplots(len(runs), 1, figsize=(7.2, 2.7 * len(runs) + 0.6), sharex=True, squeeze=False)
    data = {}
    width = 0.8 / len(ways)
    for axis, found in zip(panels[:, 0], runs, strict=True):
        batches = found["batches"]
        data[found["model"]] = {}
        for number, way in enumerate(ways):
            ratios = {batch: entry[way]["to_base"]["wall"] for batch, entry in batches.items() if way in entry}
            places = [list(batches).index(batch) + width * (number - (len(ways) - 1) / 2) for batch in ratios]
            middle = [ratio["median"] for ratio in ratios.values()]
            around = [[abs(r["median"] - r[end]) for r in ratios.values()] for end in ("low", "high")]
            axis.bar(places, middle, width, **bar_cue(number), label=way)
            axis.errorbar(places, middle, yerr=around, color="0.2", linestyle="none", capsize=2, linewidth=1)
            data[found["model"]][way] = dict(zip(ratios, middle, strict=True))
        axis.axhline(1, color="0.35", linewidth=1)
        axis.set_title(found["model"])
        axis.set_xticks(range(len(batches)), batches)
        axis.set_ylabel("time of a request\n(the base's forward is 1)")
    panels[-1, 0].set_xlabel("images in a request")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(ways))
    told = "; ".join(
        f"{model}, {way}: " + ", ".join(f"{value:.1f} for {batch}" for batch, value in by.items())
        for model, ways_of in data.items()
        for way, by in ways_of.items()
    )
    figure.alt = (
        f"Bars of a request's time as a multiple of the base's, by images in a request, a panel for each model. {told}."
    )
    return figure, data


@styled
def served_memory(
    base: int, expert: int, file: int, decoded: int, tasks: Sequence[int], *, kept: int = 8
) -> tuple[Figure, dict]:
    """Memory (MB) against the number of tasks: whole experts, decoded ones, files, and files with ``kept`` decoded.

    ``base``, ``expert``, ``file`` and ``decoded`` are bytes: of the base's weights, a whole expert, its file, and the
    file decoded.
    """
    lines = {
        "every expert whole": [n * expert for n in tasks],
        "base and every expert decoded": [base + n * decoded for n in tasks],
        f"base and files, {kept} experts decoded": [base + n * file + min(n, kept) * decoded for n in tasks],
        "base and files": [base + n * file for n in tasks],
    }
    data = {name: [value / 1e6 for value in line] for name, line in lines.items()}
    figure, axis = plt.subplots(figsize=(7.2, 4.0))
    for number, (name, line) in enumerate(data.items()):
        axis.plot(tasks, line, **cue(number), label=name)
    axis.set(xscale="log", yscale="log", xlabel="tasks", ylabel="memory (MB)")
    axis.grid(color="0.9")
    figure.legend(loc="outside upper center", ncols=2)
    told = "; ".join(f"{name}: {line[0]:,.0f} to {line[-1]:,.0f}" for name, line in data.items())
    figure.alt = f"Memory in MB against the number of tasks, {tasks[0]} to {tasks[-1]}, on log axes. {told}."
    return figure, data
