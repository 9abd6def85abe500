"""The figure of bytes and quality: data, labels, intervals, and a second cue beside the colour."""

import pytest
from looks import cues, estimate, legend, okabe_ito

from dts_mini.course import figures
from dts_mini.course.figures import size_accuracy
from dts_mini.course.style import PALETTE
from dts_mini.measures.cells import ABLATION, cells_of


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
    above, below = figure.axes
    assert above.get_xscale() == below.get_xscale() == below.get_yscale() == "log"
    assert above.get_yscale() == "linear"
    assert "% of the float32 model" in below.get_xlabel()
    assert "95 % interval" in above.get_ylabel() and "(nats)" in below.get_ylabel()
    assert [label.get_text() for label in below.get_xticklabels()] == ["1", "3"]


def test_the_curves_differ_in_colour_marker_and_dash(table):
    figure, _ = figures.size_curves(table)
    assert sorted(legend(figure)) == ["DTS-D, TIES", "DTS-T", "experts"]
    assert len(cues(figure.axes[1], "line")) == 2
    assert okabe_ito(figure.axes[1])


def measured(name: str, size: str, storage: float, share: float, kl: float) -> dict:
    spread = {"value": share, "low": share - 0.01, "high": share + 0.01}
    return {"group": "curve", "name": name, "size": size, "storage": storage, "share of experts": spread} | {
        "kl from experts": {"value": kl, "each": [0.8 * kl, 1.2 * kl]},
        "images": {"low": share - 0.02, "high": share + 0.005},
    }


@pytest.fixture
def rows() -> list[dict]:
    return [
        measured("DTS-T, ranks by budget", "1%", 0.01, 0.98, 0.02),
        measured("DTS-T, ranks by budget", "0.5%", 0.005, 0.95, 0.08),
        measured("DTS-T", "keep 0.1", 0.011, 0.97, 0.03),
        measured("DRC-T", "1%", 0.01, 0.99, 0.005),
        measured("TVQ INT2", "natural", 0.06, 0.99, 0.01),
        measured("nobody's", "1%", 0.01, 0.9, 0.3),
        {"group": "curve", "name": "TSV-C", "size": "0.25%", "impossible": "too small"},
    ]


def test_every_method_of_the_curve_has_a_kind():
    named = [name for names in size_accuracy.KINDS.values() for name in names]
    assert sorted(named) == sorted({cell.name for cell in cells_of(["curve"])})
    assert set(size_accuracy.BESIDE) <= set(named)


def test_every_row_of_the_ablation_has_a_section():
    named = [name for names in size_accuracy.SECTIONS.values() for name in names]
    assert sorted(["DTS, ranks by budget", *named]) == sorted(ABLATION)


def test_a_curve_goes_by_bytes_without_keep_ratios_and_without_what_is_impossible(rows):
    kinds = size_accuracy.by_kind(rows)
    _, data = figures.every_method(rows)
    assert list(kinds) == [
        "four groups (DTS)",
        "one step, then an entropy code (DRC)",
        "elements, no low rank",
        "others",
    ]
    curve = data["DTS-T, ranks by budget"]
    assert curve["storage"] == pytest.approx([0.5, 1]) and curve["kl"] == [0.08, 0.02]
    assert set(data) == {"DTS-T, ranks by budget", "DRC-T", "TVQ INT2", "nobody's"}


def test_a_panel_names_its_methods_from_the_highest_to_the_lowest_and_dts_and_drc_stand_in_all(rows):
    figure, _ = figures.every_method(rows)
    two, elements, others = figure.axes
    assert all(
        axis.get_xscale() == axis.get_yscale() == "log" and "(nats)" in axis.get_ylabel() for axis in figure.axes
    )
    assert "% of the float32 model" in others.get_xlabel()
    assert legend(two) == ["DTS-T, ranks by budget", "DRC-T"]
    assert legend(elements) == ["DTS-T, ranks by budget", "TVQ INT2", "DRC-T"]
    assert legend(others) == ["nobody's", "DTS-T, ranks by budget", "DRC-T"]
    assert all(okabe_ito(axis) for axis in figure.axes)


def test_the_band_of_the_divergence_reaches_over_the_seeds(rows):
    figure, _ = figures.every_method(rows[:2])
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(0.8 * 0.02), pytest.approx(1.2 * 0.08))


def test_dts_and_drc_have_one_colour_each_and_the_others_are_told_apart_by_more_than_colour():
    names = [name for methods in size_accuracy.KINDS.values() for name in methods]
    for method, colour in (("DTS", PALETTE[0]), ("DRC", PALETTE[3])):
        own = [name for name in names if name.startswith(method)]
        assert {size_accuracy.look(name, own)["color"] for name in own} == {colour}
        assert len({size_accuracy.look(name, own)["marker"] for name in own}) == len(own)
    for methods in size_accuracy.KINDS.values():
        looks = [size_accuracy.look(name) for name in methods]
        assert len({(look["marker"], look.get("markerfacecolor")) for look in looks}) == len(methods)


