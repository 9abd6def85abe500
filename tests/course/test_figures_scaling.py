"""The figures of scaling: data, labels, intervals, and a second cue beside the colour."""

import pytest
from looks import cues, okabe_ito

from dts_mini.core.delta import compress, storage
from dts_mini.course import figures


@pytest.mark.parametrize("settings", [{}, {"keep_ratio": 0.3, "groups": 8}, {"per": "vector"}])
def test_the_bytes_of_a_file_are_all_accounted_for(base, expert, settings):
    expert["norm.weight"][:3] = base["norm.weight"][:3]  # exact zeros of the difference
    delta = compress(base, expert, **settings)
    parts = figures.delta_bytes(delta)
    assert sum(parts.values()) == storage(delta).file
    assert parts["zeros"] > 0 and parts["codes of matrices"] > 0 and parts["codes of other tensors"] > 0
    held = sum(parts.values()) - parts["header and table"]
    assert 0 <= held + 4 - storage(delta).information <= 2 * len(delta.parts) + 4  # the 0-D tensor's four; padding


def test_file_bytes_shows_every_part_in_kib(base, expert):
    delta = compress(base, expert)
    figure, data = figures.file_bytes(delta)
    assert sum(data["kib"]) * 1024 == pytest.approx(storage(delta).file)
    (axes,) = figure.axes
    assert "KiB" in axes.get_xlabel() and len(cues(axes, "bar")) == len(data["part"]) and okabe_ito(axes)
    assert [t.get_text() for t in axes.get_yticklabels()] == data["part"]
