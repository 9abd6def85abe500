"""What the tests of figures look at: colours, second cues, legends."""

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dts_mini.course.style import PALETTE


def cues(axes, kind: str) -> set:
    """The second cues of an axes' series: markers and dashes of lines, hatches of bars."""
    if kind == "bar":
        return {patch.get_hatch() for patch in axes.patches}
    return {(line.get_marker(), line.get_linestyle()) for line in axes.lines}


def okabe_ito(axes) -> bool:
    """Whether every line and bar of an axes has one of the palette's colours, or a grey."""
    points = lambda line: line.get_linestyle() in ("", "None")  # the caps of intervals are such lines too
    colours = [line.get_markeredgecolor() if points(line) else line.get_color() for line in axes.lines]
    colours += [patch.get_facecolor() for patch in axes.patches]
    rgb = [to_rgb(colour) for colour in colours]
    return all(c in {to_rgb(p) for p in PALETTE} or c[0] == c[1] == c[2] for c in rgb)


def legend(drawn) -> list[str]:
    """The labels of every legend of a figure, or of one axes."""
    axes = drawn.axes if isinstance(drawn, Figure) else [drawn]
    boxes = [*getattr(drawn, "legends", ()), *(one.get_legend() for one in axes if one.get_legend())]
    return [text.get_text() for box in boxes for text in box.get_texts()]


def estimate(value: float) -> dict:
    return {"value": value, "low": value - 0.02, "high": value + 0.03}
