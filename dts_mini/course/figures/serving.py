"""Serving many experts: what swapping does to the weights, and what each way of serving costs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dts_mini.course.style import cue, styled


@styled
def drift(errors: Mapping[str, Sequence[float]]) -> tuple[Figure, dict]:
    """How far the base has drifted after each swap, by way of swapping, as a share of a remainder's length (log axis).

    A way that never drifts holds zeros only, which a log axis cannot show: its line runs along the bottom, and its
    label says so.
    """
    figure, axis = plt.subplots(figsize=(7.4, 3.8))
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
    return figure, {name: list(line) for name, line in errors.items()}


@styled
def serving_cost(shape: tuple[int, int], ranks: Sequence[int], tokens: Sequence[int]) -> tuple[Figure, dict]:
    """Multiplications a token for one m x n matrix against the tokens served between two swaps, plain W x being 1.

    Rebuilding costs m n r once for each swap; the side path costs r (m + n) for each token.
    """
    m, n = shape
    figure, axis = plt.subplots(figsize=(7.4, 3.8))
    data = {"tokens": list(tokens), "even": m * n / (m + n), "rebuild": {}, "side": {}}
    for number, rank in enumerate(ranks):
        data["rebuild"][rank] = [1 + rank / t for t in tokens]
        data["side"][rank] = [1 + rank * (m + n) / (m * n)] * len(tokens)
        axis.plot(tokens, data["rebuild"][rank], **cue(2 * number), label=f"rebuild, rank {rank}")
        axis.plot(tokens, data["side"][rank], **cue(2 * number + 1), label=f"side path, rank {rank}")
    axis.axvline(data["even"], color="0.35", linewidth=1, label="where both cost the same")
    axis.set(xscale="log", yscale="log", xlabel="tokens served between two swaps")
    axis.set_ylabel("multiplications a token\n(plain $W x$ is 1)")
    axis.grid(color="0.9")
    figure.legend(loc="outside upper center", ncols=3)
    return figure, data
