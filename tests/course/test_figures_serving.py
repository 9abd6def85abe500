"""The figures of serving: data, labels, and a second cue beside the colour."""

import pytest
from looks import cues, legend, okabe_ito

from dts_mini.course import figures


def test_drift_keeps_its_numbers_and_says_which_line_is_exactly_zero():
    errors = {"in place": [0.01, 0.02, 0.04], "rebuilt": [0.0, 0.0, 0.0]}
    figure, data = figures.drift(errors)
    assert data == errors
    assert legend(figure) == ["in place", "rebuilt: exactly zero"]
    (axis,) = figure.axes
    assert axis.get_yscale() == "log" and "share of a remainder" in axis.get_ylabel()
    drawn = [line.get_ydata() for line in axis.lines]
    assert list(drawn[0]) == [0.01, 0.02, 0.04]
    assert max(drawn[1]) < min(drawn[0])  # at the bottom: a log axis has no zero
    assert len(cues(axis, "line")) == 2 and okabe_ito(axis)


def test_a_first_swap_without_harm_can_be_drawn():
    figures.drift({"in place": [0.0, 0.5]})
    figures.drift({"rebuilt": [0.0]})


def test_serving_costs_are_per_token_and_meet_where_the_rank_cancels():
    figure, data = figures.serving_cost((40, 10), (2, 5), (4, 8, 16))
    assert data["even"] == 8
    for rank in (2, 5):
        assert data["rebuild"][rank] == pytest.approx([1 + rank / 4, 1 + rank / 8, 1 + rank / 16])
        assert data["side"][rank] == pytest.approx([1 + rank / 8] * 3)
        assert data["rebuild"][rank][1] == pytest.approx(data["side"][rank][1])
    assert legend(figure)[-1] == "where both cost the same" and len(legend(figure)) == 5
    (axis,) = figure.axes
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert "tokens" in axis.get_xlabel() and "multiplications per token" in axis.get_ylabel()
    assert len(cues(axis, "line")) == 5 and okabe_ito(axis)


def a_run(model: str) -> dict:
    ratio = lambda median: {"to_base": {"wall": {"low": median - 0.1, "median": median, "high": median + 0.2}}}
    return {
        "model": model,
        "batches": {
            "1": {"base": {}, "swap": ratio(4.0), "on the fly": ratio(1.5)},
            "8": {"base": {}, "swap": ratio(2.0), "on the fly": ratio(1.2), "mixed": ratio(1.4)},
        },
    }


def test_serving_times_have_a_panel_a_model_and_a_bar_a_way_where_there_is_one():
    figure, data = figures.serving_times([a_run("small"), a_run("large")], ["swap", "on the fly", "mixed"])
    assert data["large"]["swap"] == {"1": 4.0, "8": 2.0} and data["small"]["mixed"] == {"8": 1.4}
    assert legend(figure) == ["swap", "on the fly", "mixed"]
    first, second = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["small", "large"]
    assert "the base's forward is 1" in first.get_ylabel() and "images" in second.get_xlabel()
    heights = sorted(round(patch.get_height(), 6) for patch in first.patches)
    assert heights == [1.2, 1.4, 1.5, 2.0, 4.0]
    assert len(cues(first, "bar")) == 3 and okabe_ito(first)


def test_served_memory_counts_whole_decoded_and_packed_experts():
    figure, data = figures.served_memory(1_000_000, 4_000_000, 10_000, 200_000, (1, 10, 100), kept=4)
    assert data["every expert whole"] == [4, 40, 400]
    assert data["base and every expert decoded"] == pytest.approx([1.2, 3, 21])
    assert data["base and files, 4 experts decoded"] == pytest.approx([1.21, 1.9, 2.8])
    assert data["base and files"] == pytest.approx([1.01, 1.1, 2])
    (axis,) = figure.axes
    assert axis.get_xscale() == axis.get_yscale() == "log" and axis.get_ylabel() == "memory (MB)"
    assert legend(figure) == list(data) and len(cues(axis, "line")) == 4 and okabe_ito(axis)
