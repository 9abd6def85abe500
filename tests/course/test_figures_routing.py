"""The figures of routing: shares of each row, a panel a router, levels of oracle and merges, units."""

import pytest
import torch
from looks import cues, estimate, legend, okabe_ito

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


def test_routed_accuracies_have_a_point_a_batch_size_and_levels_for_oracle_and_merge():
    values = {"heads": 0.8, "heads, batches of 8": 0.9, "both": 0.85, "both, batches of 8": 0.92}
    values |= {"oracle: task known": 0.94, "best merge, task known: TIES": 0.7}
    rows = {name: {"end to end": estimate(value)} for name, value in values.items()}
    figure, data = figures.routed_accuracies(rows, ["heads", "both"], [1, 8])
    assert data["heads"]["value"] == pytest.approx([80, 90]) and data["both"]["low"] == pytest.approx([83, 90])
    assert data["oracle: task known"] == pytest.approx(94)
    (axes,) = figure.axes
    assert "%" in axes.get_ylabel() and "routed together" in axes.get_xlabel()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "8"]
    assert set(legend(figure)) == {"heads", "both", "oracle: task known", "best merge, task known: TIES"}
    levels = {
        line.get_linestyle() for line in axes.lines if len(set(line.get_ydata())) == 1 and line.get_marker() == "None"
    }
    assert len(levels) == 2, "told apart without colour"
    assert len(cues(axes, "line")) >= 4 and okabe_ito(axes)
