"""DTS of one tensor: decompose, threshold, scale, restore."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dts_mini.core.codes import restore, rows, scale, threshold
from dts_mini.core.dts import rank_of
from dts_mini.core.errors import DTSError
from dts_mini.core.svd import decompose

ALGORITHMS = ["exact", "gram", "randomised"]
SHAPES = [(40, 25), (25, 40), (30, 30), (1, 9), (9, 1)]
GROUPS = [2, 4, 8]


def matrix(shape: tuple[int, int], seed: int = 0, decay: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A random matrix whose i-th singular value is i**-decay."""
    generator = torch.Generator().manual_seed(seed)
    small = min(shape)
    left, right = (torch.linalg.qr(torch.randn(n, small, generator=generator, dtype=torch.float64)).Q for n in shape)
    return (left * torch.arange(1, small + 1).double() ** -decay @ right.T).to(dtype)


def rebuilt(found) -> Tensor:
    return found.u.double() * found.s.double() @ found.vh.double()


def relative(approximation: Tensor, exact: Tensor) -> float:
    return ((approximation.double() - exact.double()).norm() / exact.double().norm()).item()


# --- decompose ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_every_algorithm_finds_the_leading_components_of_a_float64_svd(algorithm, shape, dtype):
    x = matrix(shape, dtype=dtype)
    u, s, vh = torch.linalg.svd(x.double(), full_matrices=False)
    rank = rank_of(shape, 0.2)
    found = decompose(x, rank, algorithm)
    assert (found.u.shape, found.s.shape, found.vh.shape) == ((shape[0], rank), (rank,), (rank, shape[1]))
    assert found.u.dtype == found.s.dtype == found.vh.dtype == dtype
    # Two power steps leave the randomised one an error of a few per mille on this slow a decay.
    tolerance = 5e-3 if algorithm == "randomised" else 1e-5
    assert torch.allclose(found.s.double(), s[:rank], rtol=tolerance)
    best = relative(u[:, :rank] * s[:rank] @ vh[:rank], x)
    assert relative(rebuilt(found), x) <= best * (1 + tolerance) + 1e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("keep_ratio", [0.1, 0.5, 1])
def test_the_stated_error_is_the_error(algorithm, shape, keep_ratio):
    x = matrix(shape, seed=1)
    found = decompose(x, rank_of(shape, keep_ratio), algorithm)
    # Of its square, the share of the norm that is lost, float32 can tell no more than its own rounding.
    assert found.error**2 == pytest.approx(relative(rebuilt(found), x) ** 2, abs=1e-6)
    found = decompose(x.double(), rank_of(shape, keep_ratio), algorithm)
    assert found.error**2 == pytest.approx(relative(rebuilt(found), x) ** 2, abs=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_singular_vectors_are_orthonormal_and_singular_values_fall(algorithm, shape):
    found = decompose(matrix(shape, decay=2), rank_of(shape, 0.6), algorithm)
    eye = torch.eye(len(found.s))
    assert torch.allclose(found.u.T @ found.u, eye, atol=1e-5)
    assert torch.allclose(found.vh @ found.vh.T, eye, atol=1e-5)
    assert (found.s[:-1] >= found.s[1:]).all()
    assert (found.s > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_matrix_of_low_rank_yields_no_components_of_noise(algorithm, dtype):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator).to(dtype) for shape in ((40, 3), (3, 30)))
    found = decompose(left @ right, 20, algorithm)
    assert len(found.s) == 3
    assert relative(rebuilt(found), left @ right) < 1e-5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_zero_matrix_decomposes_into_one_zero_component(algorithm):
    found = decompose(torch.zeros(5, 4), 3, algorithm)
    assert found.s.tolist() == [0]
    assert found.error == 0
    assert not rebuilt(found).any()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("shape", [(40, 25), (25, 40)])
def test_the_largest_element_of_each_right_vector_is_positive(algorithm, shape):
    for sign in (1, -1):
        vh = decompose(sign * matrix(shape), 5, algorithm).vh
        largest = vh.gather(1, vh.abs().argmax(1, keepdim=True))
        assert (largest > 0).all()


def test_algorithms_agree_on_signs_so_that_a_file_does_not_depend_on_the_one_that_ran():
    x = matrix((40, 25), decay=2, dtype=torch.float64)
    exact, gram = decompose(x, 5, "exact"), decompose(x, 5, "gram")
    assert torch.allclose(exact.u, gram.u, atol=1e-8)
    assert torch.allclose(exact.vh, gram.vh, atol=1e-8)


