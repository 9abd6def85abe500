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
