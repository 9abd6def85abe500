"""The figures of decomposition: data, labels, intervals, and a second cue beside the colour."""

import pytest
import torch
from looks import cues, legend, okabe_ito

from dts_mini.course import figures


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


def test_matrices_share_one_colour_scale():
    a, b = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))
    figure, data = figures.matrices({"M": a, "M_hat": b}, size=5)
    assert data["M"] == a[:5, :5].tolist() and data["M_hat"] == b[:5, :5].tolist()
    first, second, bar = figure.axes
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-data["limit"][0], data["limit"][0])
    assert [axes.get_title() for axes in (first, second)] == ["M", "M_hat"] and bar.get_ylabel()