def test_the_randomised_algorithm_repeats_itself_and_leaves_the_global_generator_alone():
    x, state = matrix((40, 25)), torch.get_rng_state()
    first, second = decompose(x, 5, "randomised"), decompose(x, 5, "randomised")
    assert torch.equal(first.u, second.u)
    assert torch.equal(first.s, second.s)
    assert not torch.equal(first.u, decompose(x, 5, "randomised", seed=1).u)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("rank", "like"), [(20, "randomised"), (100, "gram")])
def test_auto_takes_the_randomised_algorithm_for_few_components_of_a_large_matrix_and_gram_for_many(rank, like):
    x = torch.randn(300, 280, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decompose(x, rank).u, decompose(x, rank, like).u)
    assert torch.equal(decompose(x[:200], rank).u, decompose(x[:200], rank, "exact").u)


@pytest.mark.parametrize("rank", [0, 5, -1])
def test_a_rank_outside_the_matrix_is_refused(rank):
    with pytest.raises(DTSError, match=r"1\.\.4"):
        decompose(torch.ones(4, 6), rank)


def test_decompose_refuses_what_is_no_matrix_and_unknown_algorithms():
    with pytest.raises(DTSError, match="matrix"):
        decompose(torch.ones(4), 1)
    with pytest.raises(DTSError, match="'fast' is unknown"):
        decompose(torch.ones(4, 4), 1, "fast")


# --- the rank rule ---


@given(st.integers(1, 100), st.integers(1, 3000), st.integers(1, 3000))
def test_the_rank_is_the_floor_of_the_share_as_written_and_at_least_one(percent, m, n):
    """0.29 * 100 is 28.999999999999996 in floating point: 29 components are meant."""
    assert rank_of((m, n), percent / 100) == max(1, math.floor(Fraction(percent, 100) * min(m, n)))


@pytest.mark.parametrize(
    ("shape", "keep_ratio", "rank"),
    [((100, 200), 0.29, 29), ((768, 3072), 0.1, 76), ((192, 128), 0.3, 38), ((9, 9), 0.1, 1), ((7, 5), 1, 5)],
)
def test_the_rank_of_known_shapes(shape, keep_ratio, rank):
    assert rank_of(shape, keep_ratio) == rank


# --- threshold ---


def halved(elements: list, times: int) -> list[list]:
    """A strongest-first list split into its floor(half) strongest and the rest, ``times`` over."""
    if times == 0:
        return [elements]
    strong = len(elements) // 2
    return halved(elements[:strong], times - 1) + halved(elements[strong:], times - 1)


def slow_codes(row: list[float], groups: int) -> list[int]:
    """Group codes of one row from the paper's words: sort each sign by magnitude, halve, and halve again."""
    codes, times = [groups] * len(row), groups.bit_length() - 2
    for sign in (1, -1):
        strongest_first = sorted((i for i, x in enumerate(row) if sign * x > 0), key=lambda i: -abs(row[i]))
        for strength, part in enumerate(halved(strongest_first, times)):
            for i in part:
                codes[i] = groups - 1 - strength if sign > 0 else strength
    return codes


# Few distinct values, so that ties and zeros are frequent; some of very different sizes.
ROWS = st.lists(
    st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 1e-30, -1e30]), st.floats(-3, 3, width=32)),
    min_size=1,
    max_size=60,
)


@given(ROWS, st.sampled_from(GROUPS))
def test_codes_are_those_of_sorting_and_halving_with_ties_in_order_of_position(row, groups):
    assert threshold(torch.tensor([row]), groups)[0].tolist() == slow_codes(row, groups)


