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
    assert "tokens" in axis.get_xlabel() and "multiplications a token" in axis.get_ylabel()
    assert len(cues(axis, "line")) == 5 and okabe_ito(axis)
