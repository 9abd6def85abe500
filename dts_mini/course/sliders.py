"""Sliders: small grids of values computed once from the core, moved in the static book and in Jupyter alike.

A grid is plain data (for JSON): a ``slider`` with the values it stops at, and ``panels`` of series, one value for each
stop. The book draws it with ``assets/sliders.js``; ``widget(name)`` draws the same grid with matplotlib.
"""

import functools
import html
import io
import json
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dts_mini.core.codes import GROUPS
from dts_mini.core.compress import compress
from dts_mini.core.delta import TaskDelta, storage
from dts_mini.core.errors import DTSError
from dts_mini.core.file import read_bytes
from dts_mini.core.svd import decompose
from dts_mini.measures.tables import by_variant
from dts_mini.suites.suite import Suite

TASK, TENSOR = "house numbers", "transformer.resblocks.2.mlp.c_fc.weight"  # the matrix of notebook 02
RANKS = (1, 2, 3, 5, 8, 12, 19, 27, 38, 57, 76, 96, 120, 144, 168, 192)
CORNER = 28
NAMES = ("rank", "groups", "keep ratio")


def grids(suite: Suite, results: Mapping) -> dict[str, dict]:
    """All grids by name: two of one task-vector matrix of the suite, one of the measured headline table."""
    matrix = suite.expert(TASK)[TENSOR] - suite.pretrained()[TENSOR]
    found = (rank_grid(matrix), groups_grid(matrix, rank=19), keep_ratio_grid(results["headline"]))
    return dict(zip(NAMES, found, strict=True))


def rank_grid(matrix: Tensor, ranks: Sequence[int] = RANKS) -> dict:
    """Rank r -> relative error of the truncation and of DTS, energy kept, and bits, of a matrix (m x n)."""
    ranks = [rank for rank in ranks if rank <= min(matrix.shape)]
    cut = [decompose(matrix, rank).error for rank in ranks]
    packed = [_packed(matrix, rank) for rank in ranks]
    error = {"truncation alone": cut, "truncation, four groups": [_error(matrix, delta) for delta in packed]}
    energy = {"energy kept": [100 * (1 - e**2) for e in cut]}
    bits = {"DTS": [100 * storage(delta).share("information") for delta in packed]}
    top = matrix[:CORNER, :CORNER].abs().max().item()
    return {
        "title": "How many components does one matrix need?",
        "slider": _stops("rank r", ranks, start=19, places=[math.log(r) / math.log(ranks[-1]) for r in ranks]),
        "panels": [
            _panel("relative error of the matrix", error, digits=3, high=1),
            _panel("energy kept (%)", energy, digits=1, unit=" %", high=100),
            _panel("information (% of 32 bits per number)", bits, digits=2, unit=" %"),
        ],
        "pictures": {
            "label": f"the top left corner, {CORNER} × {CORNER} numbers: blue above zero, orange below",
            "fixed": {"label": "the matrix", "values": _picture(matrix, top)},
            "moving": {"label": "rebuilt", "values": [_picture(delta.remainder("matrix"), top) for delta in packed]},
        },
        "note": f"One matrix of {matrix.shape[0]} × {matrix.shape[1]} numbers: what fine-tuning on {TASK} changed in "
        f"{TENSOR}. The slider's scale is logarithmic.",
    }


def groups_grid(matrix: Tensor, rank: int) -> dict:
    """2, 4 and 8 groups -> a matrix's relative error and bits: at one rank, and at the bits of four groups."""
    same = [_packed(matrix, rank, groups) for groups in GROUPS]
    bits = lambda groups, rank: rank * ((groups.bit_length() - 1) * sum(matrix.shape) + 32) + 2 * groups * 32
    fits = lambda groups, rank: (bits(4, rank) - bits(groups, 0)) // (bits(groups, 1) - bits(groups, 0))
    ranks = [
        max(1, fits(groups, rank)) for groups in GROUPS
    ]  # codes, singular values and scales, as information counts
    level = [_packed(matrix, r, groups) for r, groups in zip(ranks, GROUPS, strict=True)]
    names = (f"rank {rank} for all", f"no more bits than four groups (ranks {', '.join(map(str, ranks))})")
    series = lambda measure: {n: [measure(d) for d in deltas] for n, deltas in zip(names, (same, level), strict=True)}
    spent = series(lambda delta: 8 * storage(delta).information / matrix.numel())
    return {
        "title": "Why four groups?",
        "slider": _stops("groups", GROUPS, start=4),
        "panels": [
            _panel("relative error of the matrix", series(lambda delta: _error(matrix, delta)), digits=3),
            _panel("bits per number of the matrix", spent, digits=3),
        ],
        "note": "The matrix of the first slider. More groups lie nearer to each number, and each code costs one bit "
        "more: "
        "at one rank they win; at the same bits they pay for it with components.",
    }


