"""The figure of routing: shares of each row, a panel a router, units."""

import pytest
import torch
from looks import legend

from dts_mini.course import figures


def test_routing_maps_have_a_panel_a_router_and_rows_that_sum_to_100():
    truth = torch.tensor([0, 0, 0, 0, 1, 1])
    choices = {"heads": torch.tensor([0, 0, 0, 1, 0, 0]), "both": truth}
    figure, data = figures.routing_maps(choices, truth, ["signs", "digits"])
    assert data["heads"] == [[75, 25], [100, 0]] and data["both"] == [[100, 0], [0, 100]]
    first, second, bar = figure.axes
    assert [axes.get_title() for axes in (first, second)] == ["heads", "both"] and not legend(figure)
    assert [text.get_text() for text in first.texts] == ["75", "25", "100"]
    assert "%" in bar.get_ylabel() and first.get_ylabel() == "task of the image"
    assert all(sum(row) == pytest.approx(100) for name in choices for row in data[name])
