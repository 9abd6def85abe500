"""The figures of unseen: data, labels, intervals, and a second cue beside the colour."""

import pytest
from looks import cues, estimate, legend, okabe_ito

from dts_mini.course import figures


@pytest.fixture
def unseen() -> dict:
    names = ("zero-shot", "average", "DTS unseen, average", "expert of signs", "oracle: its own expert")
    cell = lambda number: {task: estimate(0.4 + 0.1 * number) for task in ("aerial", "house numbers")}
    rows = [{"name": name, "accuracy": cell(number)} for number, name in enumerate(names)]
    return {"columns": ["aerial", "house numbers"], "rows": rows}


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
