"""Thresholding: the groups of a matrix, where to cut them, and how many of them."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cosine_similarity

from dts_mini.core.paper import threshold
from dts_mini.course.figures.shared import intervals, whiskers
from dts_mini.course.style import GROUPS, PALETTE, SIGNS, bar_cue, cue, styled

GROUP_NAMES = ("strong negative", "weak negative", "weak positive", "strong positive")
SHADES = tuple(PALETTE[number] for number in GROUPS)  # of the codes 0 to 3: strong is dark


@styled
def numbers_and_codes(elements: Tensor, size: tuple[int, int] = (6, 9)) -> tuple[Figure, dict]:
    """The top left corner of a factor's elements (k x n), as numbers and as their codes of two bits."""
    numbers, codes = (x[: size[0], : size[1]] for x in (elements.float(), threshold(elements)))
    limit = numbers.abs().max().item()
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.4, 5.6), sharex=True)
    above.imshow(numbers.numpy(), cmap=SIGNS, vmin=-2 * limit, vmax=2 * limit, aspect="auto")  # pale: read on top
    below.imshow(codes.numpy(), cmap=ListedColormap(SHADES), vmin=-0.5, vmax=3.5, aspect="auto")
    for row, column in torch.cartesian_prod(*map(torch.arange, numbers.shape)).tolist():
        number, code = numbers[row, column].item(), codes[row, column].item()
        above.text(column, row, f"{number:.3f}".replace("-", "\u2212"), ha="center", va="center", fontsize=8.5)
        below.text(column, row, f"{code:02b}", ha="center", va="center", color="white" if code == 3 else "black")
    above.set_title("32 bits for each element")
    below.set_title("2 bits for each element")
    below.set_xlabel("element of the vector (number)")
    below.set_xticks(range(numbers.shape[1]))
    for axes in (above, below):
        axes.set_ylabel("component (number)")
    patches = [plt.Rectangle((0, 0), 1, 1, facecolor=shade, edgecolor="0.5") for shade in SHADES]
    labels = [f"{code:02b} {name}" for code, name in enumerate(GROUP_NAMES)]
    figure.legend(patches, labels, loc="outside upper center", ncols=2, fontsize="small")
    figure.alt = (
        f"Two tables of the same elements of U, a row for each component. Above, numbers such as "
        f"{numbers[0, 0].item():.3f}, tinted by sign and size. Below, two bits for each: 00 strong negative, 01 weak "
        "negative, 10 weak positive, 11 strong positive."
    )
    return figure, {"numbers": numbers.tolist(), "codes": codes.tolist(), "limit": [limit]}


@styled
def group_histogram(
    elements: Tensor, codes: Tensor, scales: Sequence[float] = (), bins: int = 81
) -> tuple[Figure, dict]:
    """Elements of U by size, stacked by their group of four; with ``scales`` the one value that each group becomes."""
    elements, codes, scales = elements.flatten(), codes.flatten(), [float(s) for s in scales]
    reach = elements.abs().quantile(0.999).item()
    edges = torch.linspace(-reach, reach, bins + 1)
    counts = {
        name: torch.histogram(elements[codes == g].cpu().float(), edges).hist.int().tolist()
        for g, name in enumerate(GROUP_NAMES)
    }
    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    floor, middles = torch.zeros(bins), (edges[1:] + edges[:-1]) / 2
    for g, (name, count) in enumerate(counts.items()):
        bars = bar_cue(GROUPS[g])
        axes.bar(middles, count, 2 * reach / bins, floor, **bars, linewidth=0, label=name)
        floor += torch.tensor(count)
    for g, value in enumerate(scales):
        label = "the group's value" if g == 0 else None
        axes.axvline(value, color=PALETTE[6], linestyle="--", linewidth=1.4, label=label)
    axes.set_xlabel("element of U (unit-length columns)")
    axes.set_ylabel("elements (count)")
    axes.legend(loc="upper right")
    sizes = ", ".join(f"{name} {int((codes == g).sum()):,}" for g, name in enumerate(GROUP_NAMES))
    figure.alt = (
        f"Histogram of the elements of U, coloured and hatched by group, from left to right: {sizes} elements. The "
        "weak groups are narrow and tall, the strong ones wide and flat."
        + (" A dashed line marks the one value that each group becomes." if scales else "")
    )
    return figure, {"edges": edges.tolist(), "counts": counts, "scales": scales}


@styled
def kept_parts(matrix: Tensor, rebuilt: Mapping[str, Tensor], exact: Tensor) -> tuple[Figure, dict]:
    """Cosines with a matrix of what is rebuilt when only a part of each element is kept; ``exact``: with all of it."""
    cosine = lambda other: cosine_similarity(matrix.flatten(), other.flatten(), dim=0).item()
    cosines, level = {part: cosine(other) for part, other in rebuilt.items()}, cosine(exact)
    figure, axes = plt.subplots(figsize=(6.4, 0.8 + 0.5 * len(cosines)))
    for place, found in enumerate(cosines.values()):
        axes.barh(place, found, height=0.6, **bar_cue(place))
        axes.annotate(f" {found:.2f}", (max(found, 0), place), va="center")
    axes.axvline(level, color=PALETTE[6], linestyle="--", label="exact elements, 32 bits")
    axes.set_yticks(range(len(cosines)), list(cosines))
    axes.invert_yaxis()
    axes.set_xlim(min(0, *cosines.values()), 1)
    axes.set_xlabel(r"cosine with $M$ (1: the same direction)")
    axes.legend(loc="lower left", bbox_to_anchor=(0.3, 1))
    parts = ", ".join(f"{part} {found:.2f}" for part, found in cosines.items())
    figure.alt = f"Bars of the cosine with M: {parts}. A dashed line marks exact elements, {level:.2f}."
    return figure, {"cosine": cosines, "level": level}


