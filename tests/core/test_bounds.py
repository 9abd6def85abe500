"""Bounds: exact where they say so, never below what is measured, on random and on adversarial matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dts_mini import TaskDelta, compress
from dts_mini.core.codes import lloyd_max, restore, scale, threshold
from dts_mini.core.parts import Bounds
from dts_mini.core.svd import bounds, decompose, refit


def gaussian(m: int, n: int, seed: int) -> torch.Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


ADVERSARIAL = {
    "one spike": torch.zeros(12, 9).index_put((torch.tensor(3), torch.tensor(4)), torch.tensor(5.0)),
    "identity": torch.eye(10),
    "all ones": torch.ones(8, 13),
    "equal singular values": torch.linalg.qr(gaussian(14, 14, 1)).Q,
    "one row": gaussian(1, 20, 2),
    "heavy tails": gaussian(15, 11, 3) ** 5,
    "signs": gaussian(16, 16, 4).sign(),
    "rank one and noise": torch.outer(torch.arange(1.0, 13), torch.arange(1.0, 8)) + 1e-3 * gaussian(12, 7, 5),
}


def held(x: torch.Tensor, **settings) -> None:
    """That the bounds of a compressed matrix hold."""
    delta = compress({"w": torch.zeros_like(x)}, {"w": x}, **settings)
    found = delta.bounds["w"]
    measured = ((delta.remainder("w") - x).norm() / x.norm()).item()
    rank = delta.parts["w"].rank
    tail = torch.linalg.svdvals(x.double())[rank:].norm() / x.double().norm()
    assert found.truncation == pytest.approx(tail.item(), abs=3e-3)
    assert found.error == pytest.approx(measured, abs=3e-3)
    assert measured <= found.truncation + found.coding + 1e-4
    assert measured >= tail - 1e-4, "no matrix of that rank is nearer"
    assert TaskDelta.from_bytes(delta.to_bytes()).bounds == delta.bounds


@pytest.mark.parametrize(
    "how",
    [
        {"keep_ratio": 0.3},
        {"keep_ratio": 0.4, "per": "vector", "block": 2, "norm": 1.0},
        {"method": "drc", "notch": 700},
    ],
    ids=["DTS", "corrected", "DRC"],
)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_bounds_hold_on_adversarial_matrices(name, how):
    held(ADVERSARIAL[name], **how)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 24),
    st.integers(2, 24),
    st.integers(0, 10_000),
    st.sampled_from(
        [{"groups": 2}, {"groups": 4, "refit": True}, {"groups": 8, "per": "vector", "levels": "lloyd-max"}]
    ),
)
def test_bounds_hold_on_random_matrices(m, n, seed, how):
    held(gaussian(m, n, seed), keep_ratio=0.4, **how)


def test_without_coding_the_bound_is_the_truncation():
    x = gaussian(20, 15, 0)
    exact = decompose(x, 6)
    truncation, coding, error = bounds(x, exact, exact.u, exact.s, exact.vh)
    assert coding < 1e-5
    assert truncation == pytest.approx(error, abs=1e-5)


def test_what_a_file_holds_of_a_bound_is_never_below_it():
    for value in (0.0, 1e-4, 0.333333, 0.99999, 7.1):
        assert all(stored >= value for stored in Bounds(value, value, value).stored())


def test_the_first_components_know_their_own_truncation():
    x = gaussian(30, 20, 1)
    assert decompose(x, 12).first(5).error == pytest.approx(decompose(x, 5).error, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 200), st.integers(0, 10_000), st.sampled_from([2, 4, 8]))
def test_lloyd_max_never_errs_more_than_group_means(k, n, seed, groups):
    x = gaussian(k, n, seed)
    codes = threshold(x, groups)
    halves = restore(codes, scale(x, codes, groups, "mean"))
    moved, values = lloyd_max(x, codes, groups)
    assert (restore(moved, values) - x).square().sum() <= (halves - x).square().sum() * (1 + 1e-5) + 1e-9


def test_lloyd_max_of_a_gaussian_with_four_levels_leaves_the_known_share():
    """0.1175 of the variance (Max 1960, table I)."""
    x = gaussian(1, 200_000, 0)
    codes, values = lloyd_max(x, threshold(x, 4), 4, rounds=200)
    assert (restore(codes, values) - x).square().mean().item() == pytest.approx(0.1175, abs=0.002)


def test_lloyd_max_keeps_exact_zeros_apart():
    x = torch.tensor([[0.0, 1.0, -1.0, 0.0, 3.0, -3.0]])
    codes, _ = lloyd_max(x, threshold(x, 4), 4)
    assert (codes == 4).tolist() == (x == 0).tolist()


def test_refitted_values_are_the_least_squares_solution():
    x, u, vh = gaussian(18, 14, 0).double(), gaussian(18, 4, 1).double(), gaussian(4, 14, 2).double()
    columns = torch.stack([torch.outer(u[:, i], vh[i]).reshape(-1) for i in range(4)], 1)
    best = torch.linalg.lstsq(columns, x.reshape(-1, 1)).solution.reshape(-1)
    assert torch.allclose(refit(x, u, vh), best, rtol=1e-6)
