"""One colour and one marker for each family of rows, in all figures of merging and of unseen tasks; strips of points.

A strip is a horizontal line of its own for a task or a family, on which its values lie: no legend, no second axis.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from dts_mini.course.figures.shared import reach
from dts_mini.course.style import PALETTE

KEYS = ("value", "low", "high")
# Blue is all that is DTS, vermilion all that is DRC, as in the figures of size and accuracy.
_LOOKS = {
    "zero-shot": (6, "X"),
    "cheap": (2, "P"),
    "base merge": (1, "s"),
    "DTS-T": (0, "o"),
    "DTS-D": (0, "^"),
    "DRC": (3, "D"),
    "experts": (4, "v"),
    "one seen expert": (5, "P"),
}
_LOOKS |= {"DTS unseen": _LOOKS["DTS-D"], "oracle": _LOOKS["experts"]}


def look(family: str) -> dict:
    """Colour and marker of a family of rows (``dts_mini.measures.tables.family``).

    >>> look("oracle") == look("experts")
    True
    """
    colour, marker = _LOOKS[family]
    return {"color": PALETTE[colour], "marker": marker, "linestyle": "none"}


def in_percent(entries: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Estimates (shares in [0, 1] with their intervals) as lists in %, or of differences in points."""
    return {key: [100 * entry[key] for entry in entries] for key in KEYS}


def range_of(values: Sequence[float]) -> str:
    """Values in words, for an alt text.

    >>> range_of([75.61, 89.12]), range_of([94.6])
    ('75.6 to 89.1', '94.6')
    """
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def spread(axes: Axes, y: float, entries: Mapping[str, Sequence[float]], family: str, size: float = 6, **looks) -> None:
    """The estimates of one family on the strip at height ``y``, in its look; several lie a little above each other."""
    count = len(entries["value"])
    heights = [y + 0.32 * (number / max(1, count - 1) - 0.5) * (count > 1) for number in range(count)]
    looks = look(family) | {"markersize": size, "elinewidth": 0.8, "alpha": 0.9} | looks
    axes.errorbar(entries["value"], heights, xerr=reach(entries), **looks)


def name_strips(axes: Axes, names: Sequence[str]) -> None:
    """Names the strips, the first on top, each on a thin line."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for y in range(len(names)):
        axes.axhline(y, color="0.85", linewidth=0.8, zorder=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
