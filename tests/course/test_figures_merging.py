"""The figures of merging: data, labels, intervals, and a second cue beside the colour."""

import pytest
from looks import cues, estimate, legend, okabe_ito

from dts_mini.course import figures
from dts_mini.course.figures.merging import FAMILIES


@pytest.fixture
def headline() -> dict:
    names = ["zero-shot", "average", "TIES"]
    names += [f"{m}, {k}" for m in ("DTS-T", "DTS-D, average", "DTS-D, TIES") for k in (0.05, 0.1, 0.3)] + ["experts"]
    rows = []
    for number, name in enumerate(names):
        accuracy = {task: estimate(0.3 + 0.04 * number) for task in ("signs", "digits", "scenes")}
        share = float(name.rsplit(", ", 1)[1]) / 10 if name.startswith("DTS") else 0.0
        rows.append({"name": name, "accuracy": accuracy, "mean": estimate(0.3 + 0.04 * number), "storage": share})
        rows[-1] |= {"share of experts": estimate(0.5 + 0.03 * number), "kl from experts": 0.5 / (number + 1)}
    return {"columns": ["signs", "digits", "scenes"], "rows": rows}


def test_mean_accuracies_has_every_row_with_its_interval(headline):
    figure, data = figures.mean_accuracies(headline)
    assert data["row"] == [row["name"] for row in headline["rows"]]
    assert data["value"] == pytest.approx([100 * row["mean"]["value"] for row in headline["rows"]])
    assert all(low < value < high for low, value, high in zip(data["low"], data["value"], data["high"], strict=True))
    assert data["family"][:4] == ["zero-shot", "base merge", "base merge", "DTS-T"] and data["family"][-1] == "experts"
    (axes,) = figure.axes
    assert legend(axes) == list(FAMILIES) and "95 %" in axes.get_xlabel()
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


def test_base_choice_sets_kl_against_accuracy_and_length():
    row = {"accuracy": estimate(0.7), "length": {"value": 1.1, "low": 1.0, "high": 1.2}, "kl": estimate(0.05)}
    bases = {"theta_0": row, "average": row | {"kl": estimate(0.03)}}
    figure, data = figures.base_choice(bases)
    assert data["base"] == ["theta_0", "average"] and data["accuracy"]["value"] == pytest.approx([70, 70])
    assert data["kl"]["value"] == [0.05, 0.03] and data["length"]["high"] == [1.2, 1.2]
    left, right = figure.axes
    assert "nats" in left.get_ylabel() and "%" in left.get_xlabel() and "95 %" in left.get_ylabel()
    assert legend(right) == list(bases) and len({c.lines[0].get_marker() for c in right.containers}) == 2
    assert okabe_ito(left) and okabe_ito(right)


def test_two_measures_shows_shares_with_intervals_and_kl(headline):
    figure, data = figures.two_measures(headline)
    assert list(data) == ["DTS-T", "DTS-D, average", "DTS-D, TIES"]
    kl = {row["name"]: row["kl from experts"] for row in headline["rows"]}
    assert data["DTS-T"]["kl"] == [kl["DTS-T, 0.05"], kl["DTS-T, 0.1"], kl["DTS-T, 0.3"]]
    assert data["DTS-T"]["share"]["low"] == pytest.approx([v - 2 for v in data["DTS-T"]["share"]["value"]])
    left, right = figure.axes
    assert legend(left) == ["experts", *data] or legend(left) == [*data, "experts"]
    assert "%" in left.get_ylabel() and "nats" in right.get_ylabel() and "%" in right.get_xlabel()
    assert len(cues(right, "line")) == 3 and okabe_ito(left) and okabe_ito(right)


def test_storage_by_tasks_counts_in_models():
    figure, data = figures.storage_by_tasks(1_000, {"keep ratio 0.1": 10, "keep ratio 0.3": 30}, most=4)
    assert data["tasks"] == [1, 2, 3, 4] and data["experts"] == [1, 2, 3, 4] and data["one merged model"] == [1.0] * 4
    assert data["shared model + files, keep ratio 0.3"] == pytest.approx([1.03, 1.06, 1.09, 1.12])
    (axes,) = figure.axes
    assert legend(axes) == list(data)[1:] and "models" in axes.get_ylabel()
    assert len(cues(axes, "line")) == 4 and okabe_ito(axes)