@styled
def cut_curve(
    matrix: Tensor, factors: tuple[Tensor, Tensor, Tensor], grouped: Callable, entropy: Callable, cuts: Sequence[float]
) -> tuple[Figure, dict]:
    """Errors of a matrix and of its U, and the entropy of U's codes, against where each sign is cut in two groups.

    ``cuts``: shares, in [0, 1], of each sign's elements that are weak. ``factors``: U, s, V^T; ``grouped`` makes
    elements of (elements, codes), ``entropy`` bits of (counts). Data by cut: errors in [0, 1], and bits.
    """
    u, s, vt = factors
    relative = lambda x, y: ((x - y).norm() / x.norm()).item()
    errors, bits = {"matrix: M against its rebuilt form": {}, "factor: U against its groups": {}}, {}
    for cut in cuts:
        codes, other = codes_at(u, cut), codes_at(vt, cut)
        near = grouped(u, codes)
        errors["matrix: M against its rebuilt form"][cut] = relative(matrix, near * s @ grouped(vt, other))
        errors["factor: U against its groups"][cut] = relative(u, near)
        bits[cut] = entropy(codes.flatten().bincount(minlength=5).tolist())
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.4, 6), sharex=True)
    percent = lambda shares: [100 * float(share) for share in shares]
    least = [min(values, key=values.get) for values in errors.values()]
    for number, (name, values) in enumerate(errors.items()):
        above.plot(percent(cuts), percent(values.values()), **cue(number), markersize=4, label=name)
    lowest = percent(values[cut] for values, cut in zip(errors.values(), least, strict=True))
    above.plot(percent(least), lowest, "X", color=PALETTE[6], markersize=8, label="least")
    below.plot(percent(cuts), bits.values(), **cue(2), markersize=4, label="entropy of the codes of U")
    above.set_ylim(0)
    above.set_ylabel("relative error (%)")
    below.set_ylim(1, 2.05)
    below.set_ylabel("entropy (bits per code)")
    below.set_xlabel("weak elements of each sign (%)")
    for axes in (above, below):
        axes.axvline(50, color="0.4", linestyle=":", label="median")
        axes.legend(fontsize="small", loc="lower left", frameon=True, framealpha=1, edgecolor="white")
    most = max(bits, key=bits.get)
    lowest = ", ".join(f"{name.partition(':')[0]} at {cut:.0%} weak" for name, cut in zip(errors, least, strict=True))
    figure.alt = (
        f"Two panels against the share of weak elements. Above, relative errors: they fall, then rise; least for the "
        f"{lowest}. Below, the entropy of the codes: highest, {bits[most]:.2f} bits, at {most:.0%} weak."
    )
    return figure, {"bits": bits, "least": dict(zip(errors, least, strict=True))} | errors


def codes_at(x: Tensor, cut: float) -> Tensor:
    """Codes in the shape of x, where the share ``cut`` of each sign's elements is weak; at 0.5 that is the median."""
    codes, size = torch.full(x.shape, 4), x.abs()
    for side, weak, strong in ((x > 0, 2, 3), (x < 0, 1, 0)):
        if side.any():
            codes[side] = torch.where(size[side] > size[side].quantile(cut), strong, weak)
    return codes


@styled
def groups_traded(series: Mapping[str, Mapping[int, Mapping[str, Tensor]]], expert: Tensor) -> tuple[Figure, dict]:
    """Accuracy and KL divergence of rebuilt experts against the number of groups, with 95 % bootstrap intervals.

    ``series`` {name: {groups: {"right": (n), "kl": (n) in nats}}}; ``expert``: which images (n) the expert gets right.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.4, 6), sharex=True)
    groups = list(next(iter(series.values())))
    data = {"groups": groups, "accuracy (%)": {}, "KL (nats)": {}, "expert": [100 * expert.float().mean().item()]}
    for number, (name, found) in enumerate(series.items()):
        x = [place + 0.16 * (number - (len(series) - 1) / 2) for place in range(len(groups))]
        for axes, key, what, unit in ((above, "accuracy (%)", "right", 100), (below, "KL (nats)", "kl", 1)):
            data[key][name] = intervals([found[g][what] for g in groups], unit)
            whiskers(axes, x, data[key][name], number, name)
    above.axhline(data["expert"][0], color="0.4", linestyle=":", label="expert")
    above.set_ylabel("accuracy (%)\n95 % interval")
    below.set_ylabel("KL from the expert (nats, log scale)\n95 % interval")
    below.set_yscale("log")
    below.set_xlabel("groups")
    below.set_xticks(range(len(groups)), groups)
    above.legend(fontsize="small", loc="lower right")
    below.legend(fontsize="small", loc="upper right")
    told = []
    for name in series:
        each = zip(groups, data["accuracy (%)"][name]["value"], data["KL (nats)"][name]["value"], strict=True)
        told.append(f"{name}: " + ", ".join(f"{g} groups {right:.0f} % and {kl:.2g} nats" for g, right, kl in each))
    figure.alt = (
        "Two panels against the number of groups, with intervals: accuracy, and KL divergence from the expert. "
        f"{'; '.join(told)}. The expert's accuracy is {data['expert'][0]:.0f} %."
    )
    return figure, data
