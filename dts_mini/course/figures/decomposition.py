"""Decomposition of one matrix."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.course.style import PALETTE, cue, styled


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
