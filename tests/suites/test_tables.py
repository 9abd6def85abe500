"""Estimates, intervals and tables, on outcomes made up so that the answer is known."""

import math

import pytest
import torch

from dts_mini import DTSError
from dts_mini.results import fill
from dts_mini.suites.evaluation import bootstrap, divergence, interval
from dts_mini.suites.tables import markdown, over_seeds, seeds_markdown


def outcomes(share, n=400):
    return torch.arange(n) < round(share * n)


def test_the_bootstrap_is_centred_and_as_wide_as_a_binomials():
    draws = bootstrap({"a": {"x": outcomes(0.8)}}, draws=4_000)["a"][:, 0]
    assert draws.mean().item() == pytest.approx(0.8, abs=0.003)
    assert draws.std().item() == pytest.approx(math.sqrt(0.8 * 0.2 / 400), rel=0.1)


def test_rows_are_resampled_alike_so_that_equal_rows_have_a_share_of_one():
    draws = bootstrap({"a": {"x": outcomes(0.5)}, "b": {"x": outcomes(0.5)}})
    assert torch.equal(draws["a"], draws["b"])


def test_tasks_are_resampled_apart():
    draws = bootstrap({"a": {"x": outcomes(0.5), "y": outcomes(0.5)}}, draws=500)["a"]
    assert abs(torch.corrcoef(draws.T)[0, 1]) < 0.2


def test_the_interval_holds_its_level():
    low, high = interval(torch.linspace(0, 1, 10_001))
    assert (low, high) == pytest.approx((0.025, 0.975), abs=1e-3)


def test_the_divergence_is_zero_for_equal_predictions_and_positive_for_others():
    a, b = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)), torch.zeros(50, 7)
    assert divergence(a, a + 3).abs().max() < 1e-5  # a shift of all logits changes no prediction
    assert (divergence(a, b) > 0).all()
    p = a.softmax(1)
    assert torch.allclose(divergence(a, b), (p * p.log()).sum(1) + math.log(7), atol=1e-5)


def entry(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def table(mean):
    row = {"name": "DTS-T, 0.1", "accuracy": {"x": entry(mean), "y": entry(mean)}, "mean": entry(mean)}
    row |= {"share of experts": entry(mean), "storage": 0.0123}
    return {"title": "t", "split": "test", "columns": ["x", "y"], "rows": [row]}


def test_a_table_prints_percent_with_intervals():
    lines = markdown(table(0.5)).splitlines()
    assert lines[0] == "|  | x | y | mean | share of experts | storage |"
    assert lines[2] == "| DTS-T, 0.1 | 50.0 | 50.0 | 50.0 [49.0, 51.0] | 50.0 [49.0, 51.0] | 1.23 % |"


def test_seeds_give_students_interval():
    row = over_seeds({0: table(0.5), 1: table(0.6), 2: table(0.7)})["rows"][0]["mean"]
    half = 4.303 * 0.1 / math.sqrt(3)
    assert (row["value"], row["low"], row["high"]) == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=1e-3)
    assert row["each"] == [0.5, 0.6, 0.7]


def test_each_seed_has_a_column():
    text = seeds_markdown(over_seeds({0: table(0.5), 4: table(0.6)}))
    assert "| seed 0 | seed 4 |" in text and "| 50.0 | 60.0 | 55.0 [" in text


def test_one_seed_has_no_interval():
    with pytest.raises(DTSError, match="at least two"):
        over_seeds({0: table(0.5)})


def test_blocks_are_replaced_and_the_rest_is_left():
    text = "a\n<!-- results:x -->\nold\n<!-- end -->\nb"
    once = fill(text, {"x": "new\n"})
    assert once == "a\n<!-- results:x -->\n\nnew\n\n<!-- end -->\nb"
    assert fill(once, {"x": "new\n"}) == once


def test_a_block_that_is_not_measured_is_named():
    with pytest.raises(DTSError, match="'y' that is not measured"):
        fill("<!-- results:y --><!-- end -->", {"x": ""})
