"""The course's figures: their data, labels, legends and intervals, and a second cue beside the colour."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb

from dts_mini.core.delta import compress, storage
from dts_mini.core.tensor import scale, threshold
from dts_mini.course import figures
from dts_mini.course.style import PALETTE


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


# --- figures of notebooks 02 and 03 ---


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


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def estimate(value: float) -> dict:
    return {"value": value, "low": value - 0.02, "high": value + 0.03}


@pytest.fixture
def headline() -> dict:
    names = ["zero-shot", "average", "TIES"]
    names += [f"{m}, {k}" for m in ("DTS-T", "DTS-D, average", "DTS-D, TIES") for k in (0.05, 0.1, 0.3)] + ["experts"]
    rows = []
    for number, name in enumerate(names):
        accuracy = {task: estimate(0.3 + 0.04 * number) for task in ("signs", "digits", "scenes")}
        share = float(name.rsplit(", ", 1)[1]) / 10 if name.startswith("DTS") else 0.0
        rows.append({"name": name, "accuracy": accuracy, "mean": estimate(0.3 + 0.04 * number), "storage": share})
    return {"columns": ["signs", "digits", "scenes"], "rows": rows}


@pytest.fixture
def unseen() -> dict:
    names = ("zero-shot", "average", "DTS unseen, average", "expert of signs", "oracle: its own expert")
    cell = lambda number: {task: estimate(0.4 + 0.1 * number) for task in ("aerial", "house numbers")}
    rows = [{"name": name, "accuracy": cell(number)} for number, name in enumerate(names)]
    return {"columns": ["aerial", "house numbers"], "rows": rows}


def test_singular_values_gives_the_energy_of_the_leading_components():
    figure, data = figures.singular_values([3.0, 2.0, 1.0], rank=2)
    assert data["energy"] == pytest.approx([100 * 9 / 14, 100 * 13 / 14, 100])
    assert (data["component"], data["value"], data["rank"]) == ([1, 2, 3], [3, 2, 1], [2])
    left, right = figure.axes
    assert "weight units" in left.get_ylabel() and "%" in right.get_ylabel()
    assert "rank 2" in legend(left) and okabe_ito(left) and okabe_ito(right)
    assert left.lines[1].get_xdata()[0] == 2  # the line that marks the rank


def test_truncation_error_shows_both_errors_in_per_cent():
    figure, data = figures.truncation_error([1, 2, 4], [0.5, 0.25, 0], [0.5, 0.26, 0])
    assert data == {"rank": [1, 2, 4], "measured": [50, 25, 0], "stated": [50, 26, 0]}
    (axes,) = figure.axes
    assert len(legend(axes)) == 2 and "%" in axes.get_ylabel()
    assert len(cues(axes, "line")) == 2 and okabe_ito(axes)


def test_group_histogram_counts_each_group_apart_and_draws_its_value():
    x = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
    codes = threshold(x.reshape(1, -1))
    values = scale(x.reshape(1, -1), codes)[0]
    figure, data = figures.group_histogram(x, codes, values, bins=20)
    assert list(data["counts"]) == list(figures.GROUP_NAMES)
    totals = [sum(counts) for counts in data["counts"].values()]
    assert all(0 <= n - total <= 1 for n, total in zip(codes[0].bincount().tolist(), totals, strict=True))  # far tail
    (axes,) = figure.axes
    assert [line.get_xdata()[0] for line in axes.lines] == data["scales"] == pytest.approx(values.tolist())
    assert len(cues(axes, "bar")) == 4 and okabe_ito(axes) and len(legend(axes)) == 5
    assert axes.get_xlabel() and axes.get_ylabel()


def test_code_image_shows_the_codes_in_shades_of_rising_lightness():
    codes = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=torch.uint8)
    figure, data = figures.code_image(codes, columns=3)
    assert data["codes"] == [[0, 1, 2], [3, 2, 1]]
    axes, bar = figure.axes
    shades = axes.images[0].cmap(range(4))[:, :3] @ [0.299, 0.587, 0.114]
    assert (shades[1:] > shades[:-1] + 0.1).all()  # told apart without colour too
    assert [t.get_text()[:2] for t in bar.get_yticklabels()] == ["00", "01", "10", "11"]
    assert axes.get_xlabel() and axes.get_ylabel()


def test_matrices_share_one_colour_scale():
    a, b = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))
    figure, data = figures.matrices({"M": a, "M_hat": b}, size=5)
    assert data["M"] == a[:5, :5].tolist() and data["M_hat"] == b[:5, :5].tolist()
    first, second, bar = figure.axes
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-data["limit"][0], data["limit"][0])
    assert [axes.get_title() for axes in (first, second)] == ["M", "M_hat"] and bar.get_ylabel()


@pytest.mark.parametrize("settings", [{}, {"keep_ratio": 0.3, "groups": 8}, {"per": "vector"}])
def test_the_bytes_of_a_file_are_all_accounted_for(base, expert, settings):
    expert["norm.weight"][:3] = base["norm.weight"][:3]  # exact zeros of the difference
    delta = compress(base, expert, **settings)
    parts = figures.delta_bytes(delta)
    assert sum(parts.values()) == storage(delta).file
    assert parts["zeros"] > 0 and parts["codes of matrices"] > 0 and parts["codes of other tensors"] > 0
    held = sum(parts.values()) - parts["header and table"]
    assert 0 <= held + 4 - storage(delta).information <= 2 * len(delta.parts) + 4  # the 0-D tensor's four; padding


def test_file_bytes_shows_every_part_in_kib(base, expert):
    delta = compress(base, expert)
    figure, data = figures.file_bytes(delta)
    assert sum(data["kib"]) * 1024 == pytest.approx(storage(delta).file)
    (axes,) = figure.axes
    assert "KiB" in axes.get_xlabel() and len(cues(axes, "bar")) == len(data["part"]) and okabe_ito(axes)
    assert [t.get_text() for t in axes.get_yticklabels()] == data["part"]


def test_mean_accuracies_has_every_row_with_its_interval(headline):
    figure, data = figures.mean_accuracies(headline)
    assert data["row"] == [row["name"] for row in headline["rows"]]
    assert data["value"] == pytest.approx([100 * row["mean"]["value"] for row in headline["rows"]])
    assert all(low < value < high for low, value, high in zip(data["low"], data["value"], data["high"], strict=True))
    assert data["family"][:4] == ["zero-shot", "base merge", "base merge", "DTS-T"] and data["family"][-1] == "experts"
    (axes,) = figure.axes
    assert legend(axes) == list(figures.FAMILIES) and "95 %" in axes.get_xlabel()
    assert len(axes.containers) == 5 and okabe_ito(axes)
    assert len({bars.lines[0].get_marker() for bars in axes.containers}) == 5


def test_accuracy_against_storage_has_a_curve_a_method_and_lines_for_the_rest(headline):
    figure, data = figures.accuracy_against_storage(headline)
    assert list(data) == ["DTS-T", "DTS-D, average", "DTS-D, TIES", "experts", "TIES", "average", "zero-shot"]
    assert data["DTS-T"]["storage"] == pytest.approx([0.5, 1, 3])
    assert all(len(entry["low"]) == 3 for name, entry in data.items() if name.startswith("DTS"))
    (axes,) = figure.axes
    assert sorted(legend(axes)) == sorted(data) and axes.get_xscale() == "log"
    assert "%" in axes.get_xlabel() and "%" in axes.get_ylabel() and okabe_ito(axes)
    assert len({bars.lines[0].get_marker() for bars in axes.containers}) == 3


def test_task_accuracies_has_a_bar_with_an_interval_a_task_and_row(headline):
    names = ("zero-shot", "DTS-T, 0.1", "experts")
    figure, data = figures.task_accuracies(headline, names)
    assert list(data) == ["task", *names] and data["task"] == headline["columns"]
    assert data["experts"]["low"] == pytest.approx([v - 2 for v in data["experts"]["value"]])
    (axes,) = figure.axes
    assert legend(axes) == list(names) and len(axes.patches) == 9
    assert len(cues(axes, "bar")) == 3 and okabe_ito(axes) and "%" in axes.get_ylabel()


def test_weight_bars_shows_each_unseen_task_and_equal_weights():
    weights = {"aerial": [0.5, 0.3, 0.2], "house numbers": [0.1, 0.1, 0.8]}
    figure, data = figures.weight_bars(["signs", "digits", "scenes"], weights)
    assert data == {"seen": ["signs", "digits", "scenes"], "weights": weights}
    (axes,) = figure.axes
    assert sorted(legend(axes)) == ["equal weights", "for aerial", "for house numbers"]
    assert axes.lines[0].get_ydata()[0] == pytest.approx(1 / 3) and len(cues(axes, "bar")) == 2 and okabe_ito(axes)


def test_unseen_accuracies_has_a_panel_a_task_with_zero_shot_marked(unseen):
    figure, data = figures.unseen_accuracies(unseen)
    assert data["row"] == [row["name"] for row in unseen["rows"]]
    assert data["aerial"]["value"] == pytest.approx([40, 50, 60, 70, 80])
    assert len(figure.axes) == 2 and all("%" in axes.get_xlabel() for axes in figure.axes)
    first, last = figure.axes
    assert len(legend(last)) == len(first.containers) == 5
    assert len({bars.lines[0].get_marker() for bars in first.containers}) == 5 and okabe_ito(first)