def keep_ratio_grid(headline: Mapping) -> dict:
    """Keep ratio -> mean accuracy, with its 95 % interval, and storage, from the measured headline table."""
    rows = {row["name"]: row for row in headline["rows"]}
    found = by_variant(headline)
    methods = list(found)
    ratios = [float(row["name"].rsplit(", ", 1)[1]) for row in found[methods[0]]]
    percent = lambda key: {m: [100 * row["mean"][key] for row in rows] for m, rows in found.items()}
    experts, panel = 100 * rows["experts"]["mean"]["value"], functools.partial(_panel, digits=1, unit=" %")
    accuracy = panel(
        "mean accuracy (%), bars: 95 % intervals", percent("value"), bars=(percent("low"), percent("high"))
    )
    size = {m: [100 * row["storage"] for row in rows] for m, rows in found.items()}
    return {
        "title": "What does a task's file buy?",
        "slider": _stops("keep ratio ρ", ratios, start=0.1),
        "panels": [
            accuracy | {"level": {"label": "experts", "value": round(experts, 4)}},
            _panel("a task's file (% of an expert)", size, digits=2, unit=" %"),
        ],
        "note": f"Mean over {len(headline['columns'])} tasks of the {headline['suite']} suite, "
        f"{headline['split']} images; "
        "the file's bytes on disk as a share of a float32 expert.",
    }


def figure_html(name: str, grid: Mapping) -> str:
    """The static slider: a range input and empty charts for ``sliders.js``, and all values in a table."""
    title, at = html.escape(grid["title"]), grid["slider"]["start"]
    series = [(panel, label, values) for panel in grid["panels"] for label, values in panel["series"].items()]
    heads = "".join(
        f"<th scope=col>{html.escape(panel['label'])}: {html.escape(label)}</th>" for panel, label, _ in series
    )
    rows = "".join(
        f"<tr><th scope=row>{html.escape(stop)}</th>"
        + "".join(f"<td>{values[place]:.{panel['digits']}f}</td>" for panel, _, values in series)
        + "</tr>"
        for place, stop in enumerate(grid["slider"]["labels"])
    )
    label = html.escape(grid["slider"]["label"])
    ident = "slider-" + name.replace(" ", "-")
    return (
        f'<figure class="slider" id="{ident}" data-grid="{html.escape(name)}"><figcaption>{title}</figcaption>'
        f'<div class="control"><label for="{ident}-input">{label} = <output for="{ident}-input"></output></label>'
        f'<input id="{ident}-input" type="range" min="0" max="{len(grid["slider"]["labels"]) - 1}" value="{at}"></div>'
        f'<div class="charts"></div><p class="note">{html.escape(grid["note"])}</p>'
        f'<details><summary>All values</summary><div class="scroll" tabindex="0">'
        f"<table><caption>{title}</caption><thead><tr><th scope=col>{label}"
        f"</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details></figure>"
    )


