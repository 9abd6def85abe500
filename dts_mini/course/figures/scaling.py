"""Scaling, and the bytes of a file."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dts_mini.core.delta import Flat, LowRank, TaskDelta
from dts_mini.course.style import bar_cue, styled


def delta_bytes(delta: TaskDelta) -> dict[str, int]:
    """Where the bytes of a delta's file go: codes by kind of tensor, singular values, scales, zeros, and the rest."""
    found = dict.fromkeys(("codes of matrices", "codes of other tensors", "singular values", "scales", "zeros"), 0)
    for part in delta.parts.values():
        if isinstance(part, LowRank):
            factors, kind = (part.left, part.right), "codes of matrices"
            found["singular values"] += part.s.nbytes
        elif isinstance(part, Flat):
            factors, kind = (part.coded,), "codes of other tensors"
        else:
            continue
        for coded in factors:
            found[kind] += coded.codes.nbytes
            found["scales"] += coded.scales.nbytes
            found["zeros"] += -(-coded.elements // 8) if coded.zeros_as_mask else coded.zeros.nbytes
    return found | {"header and table": len(delta.to_bytes()) - sum(found.values())}


@styled
def file_bytes(delta: TaskDelta) -> tuple[Figure, dict]:
    """The file of a delta taken apart, in KiB."""
    data = {name: count / 1024 for name, count in delta_bytes(delta).items()}
    figure, axes = plt.subplots(figsize=(6.4, 2.7))
    for place, kib in enumerate(data.values()):
        axes.barh(place, kib, **bar_cue(place))
        axes.annotate(f" {kib:.1f}", (kib, place), va="center")
    axes.set_yticks(range(len(data)), list(data))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("size in the file (KiB)")
    return figure, {"part": list(data), "kib": list(data.values())}
