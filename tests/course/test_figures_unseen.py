"""The figures of unseen: data, labels, intervals, and a second cue beside the colour."""

import pytest
import torch
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
    assert axes.lines[0].get_xdata()[0] == pytest.approx(1 / 3) and len(cues(axes, "bar")) == 2 and okabe_ito(axes)
    assert "scenes 0.80" in figure.alt


def test_unseen_accuracies_has_a_panel_for_each_task_a_strip_for_each_kind_and_zero_shot_marked(unseen):
    figure, data = figures.unseen_accuracies(unseen)
    assert data["row"] == [row["name"] for row in unseen["rows"]]
    assert {family: found["value"] for family, found in data["aerial"].items()} == {
        "zero-shot": pytest.approx([40]),
        "base merge": pytest.approx([50]),
        "one seen expert": pytest.approx([70]),
        "DTS unseen": pytest.approx([60]),
        "oracle": pytest.approx([80]),
    }
    first, last = figure.axes
    assert first.get_title() == "aerial" and first.get_position().y0 > last.get_position().y0
    assert len(first.get_yticklabels()) == len(first.containers) == 5 and "%" in last.get_xlabel()
    assert len({bars.lines[0].get_marker() for bars in first.containers}) == 5 and okabe_ito(first)


def test_fusion_plane_measures_along_and_aside():
    base, goal = {"w": torch.zeros(3)}, {"w": torch.tensor([2.0, 0, 0])}
    seen = {"signs": {"w": torch.tensor([1.0, 2.0, 0])}, "digits": {"w": torch.tensor([-1.0, 0, 0])}}
    figure, data = figures.fusion_plane(base, seen, goal, {"w": torch.tensor([1.0, 0, 1.0])})
    assert data["seen"]["signs"] == pytest.approx([0.5, 1]) and data["seen"]["digits"] == pytest.approx([-0.5, 0])
    assert data["fused"] == pytest.approx([0.5, 0.5]) and data["goal"] == [1.0, 0.0]
    (axes,) = figure.axes
    assert legend(axes) == ["expert of signs", "expert of digits"] and "distance = 1" in axes.get_xlabel()
    assert {text.get_text() for text in axes.texts} == {"base", "fused model", "the unseen expert"} and okabe_ito(axes)
    assert "signs leans furthest" in figure.alt


def test_descriptor_map_frames_the_unseen_rows():
    cosines = torch.tensor([[1.0, -0.2, 0.5], [-0.2, 1.0, 0.1], [0.5, 0.1, 1.0]])
    figure, data = figures.descriptor_map(cosines, ["signs", "aerial", "digits"], ["aerial"])
    assert data["cosines"] == cosines.tolist() and data["unseen"] == ["aerial"]
    axes = figure.axes[0]
    (frame,) = axes.patches
    assert frame.get_xy() == (-0.5, 0.5) and frame.get_width() == 3 and legend(figure) == ["unseen task"]
    assert [text.get_text() for text in axes.texts][:3] == ["1.00", "-0.20", "0.50"]
    assert "cosine" in figure.axes[1].get_ylabel()


def test_sharpness_curves_are_in_points_with_intervals():
    curve = {"value": [0.0, 0.09, 0.07], "low": [0.0, 0.07, 0.05], "high": [0.0, 0.11, 0.09]}
    figure, data = figures.sharpness_curves({"aerial": curve, "house numbers": curve}, (0, 1, 4))
    assert data["aerial"]["value"] == pytest.approx([0, 9, 7]) and data["stops"] == [0, 1, 4]
    (axes,) = figure.axes
    assert sorted(legend(axes)) == ["aerial", "house numbers", "the base (equal weights)"]
    assert "points" in axes.get_ylabel() and "95 %" in axes.get_ylabel() and okabe_ito(axes)
    assert len({bars.lines[0].get_marker() for bars in axes.containers}) == 2


def test_nearness_gains_has_a_strip_for_each_task_full_dots_for_twins_and_the_mean_without():
    tasks = [f"task {i}" for i in range(8)]
    gains = lambda i: {"fused on base merge": 0.01 * i, "base merge on zero-shot": -0.02 * i}
    points = [{"task": t, "nearness": 0.1 * i, **gains(i)} for i, t in enumerate(tasks)]
    points.append({"task": "task 3", "nearness": 0.99, **gains(9)})
    figure, data = figures.nearness_gains(points)
    assert data["task 3"] == {
        "nearness": [pytest.approx(0.3), 0.99],
        "fused on base merge": pytest.approx([3, 9]),
        "base merge on zero-shot": pytest.approx([-6, -18]),
    }
    for axes, label in zip(figure.axes, ("fused minus base merge", "base merge minus zero-shot"), strict=True):
        assert label in axes.get_xlabel() and "points" in axes.get_xlabel() and okabe_ito(axes)
        assert [text.get_text() for text in axes.get_yticklabels()] == tasks[::-1]  # the nearest on top
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert len(dots) == 9 and sum(dot.get_markerfacecolor() != "none" for dot in dots) == 1
    strokes = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linewidth() == 2.5]
    assert sorted(strokes) == pytest.approx(list(range(8)))  # without the twin
    assert "with a twin 9.0" in figure.alt


def test_unseen_gains_shows_the_mean_with_its_interval_and_the_worst_case():
    row = lambda name, gain, worst: {"name": name, "gain on base merge": estimate(gain), "worst": {"value": worst}}
    figure, data = figures.unseen_gains([row("uniform", 0.0, -0.1), row("abstain, chosen", 0.03, -0.005)])
    assert data["row"] == ["uniform", "abstain, chosen"]
    assert data["value"] == pytest.approx([0, 3]) and data["worst"] == pytest.approx([-10, -0.5])
    assert data["low"] == pytest.approx([-2, 1]) and data["high"] == pytest.approx([3, 6])
    (axes,) = figure.axes
    labels = " ".join(legend(figure))
    assert "95 %" in labels and "worst case" in labels and "goal" in labels and axes.get_xlabel() == "points"
    assert okabe_ito(axes)
