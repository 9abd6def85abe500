"""The figure of bytes and quality: data, labels, intervals, and a second cue beside the colour."""

import pytest
from looks import cues, estimate, legend, okabe_ito

from dts_mini.course import figures


def row(name: str, share: float, kl: float, storage: float) -> dict:
    return {"name": name, "share of experts": estimate(share), "kl from experts": kl, "storage": storage}


@pytest.fixture
def table() -> dict:
    rows = [row("DTS-T, 0.1", 0.9, 0.2, 0.01), row("DTS-T, 0.3", 0.95, 0.1, 0.03), row("experts", 1.0, 0.0, 1.0)]
    more = [row("DTS-D, TIES, 0.1", 0.92, 0.1, 0.01), row("DTS-D, TIES, 0.3", 0.96, 0.05, 0.03)]
    return {"rows": [*rows, *more, row("DTS-D, TSV-M, 0.1", 0.93, 0.1, 0.01)]}  # the last is no curve, but a point


def test_each_method_is_a_curve_and_only_dts_is_drawn(table):
    _, data = figures.size_curves(table)
    assert list(data) == ["DTS-T", "DTS-D, TIES"]
    assert data["DTS-T"]["storage"] == pytest.approx([1, 3])
    assert data["DTS-T"]["value"] == pytest.approx([90, 95])
    assert data["DTS-T"]["low"] == pytest.approx([88, 93]) and data["DTS-T"]["high"] == pytest.approx([93, 98])
    assert data["DTS-T"]["kl"] == [0.2, 0.1]


def test_bytes_have_a_log_axis_and_both_panels_say_what_they_show(table):
    figure, _ = figures.size_curves(table)
    left, right = figure.axes
    assert left.get_xscale() == right.get_xscale() == right.get_yscale() == "log"
    assert left.get_yscale() == "linear"
    assert all("% of the float32 model" in axis.get_xlabel() for axis in (left, right))
    assert "95 % interval" in left.get_ylabel() and "(nats)" in right.get_ylabel()
    assert [label.get_text() for label in left.get_xticklabels()] == ["1", "3"]


def test_the_curves_differ_in_colour_marker_and_dash(table):
    figure, _ = figures.size_curves(table)
    assert sorted(legend(figure)) == ["DTS-D, TIES", "DTS-T", "experts"]
    assert len(cues(figure.axes[1], "line")) == 2
    assert okabe_ito(figure.axes[1])


def measured(name: str, size: str, storage: float, share: float, kl: float) -> dict:
    spread = {"value": share, "low": share - 0.01, "high": share + 0.01}
    return {"group": "curve", "name": name, "size": size, "storage": storage, "share of experts": spread} | {
        "kl from experts": {"value": kl, "each": [0.8 * kl, 1.2 * kl]},
        "images": {"low": share - 0.02, "high": share + 0.005},
    }


@pytest.fixture
def rows() -> list[dict]:
    return [
        measured("A", "1%", 0.01, 0.98, 0.02),
        measured("A", "0.5%", 0.005, 0.95, 0.08),
        measured("A", "keep 0.1", 0.011, 0.97, 0.03),
        measured("B", "natural", 0.06, 0.99, 0.01),
        {"group": "curve", "name": "A", "size": "0.25%", "impossible": "too small"},
    ]


def test_a_curve_goes_by_bytes_without_keep_ratios_and_without_what_is_impossible(rows):
    _, data = figures.every_method(rows, ["A"], grey=["B"])
    assert data["A"]["storage"] == pytest.approx([0.5, 1]) and data["A"]["kl"] == [0.08, 0.02]
    assert data["B"]["share"] == pytest.approx([99])


def test_the_panels_of_all_methods_say_what_they_show(rows):
    figure, _ = figures.every_method(rows, ["A"], grey=["B"])
    left, right = figure.axes
    assert left.get_xscale() == right.get_xscale() == right.get_yscale() == "log"
    assert "% of the float32 model" in left.get_xlabel() and "(nats)" in right.get_ylabel()
    assert [text.get_text() for text in right.texts] == ["B"]


def test_the_band_is_the_interval_over_test_images(rows):
    rows[0]["images"] = {"low": 0.9, "high": 0.99}
    figure, _ = figures.every_method(rows, ["A"])
    (band,) = figure.axes[0].collections
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(90)


def test_the_band_of_the_divergence_reaches_over_the_seeds(rows):
    figure, _ = figures.every_method(rows, ["A"])
    (band,) = figure.axes[1].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(0.8 * 0.02), pytest.approx(1.2 * 0.08))


def test_a_bar_of_the_ablation_carries_a_dot_a_seed(rows):
    figure, _ = figures.ablation_bars([{**rows[0], "name": "DTS"}], "DTS")
    dots = figure.axes[0].lines[0]
    assert dots.get_xdata() == pytest.approx([0.016, 0.024]) and list(dots.get_ydata()) == [0, 0]


def test_bars_of_the_ablation_stand_in_order_and_are_of_two_hatches(rows):
    figure, data = figures.ablation_bars([{**rows[0], "name": "DTS"}, {**rows[1], "name": "DRC"}], "DTS")
    assert list(data) == ["DTS", "DRC"]
    assert len({bar.get_hatch() for bar in figure.axes[0].patches}) == 2


def test_layers_and_limits_are_drawn_as_given():
    figure, data = figures.layer_ranks({"one": {"a.weight": 3, "b": 5}, "two": {"a.weight": 4, "b": 2}})
    assert data == {"one": [3, 5], "two": [4, 2]}
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["a", "b"]
    _, data = figures.rate_distortion({"m": ([1, 2], [0.5, 0.3])}, ([1, 2], [0.4, 0.2]))
    assert data == {"m": [[1, 2], [0.5, 0.3]]}


def test_tightness_sets_the_error_against_the_sum_of_the_bounds():
    _, data = figures.bound_tightness({"m": {"a": (0.3, 0.4, 0.5), "b": (0.1, 0.2, 0.25)}})
    assert data["m"][0] == pytest.approx([0.7, 0.3]) and data["m"][1] == [0.5, 0.25]
