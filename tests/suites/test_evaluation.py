"""Estimates and their intervals, on outcomes made up so that the answer is known."""

import math

import pytest
import torch

from dts_mini.suites.evaluation import bootstrap, divergence, interval


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