def draw(grid: Mapping, stop: int):
    """The grid as a matplotlib figure with the slider at its ``stop``-th value; returns (figure, values there)."""
    import matplotlib.pyplot as plt

    from dts_mini.course.style import cue, style

    at, labels = grid["slider"]["at"], grid["slider"]["labels"]
    with style():
        figure, axes = plt.subplots(1, len(grid["panels"]), figsize=(3.7 * len(grid["panels"]), 2.9), squeeze=False)
        values = {}
        for axis, panel in zip(axes[0], grid["panels"], strict=True):
            for number, (label, series) in enumerate(panel["series"].items()):
                axis.plot(at, series, markersize=4, label=label, **cue(number))
                if "bars" in panel:
                    axis.vlines(
                        at, panel["bars"]["low"][label], panel["bars"]["high"][label], color=cue(number)["color"]
                    )
                axis.plot(at[stop], series[stop], markersize=9, **{**cue(number), "linestyle": "none"})
                values[f"{panel['label']}: {label}"] = series[stop]
            if "level" in panel:
                axis.axhline(panel["level"]["value"], color="0.4", linestyle=":", label=panel["level"]["label"])
            axis.axvline(at[stop], color="0.6", linewidth=1, zorder=0)
            shown = range(0, len(at), -(-len(at) // 8))
            axis.set_xticks([at[i] for i in shown], [labels[i] for i in shown])
            axis.set_ylim(panel["low"], panel["high"])
            axis.set_xlabel(grid["slider"]["label"])
            axis.set_ylabel(panel["label"])
            axis.legend(fontsize="small")
    return figure, values


def widget(name: str, grid: Mapping | None = None):
    """The slider for Jupyter (ipywidgets), by default of the mini suite's grid; DTSError for an unknown name."""
    import ipywidgets
    import matplotlib.pyplot as plt

    if name not in NAMES:
        raise DTSError(f"slider {name!r} is unknown: choose one of {', '.join(NAMES)}")
    grid = grid or _mini()[name]
    image, text = ipywidgets.Image(format="png"), ipywidgets.HTML()

    def move(stop: int) -> None:
        figure, values = draw(grid, stop)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
        image.value = buffer.getvalue()
        digits = {
            f"{panel['label']}: {label}": panel["digits"] for panel in grid["panels"] for label in panel["series"]
        }
        text.value = "<br>".join(f"{html.escape(n)}: <b>{value:.{digits[n]}f}</b>" for n, value in values.items())

    stops = [(label, place) for place, label in enumerate(grid["slider"]["labels"])]
    slider = ipywidgets.SelectionSlider(
        options=stops, value=grid["slider"]["start"], description=grid["slider"]["label"]
    )
    slider.observe(lambda change: move(change["new"]), names="value")
    move(slider.value)
    return ipywidgets.VBox([ipywidgets.HTML(f"<b>{html.escape(grid['title'])}</b>"), slider, image, text])


@functools.cache
def _mini() -> dict[str, dict]:
    from dts_mini.suites.mini.suite import DATA, MiniSuite

    return grids(MiniSuite(), json.loads(read_bytes(DATA / "results.json")))


def _packed(matrix: Tensor, rank: int, groups: int = 4) -> TaskDelta:
    state = {"matrix": matrix}
    base = {"matrix": torch.zeros_like(matrix)}
    return compress(base, state, keep_ratio=rank / min(matrix.shape), groups=groups)


def _error(matrix: Tensor, delta: TaskDelta) -> float:
    return ((matrix - delta.remainder("matrix")).norm() / matrix.norm()).item()


def _picture(matrix: Tensor, top: float) -> list[int]:
    """A corner's numbers for a heat map, row by row, from -99 to 99."""
    return (99 * matrix[:CORNER, :CORNER] / top).clamp(-99, 99).round().int().flatten().tolist()


def _stops(label: str, values: Sequence[float], start: float, places: Sequence[float] | None = None) -> dict:
    """What the slider stops at; ``at``: where each value stands on the charts' horizontal axis, in [0, 1]."""
    places = places or [place / max(1, len(values) - 1) for place in range(len(values))]
    where = min(range(len(values)), key=lambda i: abs(values[i] - start))
    at = [round(place, 4) for place in places]
    return {"label": label, "values": list(values), "labels": [f"{v:g}" for v in values], "start": where, "at": at}


def _panel(label: str, series: Mapping[str, list[float]], *, digits: int, unit="", high=None, bars=None) -> dict:
    """One chart: values by series, the ends of its axis, and intervals where there are any."""
    tidy = lambda columns: {name: [round(value, 5) for value in values] for name, values in columns.items()}
    panel = {"label": label, "unit": unit, "digits": digits, "series": tidy(series)}
    if bars:
        panel["bars"] = dict(zip(("low", "high"), map(tidy, bars), strict=True))
        ends = [v for columns in panel["bars"].values() for values in columns.values() for v in values]
        step = 5 if max(ends) - min(ends) > 4 else 1
        return panel | {"low": step * (min(ends) // step), "high": min(100, step * (max(ends) // step + 1))}
    return panel | {"low": 0, "high": high or _above(max(v for values in series.values() for v in values))}


def _above(value: float) -> float:
    """The next round number above a value: 1, 2, 5, 10, ..."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15) if step * power > value)
