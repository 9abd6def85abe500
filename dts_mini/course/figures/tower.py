"""The image tower as a picture: which part does what, and how large its matrices are."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dts_mini.core.state import State
from dts_mini.course.figures.shared import KINDS
from dts_mini.course.style import PALETTE, styled

BLOCK = "transformer.resblocks.0."
COLOURS = {"attention": PALETTE[0], "MLP": PALETTE[1], "rest": "0.45"}


@styled
def tower(state: State) -> tuple[Figure, dict]:
    """The parts of an image tower (open_clip's names) in the order in which an image passes them, one block enlarged.

    Data: for each kind of tensor its share of all parameters, in %, and the shapes that the picture names.
    """
    size = lambda names: sum(state[name].numel() for name in names)
    total, kinds, left = size(state), {}, set(state)
    for kind, marks in KINDS.items():
        names = {name for name in left if any(mark in name for mark in marks.split("|"))}
        kinds[kind], left = 100 * size(names) / total, left - names
    part = lambda name: tuple(state[name].shape)
    width, patch, blocks = part("conv1.weight")[0], part("conv1.weight")[-1], 0
    while f"transformer.resblocks.{blocks}.attn.in_proj_weight" in state:
        blocks += 1
    tokens, out = part("positional_embedding")[0], part("proj")[1]
    shapes = {
        "patches": (width, 3 * patch * patch),
        "attention, in": part(BLOCK + "attn.in_proj_weight"),
        "attention, out": part(BLOCK + "attn.out_proj.weight"),
        "MLP, in": part(BLOCK + "mlp.c_fc.weight"),
        "MLP, out": part(BLOCK + "mlp.c_proj.weight"),
        "projection": part("proj"),
    }
    by = lambda name: " × ".join(map(str, shapes[name]))
    figure, axis = plt.subplots(figsize=(9, 5.2))
    axis.set(xlim=(0, 10), ylim=(0, 10))
    axis.set_axis_off()
    whole = [
        ("an image", "rest"),
        (
            f"patches: a matrix {by('patches')} turns each {patch} × {patch}\n"
            f"piece into a token, {width} numbers; one more is added",
            "rest",
        ),
        (f"{blocks} blocks, one after the other:\n{tokens} tokens go in, {tokens} come out", "attention"),
        (f"projection: of the added token, by a matrix {by('projection')}", "rest"),
        (f"a unit vector of {out} numbers: f(x)", "rest"),
    ]
    inside = [
        ("tokens", "rest"),
        (f"attention, in: {by('attention, in')}\nwhat each token asks, offers and says", "attention"),
        (f"attention, out: {by('attention, out')}\nwhat it makes of the others' answers", "attention"),
        (f"MLP, in: {by('MLP, in')}\neach token by itself, made wider", "MLP"),
        (f"MLP, out: {by('MLP, out')}\nand narrow again", "MLP"),
        ("tokens, changed a little: each half adds to them", "rest"),
    ]
    _column(axis, 0.1, 4.7, whole)
    _column(axis, 5.4, 4.5, inside)
    axis.text(7.65, 9.75, "one block", ha="center", va="center", fontweight="bold")
    axis.text(2.45, 9.75, "the image tower", ha="center", va="center", fontweight="bold")
    axis.plot([4.85, 5.35], [5.55, 8.6], color="0.6", linewidth=0.8, linestyle="--")
    axis.plot([4.85, 5.35], [4.35, 0.5], color="0.6", linewidth=0.8, linestyle="--")
    share = {half: kinds[f"{half}, in"] + kinds[f"{half}, out"] for half in ("attention", "MLP")}
    rest = kinds["norms and biases"] + kinds["patches, positions, projection"]
    figure.alt = (
        f"A diagram. Left, the image tower from top to bottom: an image, patches that become {tokens} tokens of "
        f"{width} numbers, {blocks} blocks, the projection, a unit vector of {out} numbers. Right, one block enlarged: "
        f"attention with an in-matrix of {by('attention, in')} and an out-matrix of {by('attention, out')}, then an "
        f"MLP with matrices of {by('MLP, in')} and {by('MLP, out')}. Attention holds {share['attention']:.0f} % of the "
        f"parameters, the MLPs {share['MLP']:.0f} %, all else {rest:.0f} %."
    )
    axis.text(
        5,
        -0.35,
        "share of the parameters: "
        + ", ".join(f"{half} {x:.0f} %" for half, x in share.items())
        + f", all else {rest:.0f} %",
        ha="center",
        va="center",
    )
    return figure, {"kinds": kinds, "shapes": shapes, "blocks": blocks, "tokens": tokens}


def _column(axis: Axes, left: float, width: float, boxes: list[tuple[str, str]]) -> None:
    """Boxes below each other, joined by arrows."""
    step = 9.4 / len(boxes)
    height = 0.66 * step
    for number, (text, kind) in enumerate(boxes):
        low = 9.4 - (number + 1) * step + 0.5 * (step - height)
        colour = COLOURS[kind]
        look = {
            "facecolor": "white",
            "edgecolor": colour,
            "linewidth": 1.6,
            "linestyle": "--" if kind == "MLP" else "-",
        }
        axis.add_patch(plt.Rectangle((left, low), width, height, **look))
        axis.text(left + width / 2, low + height / 2, text, ha="center", va="center", fontsize=9.5)
        if number:
            arrow = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", (left + width / 2, low + height), (left + width / 2, low + step), arrowprops=arrow)
