"""How the course's figures look: one palette with a second cue, one style, and ``show``, which adds the alt text."""

import io
from collections.abc import Callable
from functools import wraps

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import Image, display
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; yellow is left out, it is too pale for lines.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
# One colour for one sign in every figure: orange and red below zero, blue above, stronger where the size is larger.
SIGNS = LinearSegmentedColormap.from_list("signs", (PALETTE[3], PALETTE[1], "white", PALETTE[5], PALETTE[0]))
GROUPS = (3, 1, 5, 0)  # which cue the groups of the codes 0 to 3 have: strong negative to strong positive

_STYLE = {
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "font.size": 10,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.dpi": 110,
}


def cue(index: int) -> dict:
    """Colour, marker and dash of a line's series: told apart without the colour too."""
    return {"color": PALETTE[index % 7], "marker": MARKERS[index % 7], "linestyle": DASHES[index % 7]}


def bar_cue(index: int) -> dict:
    """Colour and hatch of a bar's series."""
    return {"facecolor": PALETTE[index % 7], "hatch": HATCHES[index % 7], "edgecolor": "white"}


def style():
    """A context in which figures are drawn: ``with style(): ...``."""
    return mpl.rc_context(_STYLE)


def styled(draw: Callable) -> Callable:
    """A figure function that draws, whole, inside ``style()``."""

    @wraps(draw)
    def inside(*args, **kwargs):
        with style():
            return draw(*args, **kwargs)

    return inside


def show(figure: Figure, alt: str = "") -> None:
    """Displays a figure as PNG with alt text, what it shows in words, in the output's metadata; closes the figure.

    The alt text is the figure's own: figure functions set ``figure.alt``. ``figure`` may also be what they return,
    (figure, data). ValueError for a figure without any.
    """
    figure = figure[0] if isinstance(figure, tuple) else figure
    alt = alt or getattr(figure, "alt", "")
    if not alt.strip():
        raise ValueError("a figure needs alt text: set figure.alt to a sentence or two that say what it shows")
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png")
    plt.close(figure)
    display(Image(buffer.getvalue(), format="png"), metadata={"image/png": {"alt": alt}})
