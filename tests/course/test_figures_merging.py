"""The figures of merging: data, labels, intervals, and a second cue beside the colour."""

import pytest
from looks import cues, estimate, legend, okabe_ito

from dts_mini.course import figures
from dts_mini.course.figures.kinds import look

FAMILIES = ("zero-shot", "base merge", "DTS-T", "DTS-D", "experts")  # those of the table here


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


def test_the_gain_kept_is_drawn_as_the_mean_is(headline):
    for row in headline["rows"]:
        row["gain kept"] = estimate(row["mean"]["value"] - 0.2)
    figure, data = figures.mean_accuracies(headline, "gain kept")
    assert data["value"] == pytest.approx([100 * row["mean"]["value"] - 20 for row in headline["rows"]])
    assert figure.axes[0].get_xlabel().startswith("share of the gain kept, over 3 tasks (%)")
    assert figure.alt.startswith("Share of the gain kept of each row")


def test_a_kind_of_row_has_one_colour_and_one_marker_in_every_figure(headline):
    figure, _ = figures.mean_accuracies(headline)
    found = {bars.get_label(): bars.lines[0] for bars in figure.axes[0].containers}
    strips, _ = figures.task_strips(headline)
    looks = {(line.get_color(), line.get_marker()) for bars in strips.axes[0].containers for line in bars.lines[:1]}
    wanted = {(look(family)["color"], look(family)["marker"]) for family in FAMILIES}
    assert {(line.get_color(), line.get_marker()) for line in found.values()} == wanted == looks
    assert look("oracle") == look("experts") and look("DTS unseen") == look("DTS-D")


def test_two_suites_join_each_row_of_both_tables_and_hide_no_merge(headline):
    second = {"columns": headline["columns"], "rows": [row | {"mean": estimate(0.9)} for row in headline["rows"]]}
    figure, data = figures.two_suites(headline, second)
    left_out = {row["name"] for row in headline["rows"]} - set(data["row"])
    assert all(name.endswith((", 0.05", ", 0.3")) for name in left_out) and len(left_out) == 6
    (axes,) = figure.axes
    joined = [line for line in axes.lines if line.get_color() == "0.6"]
    ends = list(zip(data["names misused"]["value"], data["honest"]["value"], strict=True))
    assert [tuple(line.get_xdata()) for line in joined] == ends and {end for _, end in ends} == {90}
    assert "hollow" in axes.get_title()


def test_task_strips_has_a_strip_for_each_task_with_every_merge_and_every_dts_row(headline):
    figure, data = figures.task_strips(headline)
    assert list(data) == ["mean", *headline["columns"]]
    assert data["signs"]["base merge"]["value"] == pytest.approx([34, 38])  # average, TIES
    assert [len(data["mean"][family]["value"]) for family in ("DTS-T", "DTS-D")] == [1, 2]  # at keep ratio 0.1
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(data) and not legend(axes)
    assert {text.get_text() for text in axes.texts} == {"zero-shot", "every merge", "DTS", "experts"}
    assert "%" in axes.get_xlabel() and okabe_ito(axes) and "30.0" in figure.alt


def test_base_choice_has_a_panel_for_accuracy_length_and_kl_and_orders_bases_by_accuracy():
    row = {"accuracy": estimate(0.7), "length": {"value": 1.1, "low": 1.0, "high": 1.2}, "kl": estimate(0.05)}
    bases = {"average": row | {"kl": estimate(0.03)}, "theta_0": row | {"accuracy": estimate(0.5)}}
    figure, data = figures.base_choice(bases)
    assert data["base"] == ["theta_0", "average"] and data["accuracy"]["value"] == pytest.approx([50, 70])
    assert data["kl"]["value"] == [0.05, 0.03] and data["length"]["high"] == [1.2, 1.2]
    accuracy, length, kl = figure.axes
    assert "%" in accuracy.get_xlabel() and "length" in length.get_xlabel() and "nats" in kl.get_xlabel()
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_yticklabels()] == [r"$\theta_0$", "average"] and okabe_ito(axes)
    assert "0.050 nats" in figure.alt


def test_two_measures_shows_shares_with_intervals_kl_and_bases_with_one_keep_ratio(headline):
    other = next(row for row in headline["rows"] if row["name"] == "DTS-D, TIES, 0.1")
    headline["rows"].append(other | {"name": "DTS-D, TSV-M, 0.1", "kl from experts": 0.4})
    figure, data = figures.two_measures(headline)
    curves = ["DTS-T", "DTS-D, average", "DTS-D, TIES"]
    assert list(data) == [*curves, "DTS-D, TSV-M"] and data["DTS-D, TSV-M"]["kl"] == [0.4]
    kl = {row["name"]: row["kl from experts"] for row in headline["rows"]}
    assert data["DTS-T"]["kl"] == [kl["DTS-T, 0.05"], kl["DTS-T, 0.1"], kl["DTS-T, 0.3"]]
    assert data["DTS-T"]["share"]["low"] == pytest.approx([v - 2 for v in data["DTS-T"]["share"]["value"]])
    top, bottom = figure.axes
    assert legend(top) == curves and "over TSV-M" in {text.get_text() for text in bottom.texts}
    assert "%" in top.get_ylabel() and "nats" in bottom.get_ylabel() and "%" in bottom.get_xlabel()
    assert top.get_position().y0 > bottom.get_position().y0  # one above the other: they can be read on a phone
    assert len(cues(bottom, "line")) == 4 and okabe_ito(top) and okabe_ito(bottom)


def test_storage_by_tasks_counts_in_models():
    figure, data = figures.storage_by_tasks(1_000, {"keep ratio 0.1": 10, "keep ratio 0.3": 30}, most=4)
    assert data["tasks"] == [1, 2, 3, 4] and data["experts"] == [1, 2, 3, 4] and data["one merged model"] == [1.0] * 4
    assert data["shared model + files, keep ratio 0.3"] == pytest.approx([1.03, 1.06, 1.09, 1.12])
    (axes,) = figure.axes
    assert legend(axes) == list(data)[1:] and "models" in axes.get_ylabel()
    assert len(cues(axes, "line")) == 4 and okabe_ito(axes)