@given(ROWS, st.sampled_from(GROUPS))
def test_each_sign_is_halved_floor_first_down_to_the_groups(row, groups):
    counts = torch.bincount(threshold(torch.tensor([row]), groups)[0].long(), minlength=groups + 1).tolist()
    for sign, strongest_first in ((1, counts[groups // 2 : groups][::-1]), (-1, counts[: groups // 2])):
        total = sum(sign * x > 0 for x in row)
        sizes = [total]
        while len(sizes) < groups // 2:
            sizes = [size for n in sizes for size in (n // 2, n - n // 2)]
        assert strongest_first == sizes
    assert counts[groups] == sum(x == 0 for x in row)


@given(ROWS, st.sampled_from(GROUPS))
def test_a_stronger_group_holds_no_smaller_magnitude_than_a_weaker_one(row, groups):
    x = torch.tensor([row])
    codes = threshold(x, groups)
    values = [x[codes == code] for code in range(groups)]
    values = [group for group in values if len(group)]
    for lower, higher in pairwise(values):
        assert lower.max() <= higher.min()


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("value", [2.5, -2.5, 0.0])
def test_a_single_element_is_in_the_weakest_group_of_its_sign(groups, value):
    weakest = {2.5: groups // 2, -2.5: groups // 2 - 1, 0.0: groups}
    codes = threshold(torch.tensor([[value]]), groups)
    assert codes.dtype == torch.uint8
    assert codes.tolist() == [[weakest[value]]]


def test_seven_positive_elements_in_eight_groups_are_split_three_to_four_and_once_more():
    row = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7]])
    assert threshold(row, 8).tolist() == [[4, 4, 5, 5, 6, 6, 7]]
    assert threshold(-row, 8).tolist() == [[3, 3, 2, 2, 1, 1, 0]]


def test_rows_are_partitioned_each_by_itself_per_vector_and_together_per_matrix():
    x = torch.tensor([[1.0, 2, 3, 4], [10, 20, 30, 40]])
    assert threshold(rows(x, "vector")).tolist() == [[2, 2, 3, 3], [2, 2, 3, 3]]
    assert threshold(rows(x, "matrix")).tolist() == [[2, 2, 2, 2, 3, 3, 3, 3]]


@pytest.mark.parametrize("groups", [0, 1, 3, 16])
def test_other_numbers_of_groups_are_refused(groups):
    with pytest.raises(DTSError, match="choose one of"):
        threshold(torch.ones(1, 4), groups)


# --- scale and restore ---


@given(ROWS, st.sampled_from(GROUPS))
def test_rms_scales_keep_the_norm_of_the_row_and_of_every_group(row, groups):
    x = torch.tensor([row], dtype=torch.float64)
    codes = threshold(x, groups)
    values = restore(codes, scale(x, codes, groups, "rms"))
    assert values.norm().item() == pytest.approx(x.norm().item(), rel=1e-9)
    for code in range(groups):
        assert values[codes == code].norm().item() == pytest.approx(x[codes == code].norm().item(), rel=1e-9)


@given(ROWS, st.sampled_from(GROUPS), st.sampled_from(["rms", "mean"]))
def test_restored_elements_keep_their_signs_and_exact_zeros(row, groups, how):
    x = torch.tensor([row], dtype=torch.float64)
    codes = threshold(x, groups)
    assert torch.equal(restore(codes, scale(x, codes, groups, how)).sign(), x.sign())


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=60), st.sampled_from(GROUPS))
def test_mean_scales_make_the_squared_error_least(row, groups):
    x = torch.tensor([row], dtype=torch.float64)
    codes = threshold(x, groups)
    scales = scale(x, codes, groups, "mean")

    def error(values: Tensor) -> float:
        return (restore(codes, values) - x).square().sum().item()

    for step in (0.01, -0.01):
        for code in range(groups):
            other = scales.clone()
            other[0, code] += step
            # A step away from the mean costs exactly count * step^2.
            grown = error(other) - error(scales)
            assert grown == pytest.approx((codes == code).sum().item() * step**2, rel=1e-6, abs=1e-9)


def test_scales_of_known_groups():
    row = torch.tensor([[3.0, 4, 1, 1, -2, -6, -1, 0]])
    codes = threshold(row)
    assert codes.tolist() == [[3, 3, 2, 2, 1, 0, 1, 4]]
    assert scale(row, codes, how="mean").tolist() == [[-6, -1.5, 1, 3.5]]
    assert torch.allclose(scale(row, codes, how="rms"), torch.tensor([[-6, -(2.5**0.5), 1, 12.5**0.5]]))


def test_an_empty_group_has_the_scale_zero():
    row = torch.tensor([[1.0, 2, 0]])
    assert scale(row, threshold(row)).tolist() == [[0, 0, 1, 2]]


def test_each_row_has_its_own_scales_in_its_own_dtype():
    x = torch.tensor([[1.0, -1, 2, -2], [10, -10, 20, -20]])
    for dtype in (torch.float32, torch.float64):
        scales = scale(x.to(dtype), threshold(x))
        assert scales.dtype == dtype
        assert torch.allclose(scales, torch.tensor([[-2.0, -1, 1, 2], [-20, -10, 10, 20]], dtype=dtype))


def test_an_unknown_scale_is_refused():
    with pytest.raises(DTSError, match="choose rms or mean"):
        scale(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.uint8), 4, "median")
