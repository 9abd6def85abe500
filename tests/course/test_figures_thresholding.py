"""The figures of thresholding: data, labels, intervals, and a second cue beside the colour."""

import pytest
import torch
from looks import cues, legend, okabe_ito

from dts_mini.core.tensor import scale, threshold
from dts_mini.course import figures
from dts_mini.course.figures.thresholding import GROUP_NAMES


def test_group_histogram_counts_each_group_apart_and_draws_its_value():
    x = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
    codes = threshold(x.reshape(1, -1))
    values = scale(x.reshape(1, -1), codes)[0]
    figure, data = figures.group_histogram(x, codes, values, bins=20)
    assert list(data["counts"]) == list(GROUP_NAMES)
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
