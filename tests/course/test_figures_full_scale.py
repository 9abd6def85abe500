"""The figure of storage at full scale: data, labels, and a second cue beside the colour."""

import pytest
from looks import cues, legend, okabe_ito

from dts_mini.course import figures


def test_storage_shares_are_in_percent_by_way_of_counting():
    shares = {"3 bits": {0.1: 0.015, 0.3: 0.04}, "2 bits": {0.1: 0.01, 0.3: 0.026}}
    figure, data = figures.storage_shares(shares)
    assert data["keep ratio"] == [0.1, 0.3]
    assert data["share"]["3 bits"] == pytest.approx([1.5, 4.0])
    assert data["share"]["2 bits"] == pytest.approx([1.0, 2.6])
    (axis,) = figure.axes
    assert axis.get_xlabel() == "keep ratio" and "% of the float32 model" in axis.get_ylabel()
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.1", "0.3"]
    assert [text.get_text() for text in axis.texts] == ["1.50", "4.00", "1.00", "2.60"]
    assert legend(figure) == ["3 bits", "2 bits"]
    assert len(cues(axis, "bar")) == 2 and okabe_ito(axis)
