"""The figures of the suite: data, labels, intervals, and a second cue beside the colour."""

import ast
import math
from pathlib import Path

import pytest
import torch
from looks import legend

from dts_mini.course import figures
from dts_mini.course.figures.shared import intervals, reach
from dts_mini.course.style import MARKERS, PALETTE
from dts_mini.suites.mini.task import Task, drawn


def right(share: float, n: int = 200) -> torch.Tensor:
    """Outcomes of n images of which this share is right."""
    return torch.arange(n) < round(share * n)


@pytest.fixture
def tasks() -> list[Task]:
    painters = [lambda n, g: torch.rand(n, 3, 32, 32, generator=g)] * 3
    make = lambda name, real: Task(name, f"{name}-data", real, ("x", "y", "z"), ((),) * 3, ("{c}",), drawn(painters))
    return [make("stars", False), make("letters", True)]


def test_the_contact_sheet_says_what_is_real_and_what_it_mirrors(tasks):
    figure, data = figures.contact_sheet(tasks, columns=2)
    assert data["source"] == ["drawn by a program", "real scans, recoloured"]
    assert data["classes"] == [["x", "y"]] * 2
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert any("letters" in label and "real" in label and "letters-data" in label for label in labels)
    assert [axis.get_xlabel() for axis in figure.axes] == ["x", "y"] * 2
    assert "stars, letters. Real scans: letters" in figure.alt


def test_storage_bars_are_in_mib_and_hatched():
    figure, data = figures.storage_bars({"all": 3 * 2**20, "one": 2**20}, 3)
    assert data == {"name": ["all", "one"], "mib": [3, 1]}
    assert "(MiB)" in figure.axes[0].get_xlabel()
    assert len({bar.get_hatch() for bar in figure.axes[0].patches}) == 2
    assert "all 3.0 MiB, one 1.0 MiB" in figure.alt


def test_size_and_accuracy_have_a_row_for_each_model():
    outcomes = {"base": right(0.5), "expert": right(0.9), "rebuilt": right(1.0)}
    figure, data = figures.size_and_accuracy({"base": 0, "expert": 2**20, "rebuilt": 2**10}, outcomes)
    assert data["name"] == ["base", "expert", "rebuilt"] and data["kib"] == [0, 1024, 1]
    assert data["value"] == pytest.approx([50, 90, 100]) and data["low"][0] < 50 < data["high"][0]
    bars, points = figure.axes
    assert "(KiB)" in bars.get_xlabel() and "accuracy (%), 95 %" in points.get_xlabel()
    assert [label.get_text() for label in bars.get_yticklabels()] == data["name"]
    assert len({bar.get_hatch() for bar in bars.patches}) == 3
    assert "expert takes 1,024 KiB and gets 90.0 % right" in figure.alt


def test_the_picture_of_the_tower_names_each_matrix_with_its_shape(tower):
    figure, data = figures.tower(tower[0])
    assert sum(data["kinds"].values()) == pytest.approx(100) and (data["blocks"], data["tokens"]) == (4, 17)
    told = " ".join(text.get_text() for text in figure.axes[0].texts)
    for shape in ("576 × 192", "768 × 192", "192 × 768", "192 × 128", "8 × 8"):
        assert shape in told
        assert shape == "8 × 8" or shape == "192 × 128" or shape in figure.alt
    assert all(word in told for word in ("attention", "MLP", "one block", "projection"))


def test_confusion_shares_are_of_the_image_class_and_the_stand_in_is_marked():
    answers, labels = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1])
    figure, data = figures.confusion(answers, labels, ["x", "y"], [1, 0])
    assert data["share"] == [[50, 50], [0, 100]]
    assert data["marked"] == [1, 0]
    assert legend(figure) == ["the class itself", "its stand-in"]
    assert figure.axes[0].get_xlabel() and figure.axes[0].get_ylabel()
    assert any("(%)" in axis.get_ylabel() for axis in figure.axes)
    assert "itself (75 % in the mean" in figure.alt and "stand-in (25 %)" in figure.alt


def test_accuracies_come_with_intervals_and_their_mean_last():
    rows = {"low": {"a": right(0.4), "b": right(0.6)}, "high": {"a": right(0.9), "b": right(0.7)}}
    figure, data = figures.accuracies(rows, draws=200)
    assert data["columns"] == ["a", "b", "mean"]
    assert data["rows"]["low"]["value"] == pytest.approx([40, 60, 50])
    for entry in data["rows"].values():
        assert all(low < v < high for low, v, high in zip(entry["low"], entry["value"], entry["high"], strict=True))
        assert entry["high"][2] - entry["low"][2] < entry["high"][0] - entry["low"][0]  # a mean is surer
    assert legend(figure) == ["low", "high"]
    assert "in the mean: low (50 %), high (80 %)." in figure.alt
    axis = figure.axes[0]
    assert "accuracy (%)" in axis.get_ylabel() and "95 %" in axis.get_ylabel()
    drawn_with = [(box[0].get_color(), box[0].get_marker()) for box in axis.containers]
    assert drawn_with == [(PALETTE[0], MARKERS[0]), (PALETTE[1], MARKERS[1])]


# --- what every figure keeps to ---


def modules():
    folder = Path(figures.__file__).parent
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


# Pictures of single images or of one matrix, which stay small side by side.
BESIDE = {"contact_sheet", "described", "component"}


def beside(code: str) -> set[str]:
    """The functions whose panels stand in more than one column."""
    found = set()
    for function in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)):
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "plt.subplots" and len(call.args) > 1 and ast.unparse(call.args[1]) != "1":
                found.add(function.name)
    return found


def test_panels_of_a_figure_stand_one_below_the_other_for_a_phone():
    assert set().union(*(beside(path.read_text()) for path in modules())) == BESIDE
    assert beside("def two():\n    figure, axes = plt.subplots(1, len(x))") == {"two"}


def test_every_error_bar_comes_from_the_one_function_that_draws_no_bar_of_no_length():
    for path in modules():
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in (call for call in calls if getattr(call.func, "attr", "") == "errorbar"):
            given = ast.unparse(
                call.args[2] if len(call.args) > 2 else next(k.value for k in call.keywords if "err" in k.arg)
            )
            assert given.startswith("reach(") or given == "around", (
                f"{path.name}: {given}"
            )  # around: quartiles of times


def test_a_value_without_any_interval_has_no_bar_and_others_keep_theirs():
    down, up = reach({"value": [1.0, 2.0], "low": [1.0, 1.5], "high": [1.0, 3.0]})
    assert math.isnan(down[0]) and math.isnan(up[0]) and (down[1], up[1]) == (0.5, 1.0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_where_all_images_are_right_or_none_the_interval_is_not_certain(share):
    sure, n = right(share), 200
    rows = {"a": {"task": sure, "other": right(0.5)}}
    drawn = [
        figures.accuracies(rows, draws=50)[1]["rows"]["a"],
        figures.size_and_accuracy({"a": 1}, {"a": sure})[1],
        intervals([sure], 100),
        figures.similarity_scatter({"p": sure}, {"m": {"p": 0.5}}, {}, "task")[1]["measures"]["m"],
    ]
    for entry in drawn:
        assert entry["value"][0] == pytest.approx(100 * share)
        assert entry["high"][0] - entry["low"][0] == pytest.approx(100 * 3.84 / (n + 3.84), rel=0.01)
