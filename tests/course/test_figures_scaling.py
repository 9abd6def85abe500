"""The figures of scaling: data, labels, intervals, and a second cue beside the colour."""

import pytest
import torch
from looks import cues, legend, okabe_ito

from dts_mini.core.compress import compress
from dts_mini.core.delta import storage
from dts_mini.core.paper import scale, threshold
from dts_mini.course import figures
from dts_mini.course.style import GROUPS, PALETTE


@pytest.mark.parametrize("settings", [{}, {"keep_ratio": 0.3, "groups": 8}, {"per": "vector"}])
def test_the_bytes_of_a_file_are_all_accounted_for(base, expert, settings):
    expert["norm.weight"][:3] = base["norm.weight"][:3]  # exact zeros of the difference
    delta = compress(base, expert, **settings)
    parts = figures.delta_bytes(delta)
    assert sum(parts.values()) == storage(delta).file
    assert parts["zeros"] > 0 and parts["codes of matrices"] > 0 and parts["codes of other tensors"] > 0
    held = sum(parts.values()) - parts["header and table"]
    assert 0 <= held + 4 - storage(delta).information <= 2 * len(delta.parts) + 4  # the 0-D tensor's four; padding


def test_file_bytes_puts_the_file_beside_the_expert_and_takes_it_apart(base, expert):
    delta = compress(base, expert)
    figure, data = figures.file_bytes(delta)
    counts = storage(delta)
    assert data["expert"] * 1024 == counts.model and data["file"] * 1024 == counts.file
    assert sum(data["kib"]) == pytest.approx(data["file"])
    above, below = figure.axes
    assert "KiB" in above.get_xlabel() and "KiB" in below.get_xlabel()
    assert above.get_xlim()[1] == data["expert"] and below.get_xlim()[1] == data["file"]  # each to scale
    assert len(cues(below, "bar")) == len(data["part"]) and okabe_ito(above) and okabe_ito(below)
    assert [text.rsplit(":", 1)[0] for text in legend(figure)] == data["part"]


def test_stairs_gives_the_sorted_elements_and_one_value_for_each_group():
    x = torch.randn(30, 12, generator=torch.Generator().manual_seed(2))
    codes = threshold(x)
    figure, data = figures.stairs(x, codes)
    assert data["element"] == sorted(data["element"]) and len(data["element"]) == 360
    assert data["value"] == pytest.approx(scale(x, codes)[:4].tolist(), rel=1e-5)
    (axes,) = figure.axes
    strong_negative, weak_negative = axes.lines[1:3]
    assert [line.get_color() for line in axes.lines[1:5]] == [
        PALETTE[n] for n in GROUPS
    ]  # as in every figure of groups
    assert weak_negative.get_linestyle() != strong_negative.get_linestyle()
    assert legend(axes)[1:] == ["strong negative", "weak negative", "weak positive", "strong positive"]
    assert okabe_ito(axes) and "%" in axes.get_xlabel() and "four level steps" in figure.alt


def test_trial_rows_gives_each_trial_its_interval_and_names_the_lowest():
    noise = torch.randn(500, generator=torch.Generator().manual_seed(0))
    figure, data = figures.trial_rows({"as it is": 0.02 + 0.001 * noise, "stretched": 0.015 + 0.001 * noise})
    assert data["trial"] == ["as it is", "stretched"]
    assert all(a < b < c for a, b, c in zip(data["low"], data["value"], data["high"], strict=True))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == data["trial"] and okabe_ito(axes)
    assert "nats" in axes.get_xlabel() and "the lowest is stretched" in figure.alt


@pytest.mark.parametrize("sign", [1, -1])
def test_group_error_is_the_squared_error_and_marks_lie_on_it(sign):
    x = sign * torch.rand(200, generator=torch.Generator().manual_seed(0))
    rms, mean = sign * x.square().mean().sqrt().item(), x.mean().item()
    figure, data = figures.group_error(x, {"RMS": rms, "mean": mean})
    for v, error in (*zip(data["value"][::20], data["error"][::20], strict=True), *data["marks"].values()):
        assert error == pytest.approx(100 * ((x - v).square().sum() / x.square().sum()).item(), rel=1e-4)
    assert data["marks"]["mean"][1] < data["marks"]["RMS"][1] and min(data["error"]) >= data["marks"]["mean"][1] - 1e-9
    assert sum(data["counts"]) >= 198  # the outermost half per cent is cut off
    above, below = figure.axes
    assert "count" in above.get_ylabel() and "%" in below.get_ylabel() and "value" in below.get_xlabel()
    assert {"RMS", "mean"} < set(legend(above)) and {"RMS", "mean"} < set(legend(below))
    assert okabe_ito(above) and okabe_ito(below) and len(cues(above, "line")) == 2


def a_point(length: float) -> dict:
    return {"length": length, "error": 1 - length / 2, "kl": 0.1 * length, "interval": (0.09 * length, 0.12 * length)}


def test_length_and_answers_shows_error_and_kl_with_its_interval():
    curve, marks = [a_point(0.5), a_point(0.9), a_point(1.2)], {"RMS": a_point(0.9), "mean": a_point(0.8)}
    figure, data = figures.length_and_answers(curve, marks)
    assert data["one remainder, stretched"]["length"] == [0.5, 0.9, 1.2] and data["RMS"]["error"] == [0.55]
    kl = data["mean"]["kl"]
    assert [kl[key][0] for key in ("low", "value", "high")] == pytest.approx([0.072, 0.08, 0.096])
    left, right = figure.axes  # one above the other: a phone is narrow
    assert left.get_position().x0 == pytest.approx(right.get_position().x0, abs=0.05)
    assert "error" in left.get_ylabel() and "nats" in right.get_ylabel() and "task vector" in right.get_xlabel()
    assert {"RMS", "mean", "one remainder, stretched"} < set(legend(figure))
    assert len(cues(left, "line")) == 4 and okabe_ito(left) and okabe_ito(right)
    assert len(right.collections) == 3  # the bars of the intervals


def test_scaling_costs_gives_every_task_and_all_of_them_an_interval():
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    lost = {"RMS": 0.01 + 0.002 * noise, "mean": 0.02 + 0.002 * noise}
    kl = {"RMS": 0.1 + 0.01 * noise, "mean": 0.3 + 0.01 * noise}
    figure, data = figures.scaling_costs(lost, kl, ["signs", "digits"])
    assert data["column"] == ["signs", "digits", "all tasks"]
    assert data["lost"]["mean"]["value"][0] == pytest.approx(2, abs=0.05)  # points
    assert data["kl"]["RMS"]["value"][2] == pytest.approx(0.1, abs=0.005)  # nats
    for kind in ("lost", "kl"):
        for entry in data[kind].values():
            assert all(a < b < c for a, b, c in zip(entry["low"], entry["value"], entry["high"], strict=True))
    left, right = figure.axes
    assert "points" in left.get_xlabel() and "nats" in right.get_xlabel() and right.get_xscale() == "log"
    assert legend(figure) == ["RMS", "mean"]
    assert okabe_ito(left) and okabe_ito(right)
    assert [text.get_text() for text in left.get_yticklabels()] == data["column"]
