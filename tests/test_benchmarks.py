"""What benchmarks/README.md says is what was measured."""

import json
import re
import sys

import pytest
import torch

from benchmarks import compress, forged, plain, readme, scale, serving
from dts_mini.core.file import read_bytes
from dts_mini.results import fill


def published():
    return json.loads(read_bytes(scale.PATH))


def test_the_tables_of_the_page_are_written_from_what_was_measured():
    text = readme.README.read_text()
    assert re.findall("<!-- results:(.*?) -->", text) == list(readme.blocks())
    assert fill(text, readme.blocks()) == text, "run python -m benchmarks.readme"


def test_what_is_published_was_measured_at_full_size_from_a_commit():
    for model, found in published().items():
        about = found["provenance"]
        assert not about["smoke"] and not about["commit"].endswith("+"), model
        assert found["parameters"] == sum(tensor.numel() for tensor in scale.shapes(model, smoke=False).values())


def test_the_page_on_files_tells_what_became_of_the_forged_ones_and_nothing_else_came_of_any():
    found = json.loads(read_bytes(forged.PATH))
    text = forged.PAGE.read_text()
    assert fill(text, {"forged": forged.markdown(found)}) == text, (
        "run python -m benchmarks.forged --json data/forged.json"
    )
    assert found["files"] >= 10_000 and found["wrong"] == []
    assert found["outcomes"]["anything else"] == 0
    assert sum(found["outcomes"].values()) == found["files"]


def test_a_missed_goal_is_printed_as_missed():
    (model, found), *_ = published().items()
    goal = 2 * found["largest_tensor"]["stored"] + scale.GB
    for peak, missed in ((goal, False), (goal + 1, True)):
        text = scale.markdown({model: found | {"compress": found["compress"] | {"peak": peak}}})
        (row,) = [line for line in text.splitlines() if line.startswith("| compress: peak memory")]
        assert ("**missed**" in row) is missed


def test_compress_is_timed_beside_the_plain_text_with_every_svd(tmp_path, monkeypatch, capsys):
    small = {"proj": (24, 16), "ln_post.weight": (24,), "transformer.resblocks.0.mlp.c_fc.weight": (32, 24)}
    monkeypatch.setattr(compress, "shapes", lambda: small)
    monkeypatch.setattr(sys, "argv", ["compress", "--repeats", "1", "--json", str(tmp_path / "found.json")])
    compress.main()
    printed, found = capsys.readouterr().out, json.loads(read_bytes(tmp_path / "found.json"))["compress"]
    for svd in plain.SVDS:
        assert f"plain, {svd} SVD: times as long" in printed and found["cpu"][svd]["ratio"] > 0
    errors = found["error"]
    assert errors["full"] == pytest.approx(errors["economy"], rel=1e-4)
    assert errors["dts_mini"] == pytest.approx(errors["full"], rel=0.05)


@pytest.mark.parametrize("svd", plain.SVDS)
def test_every_svd_of_the_plain_text_finds_the_leading_components(svd):
    g = torch.Generator().manual_seed(0)
    low = torch.randn(40, 3, generator=g) @ torch.randn(3, 30, generator=g)
    u, s, v = plain.decompose(low, 0.1, plain.SVDS[svd])
    assert (u.shape, s.shape, v.shape) == ((40, 3), (3,), (30, 3))
    assert torch.allclose(u * s @ v.T, low, atol=1e-3)


def test_serving_is_timed_on_a_tower_of_any_size(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(serving.MODELS, "mini", (8, 4, 16, 1, 2))
    monkeypatch.setitem(serving.OUTPUT, "mini", 8)
    for name, value in {"METHODS": {"dts": {"keep_ratio": 0.1}}, "BATCHES": (1, 2), "TASKS": 2}.items():
        monkeypatch.setattr(serving, name, value)
    many = {"files_bytes": 2, "held_bytes": 2, "resident_bytes": 2}  # a process of its own, which knows no small tower
    monkeypatch.setattr(serving, "many", lambda *arguments: many)
    path = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["serving", "--seconds", "0.01", "--models", "mini", "--json", str(path)])
    serving.main()
    (run,) = json.loads(read_bytes(path))["runs"]
    assert {goal["goal"] for goal in run["goals"]} >= {"on the fly / base, batch 32", "memory / files"}
    assert "mini, dts" in capsys.readouterr().out