def test_a_method_looks_the_same_whatever_stands_beside_it_and_by_both_its_names():
    assert size_accuracy.look("low-rank INT3", ["low-rank INT3", "DeltaMix"]) == size_accuracy.look("low rank, 3 bits")
    assert size_accuracy.look("DTS-D, average", ["DTS-D, average"]) == size_accuracy.look("DTS-D, average")


@pytest.fixture
def ablation(rows) -> list[dict]:
    return [{**rows[0], "name": "DTS"}, {**rows[1], "name": "2 groups"}, {**rows[3], "name": "DRC"}]


def test_a_bar_of_the_ablation_carries_a_dot_a_seed(ablation):
    figure, _ = figures.ablation_bars(ablation[:1], "DTS")
    dots = figure.axes[0].lines[0]
    assert dots.get_xdata() == pytest.approx([0.016, 0.024]) and len(set(dots.get_ydata())) == 1


def test_the_ablation_stands_in_sections_and_dts_and_drc_are_of_two_hatches(ablation):
    figure, data = figures.ablation_bars([*ablation, {**ablation[0], "name": "new"}], "DTS")
    assert data == {"to compare with": {"DTS": 0.02}, "DTS: groups": {"2 groups": 0.08}, "DRC": {"DRC": 0.005}} | {
        "others": {"new": 0.02}
    }
    (axis,) = figure.axes
    assert len({bar.get_hatch() for bar in axis.patches}) == 2 and okabe_ito(axis)
    assert set(data) <= {text.get_text() for text in axis.texts}


def test_ranks_are_bars_by_kind_of_matrix_and_nothing_joins_them():
    given = {"a.mlp.c_fc.weight": 3, "proj": 5, "b.mlp.c_fc.weight": 4}
    figure, data = figures.layer_ranks({"DTS": given, "DRC": {name: 2 * rank for name, rank in given.items()}})
    assert list(data["DTS"].values()) == [[3, 4], [5]] and list(data["DRC"].values()) == [[6, 8], [10]]
    assert [axis.get_title() for axis in figure.axes] == ["DTS", "DRC"]
    assert not any(axis.lines for axis in figure.axes) and all(okabe_ito(axis) for axis in figure.axes)
    assert "MLP, in" in [label.get_text() for label in figure.axes[1].get_xticklabels()]


def test_rate_and_error_stand_above_rate_and_divergence_and_the_limit_is_of_the_error_alone():
    figure, data = figures.rate_distortion({"DTS": [(0.2, 0.5, 0.03), (1, 0.3, 0.01)]}, ([0.1, 2], [0.4, 0.1]))
    assert data == {"DTS": {"bits": [0.2, 1], "error": [0.5, 0.3], "kl": [0.03, 0.01]}}
    above, below = figure.axes
    assert "squared error" in above.get_ylabel() and "(nats)" in below.get_ylabel() and "bits" in below.get_xlabel()
    assert len(above.lines) == 2 and len(below.lines) == 1
    assert legend(figure) == ["DTS", "beyond the limit"]


def test_errors_of_components_stand_beside_what_they_are_errors_of():
    figure, data = figures.component_errors([4, 2, 1], {"DTS": [0.4, 0.2, 1], "DRC": [0.1, 0.1, 0.1]})
    assert data == {"energy": [4, 2, 1], "DTS": [0.4, 0.2, 1], "DRC": [0.1, 0.1, 0.1]}
    (axis,) = figure.axes
    assert axis.get_yscale() == "log" and len(cues(axis, "line")) == 3 and okabe_ito(axis)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rows: figures.every_method(rows),
        lambda rows: figures.ablation_bars(rows, "DRC-T"),
        lambda rows: figures.layer_ranks({"DTS": {"proj": 5}}),
        lambda rows: figures.rate_distortion({"DTS": [(0.2, 0.5, 0.03)]}, ([0.1, 2], [0.4, 0.1])),
        lambda rows: figures.component_errors([4, 2], {"DTS": [0.4, 0.2]}),
        lambda rows: figures.bound_tightness({"DTS": {"a": (0.3, 0.4, 0.5)}}),
    ],
)
def test_a_figure_says_in_words_what_it_shows_with_its_numbers(rows, draw):
    figure, _ = draw(rows)
    assert "DTS" in figure.alt and any(c.isdigit() for c in figure.alt)


def test_tightness_sets_the_error_against_the_sum_of_the_bounds():
    _, data = figures.bound_tightness({"m": {"a": (0.3, 0.4, 0.5), "b": (0.1, 0.2, 0.25)}})
    assert data["m"][0] == pytest.approx([0.7, 0.3]) and data["m"][1] == [0.5, 0.25]
