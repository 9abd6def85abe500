"""Base merges: average, Task Arithmetic, TIES, DARE, TSV-M, Iso-C, Consensus."""

import contextlib
import math
import re
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dts_mini import DTSError, StateError, average, consensus, dare, iso_c, task_arithmetic, ties, tsv_m
from dts_mini.core.layout import difference
from dts_mini.core.merging import MERGES

WITH_BASE = [task_arithmetic, ties, dare, tsv_m, iso_c, consensus]


def close(x: dict, y: dict, tolerance: float = 1e-6) -> bool:
    return list(x) == list(y) and all(torch.allclose(x[n], y[n], rtol=tolerance, atol=tolerance) for n in x)


def state(values: list[float]) -> dict:
    """A float64 state dict of a vector and a matrix, so that a rule over all tensors is seen to be one."""
    x = torch.tensor(values, dtype=torch.float64)
    return {"v": x[:3], "m": x[3:].reshape(1, -1)}


def flat(found: dict) -> list[float]:
    return torch.cat([found["v"], found["m"].reshape(-1)]).tolist()


# Eighths: their sums are exact, so that a sign is never decided by rounding; ties and zeros are frequent.
NUMBER = st.integers(-40, 40).map(lambda i: i / 8)


@st.composite
def problems(draw, size: int = 9):
    """A base and one to five experts, as lists."""
    values = st.lists(NUMBER, min_size=size, max_size=size)
    return draw(values), draw(st.lists(values, min_size=1, max_size=5))


# --- average ---


@given(problems())
def test_the_average_is_the_mean_of_every_element(problem):
    _, experts = problem
    wanted = [sum(column) / len(experts) for column in zip(*experts, strict=True)]
    assert flat(average([state(e) for e in experts])) == pytest.approx(wanted)


def test_the_average_of_equal_experts_is_that_expert(expert):
    assert close(average([expert] * 5), expert)
    assert all(torch.equal(tensor, expert[name]) for name, tensor in average([expert]).items())


@pytest.mark.parametrize("count", [1, 3, 5, 7, 8, 20])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_elements_that_are_equal_in_all_experts_do_not_drift_in_the_average(count, dtype):
    """The sum of n equal numbers over n is not that number in floating point: what was frozen would come out moved."""
    frozen = torch.randn(500, generator=torch.Generator().manual_seed(0)).to(dtype)
    experts = [{"w": frozen + torch.tensor([0.0] * 400 + [i] * 100).to(dtype)} for i in range(count)]
    found = average(experts)["w"]
    assert torch.equal(found[:400], frozen[:400]) and (count == 1 or not torch.equal(found[400:], frozen[400:]))


# --- Task Arithmetic ---


@given(problems(), st.sampled_from([0.0, 0.3, 1.0, -1.0]))
def test_task_arithmetic_adds_the_scaled_sum_of_the_task_vectors(problem, coefficient):
    base, experts = problem
    wanted = [b + coefficient * sum(x - b for x in column) for b, *column in zip(base, *experts, strict=True)]
    found = task_arithmetic(state(base), [state(e) for e in experts], coefficient=coefficient)
    assert flat(found) == pytest.approx(wanted)


def test_task_arithmetic_is_linear_in_its_coefficient_and_in_the_experts(base, experts):
    def step(several, coefficient):
        found = task_arithmetic(base, several, coefficient=coefficient)
        return {n: found[n] - base[n] for n in base}

    half, whole = step(experts, 0.5), step(experts, 1.0)
    apart = [step([expert], 1.0) for expert in experts]
    assert close({n: 2 * half[n] for n in half}, whole, 1e-5)
    assert close({n: sum(one[n] for one in apart) for n in base}, whole, 1e-5)


def test_task_arithmetic_with_one_over_n_is_the_average(base, experts):
    assert close(task_arithmetic(base, experts, coefficient=1 / len(experts)), average(experts), 1e-5)


# --- TIES ---


def slow_ties(base, experts, density, coefficient, reduce):
    """TIES element by element, from the paper's words and its authors' rules: trim, elect, disjoint merge."""
    vectors = [[x - b for x, b in zip(expert, base, strict=True)] for expert in experts]
    for vector in vectors:
        rising = sorted(map(abs, vector))
        least = rising[max(0, len(rising) - int(density * len(rising)) - 1)]
        vector[:] = [x if abs(x) >= least else 0 for x in vector]
    signs = [(sum(column) > 0) - (sum(column) < 0) for column in zip(*vectors, strict=True)]
    where_zero = 1 if sum(signs) > 0 else -1
    merged = []
    for b, sign, *column in zip(base, signs, *vectors, strict=True):
        agree = [x for x in column if x * (sign or where_zero) > 0]
        value = sum(agree) / (max(1, len(agree)) if reduce == "mean" else 1)
        merged.append(b + coefficient * value)
    return merged


@given(
    problems(),
    st.sampled_from([0.1, 0.2, 0.5, 0.8, 0.9, 1.0]),
    st.sampled_from([0.3, 1.0]),
    st.sampled_from(["sum", "mean"]),
)
def test_ties_is_what_a_slow_reference_finds_element_by_element(problem, density, coefficient, reduce):
    base, experts = problem
    found = ties(state(base), [state(e) for e in experts], density=density, coefficient=coefficient, reduce=reduce)
    assert flat(found) == pytest.approx(slow_ties(base, experts, density, coefficient, reduce))


def test_ties_of_one_whole_expert_at_coefficient_1_is_that_expert(base, expert):
    for reduce in ("sum", "mean"):
        assert close(ties(base, [expert], density=1, coefficient=1, reduce=reduce), expert)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("density", "kept"),
    [(0.1, 101), (0.2, 201), (0.9, 901), (0.2004, 201), (0.1999, 200), (0.0005, 1), (1e-12, 1), (1, 1000)],
)
def test_trimming_counts_over_all_tensors_together_as_the_authors_code_does(density, kept, dtype):
    """The (n - int(density * n))-th in rising order stays too: one more than a whole share."""
    generator = torch.Generator().manual_seed(0)
    vector = (torch.randperm(1000, generator=generator) + 1).to(dtype) * (-1.0) ** torch.arange(1000)
    base = {"small": torch.zeros(10, 10, dtype=dtype), "large": torch.zeros(900, dtype=dtype)}
    expert = {"small": vector[:100].reshape(10, 10), "large": vector[100:]}
    found = ties(base, [expert], density=density, coefficient=1)
    found = torch.cat([found["small"].reshape(-1), found["large"]])
    assert torch.equal(found, torch.where(vector.abs() > 1000 - kept, vector, 0))


def test_trimming_tells_float64_magnitudes_apart_that_float32_cannot():
    vector = 1 + 1e-12 * torch.arange(10, dtype=torch.float64)
    found = ties({"w": torch.zeros(10, dtype=torch.float64)}, [{"w": vector}], density=0.2, coefficient=1)["w"]
    assert found.tolist() == [0] * 7 + vector[7:].tolist()


def test_elements_that_tie_with_the_last_one_kept_all_stay():
    vector = torch.tensor([1.0, -2, 2, 2, 3])
    found = ties({"w": torch.zeros(5)}, [{"w": vector}], density=0.4, coefficient=1)["w"]
    assert found.tolist() == [0, -2, 2, 2, 3]


def test_each_position_elects_the_sign_of_the_larger_mass_and_the_others_are_left_out():
    base = {"w": torch.zeros(4)}
    experts = [{"w": torch.tensor(w)} for w in ([3.0, -1, 1, 2], [-1.0, -2, -1, 0], [-1.0, 4, 0, 4])]
    summed = ties(base, experts, density=1, coefficient=1)["w"]
    mean = ties(base, experts, density=1, coefficient=1, reduce="mean")["w"]
    assert summed.tolist() == [3, 4, 1, 6]  # where the values cancel, the sign that most positions elected
    assert mean.tolist() == [3, 4, 1, 3]  # of those that agree: the zero of the second expert does not count


@pytest.mark.parametrize("order", [1, -1])
def test_values_that_cancel_take_the_sign_of_most_positions_of_the_whole_model(order):
    """Counted in positions, not in mass; in another tensor than theirs; a draw falls to the negative."""
    cancels = [torch.tensor([2.0]), torch.tensor([-2.0])]
    for others, wanted in ([1.0, 1.0, -9.0], 2), ([-1.0, -1.0, 9.0], -2), ([1.0, -1.0], -2), ([0.0, 0.0], -2):
        vote = torch.tensor(others)
        experts = [{"a": cancel, "z": vote} for cancel in cancels[::order]]
        found = ties({"a": torch.zeros(1), "z": torch.zeros(len(others))}, experts, density=1, coefficient=1)
        assert found["a"].item() == wanted


def test_votes_are_counted_to_the_last_one_where_float32_cannot_count():
    """2^24 + 1 positions elect the positive sign and 2^24 the negative: one more, which a float32 sum loses."""
    votes = {"most": torch.ones(1).expand(2**24 + 1), "rest": -torch.ones(1).expand(2**24)}
    base = {"cancels": torch.zeros(1), **{name: torch.zeros(1).expand(len(x)) for name, x in votes.items()}}
    nothing = {**base, "cancels": torch.tensor([-2.0])}
    found = ties(base, [{"cancels": torch.tensor([2.0]), **votes}, nothing], density=1, coefficient=1)
    assert found["cancels"].item() == 2


# --- DARE ---


def test_dare_without_dropping_is_task_arithmetic(base, experts):
    found, wanted = dare(base, experts, drop=0), task_arithmetic(base, experts)
    assert all(torch.equal(found[n], wanted[n]) for n in base)


def test_dare_drops_the_given_share_and_rescales_what_stays():
    base, expert = {"w": torch.zeros(20_000)}, {"w": torch.ones(20_000)}
    found = dare(base, [expert], drop=0.75, coefficient=1)["w"]
    assert found.unique().tolist() == [0, 4]
    assert (found == 0).float().mean().item() == pytest.approx(0.75, abs=0.02)  # over five standard deviations


def test_dare_is_task_arithmetic_on_average_over_seeds():
    base = {"w": torch.zeros(50)}
    experts = [{"w": torch.linspace(-2, 2, 50)}, {"w": torch.linspace(1, 3, 50)}]
    found = torch.stack([dare(base, experts, drop=0.5, coefficient=1, seed=seed)["w"] for seed in range(1000)])
    wanted = task_arithmetic(base, experts, coefficient=1)["w"]
    # At drop 1/2 an element's standard deviation is the task vector's own size.
    spread = torch.stack([e["w"] for e in experts]).square().sum(0).sqrt() / math.sqrt(1000)
    assert ((found.mean(0) - wanted).abs() <= 4.5 * spread + 1e-6).all()


def test_dare_drops_apart_in_every_expert_and_tensor():
    base = {"a": torch.zeros(2000), "b": torch.zeros(2000)}
    expert = {name: torch.ones(2000) for name in base}
    found = dare(base, [expert, expert], drop=0.5, coefficient=1)
    assert found["a"].unique().tolist() == [0, 2, 4], "one mask for both experts gives only 0 and 4"
    assert not torch.equal(found["a"], found["b"])


def test_dare_draws_in_the_order_of_names_and_not_of_the_state_dict(base, experts):
    turned = lambda state: dict(reversed(state.items()))
    found, again = dare(base, experts), dare(turned(base), [experts[0], *map(turned, experts[1:])])
    assert list(again) == list(base)[::-1]
    assert all(torch.equal(found[n], again[n]) for n in base)


def test_dare_depends_on_its_seed_alone(base, experts):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = dare(base, experts)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    second, other = dare(base, experts), dare(base, experts, seed=1)
    assert all(torch.equal(first[n], second[n]) for n in base)
    assert not torch.equal(first["embedding"], other["embedding"])


# --- TSV-M ---


def polar(matrix):
    """A (A^T A)^(-1/2), the orthonormal matrix nearest to A, by eigenvalues instead of an SVD; A has full rank."""
    if matrix.shape[0] < matrix.shape[1]:
        return polar(matrix.T).T
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    return matrix @ vectors @ torch.diag(values.rsqrt()) @ vectors.T


def random_matrices(count, shape=(12, 9), seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step(method, matrices, **options):
    """What a merge of these task matrices adds to a base of zeros."""
    base = {"w": torch.zeros_like(matrices[0])}
    return method(base, [{"w": matrix} for matrix in matrices], **options)["w"]


@pytest.mark.parametrize(("count", "shape"), [(2, (12, 9)), (3, (9, 12)), (4, (7, 7)), (3, (2, 5))])
def test_tsv_m_is_what_a_dense_reference_finds(count, shape):
    matrices = random_matrices(count, shape)
    rank = max(1, min(shape) // count)
    parts = [torch.linalg.svd(matrix, full_matrices=False) for matrix in matrices]
    u = torch.cat([part[0][:, :rank] for part in parts], 1)
    s = torch.cat([part[1][:rank] for part in parts])
    vh = torch.cat([part[2][:rank] for part in parts])
    assert torch.allclose(step(tsv_m, matrices), polar(u) @ torch.diag(s) @ polar(vh), atol=1e-9)


def test_tsv_m_of_tasks_that_share_no_direction_is_the_sum_of_their_truncations():
    one, two = torch.zeros(2, 8, 8, dtype=torch.float64)
    one[:4, :4], two[4:, 4:] = random_matrices(2, (4, 4))
    assert torch.allclose(step(tsv_m, torch.stack([one, two])), one + two, atol=1e-9)  # rank 4 of 8, and no more


@pytest.mark.parametrize("count", [1, 2, 4])
def test_tsv_m_of_one_expert_several_times_is_its_truncation(count):
    (matrix,) = random_matrices(1, (12, 8))
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = 8 // count
    wanted = u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]
    assert torch.allclose(step(tsv_m, matrix.expand(count, -1, -1)), wanted, atol=1e-9)


def test_an_expert_that_learnt_nothing_takes_no_direction_from_the_others_in_tsv_m():
    one, nothing = random_matrices(1, (8, 8))[0], torch.zeros(8, 8, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(one)
    wanted = u[:, :4] @ torch.diag(s[:4]) @ vh[:4]
    assert torch.allclose(step(tsv_m, torch.stack([nothing, one])), wanted, atol=1e-9)


# --- Iso-C ---


@given(st.integers(1, 4), st.integers(0, 99))
def test_iso_c_has_the_directions_of_the_sum_and_one_singular_value_their_mean(count, seed):
    matrices = random_matrices(count, seed=seed)
    total, found = matrices.sum(0), step(iso_c, matrices)
    mean = torch.linalg.svdvals(total).mean()
    assert torch.allclose(found, mean * polar(total), atol=1e-8)
    assert torch.allclose(torch.linalg.svdvals(found), mean.expand(9), atol=1e-9)


def test_iso_c_lifts_no_direction_that_the_sum_does_not_have():
    (left,), (right,) = random_matrices(1, (12, 2)), random_matrices(1, (2, 9), seed=1)
    found = torch.linalg.svdvals(step(iso_c, (left @ right)[None]))
    wanted = torch.linalg.svdvals(left @ right)[:2].mean()
    assert torch.allclose(found[:2], wanted.expand(2), atol=1e-9) and found[2:].max() < 1e-9


@pytest.mark.parametrize("method", [tsv_m, iso_c])
def test_merges_of_matrices_average_all_other_tensors(method, base, experts):
    found, mean = method(base, experts), average(experts)
    others = [name for name in base if base[name].dim() != 2]
    assert len(others) == 4 and all(torch.allclose(found[n], mean[n], rtol=1e-5, atol=1e-6) for n in others)


@pytest.mark.parametrize("method", [tsv_m, iso_c])
def test_an_empty_matrix_stays_empty(method, base, experts):
    several = [{**one, "none": torch.zeros(0, 3)} for one in (base, *experts)]
    assert method(several[0], several[1:])["none"].shape == (0, 3)


# --- what half precision rounds ---

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("method", [tsv_m, iso_c])
@pytest.mark.parametrize(("start", "ends"), [(None, HALVES[:1]), (None, HALVES[1:]), (torch.float32, HALVES)])
def test_merges_of_low_rank_in_half_precision_are_those_in_float32_but_for_rounding(method, start, ends):
    """Rounded weights make task matrices of full rank: by float32's eps all of that is taken for directions."""
    left, right = random_matrices(3, (96, 4), seed=1), random_matrices(3, (4, 64), seed=2)
    base = 0.05 * random_matrices(1, (96, 64), seed=3)[0].float()
    experts = [base + 0.003 * (a @ b).float() for a, b in zip(left, right, strict=True)]
    experts.append(experts[0])  # one task twice, perhaps rounded otherwise
    low = base.to(start or ends[0])
    halved = [{"w": one.to(ends[i % len(ends)])} for i, one in enumerate(experts)]
    step = method({"w": low}, halved)["w"].float() - low.float()
    wanted = method({"w": base}, [{"w": one} for one in experts])["w"] - base
    assert (step - wanted).norm() < 0.05 * wanted.norm()


PAIRS = [(x, y) for x in (*HALVES, torch.float32, torch.float64) for y in (*HALVES, torch.float32) if x != y]


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
@pytest.mark.parametrize(("stored", "dtype"), PAIRS)
def test_what_an_expert_stored_in_fewer_bits_only_rounded_is_left_alone_as_a_delta_does(method, stored, dtype):
    """The elements that ``difference`` finds unchanged; of the rows that changed at least one did."""
    base = {
        "w": random_matrices(1, (12, 10))[0].to(stored),
        "v": random_matrices(1, (30, 1), seed=1)[0, :, 0].to(stored),
    }
    experts = [{n: x.to(dtype) for n, x in base.items()} for _ in range(3)]
    for one in experts:
        one["w"][:4], one["v"][:9] = one["w"][:4] + 1, one["v"][:9] + 1
    found = method([base, *experts]) if method is average else method(base, experts)
    for n, x in base.items():
        changed = torch.stack([difference(x, one[n]) != 0 for one in experts]).any(0)
        rows = changed if x.dim() == 1 else changed.any(1)
        if torch.promote_types(stored, dtype) != dtype:
            assert rows.tolist() == [i < {"w": 4, "v": 9}[n] for i in range(len(x))]
        assert torch.equal(found[n][~rows], x[~rows]) and found[n].dtype == stored
        assert method in (ties, dare, consensus) or not torch.equal(found[n][rows], x[rows])


@pytest.mark.parametrize(("stored", "dtype"), PAIRS)
def test_the_average_of_one_expert_in_two_dtypes_is_that_expert(stored, dtype):
    expert = {"w": random_matrices(1, (40, 30))[0].to(stored)}
    other = {"w": expert["w"].to(dtype)}
    assert torch.equal(average([expert, other])["w"], expert["w"])
    assert torch.equal(average([other, expert, expert])["w"], other["w"])


# --- rank, and numbers at the edge ---


def conditioned(shape, least, dtype=torch.float64, seed=0):
    """A random matrix whose singular values fall from 1 to ``least``."""
    u, _, vh = torch.linalg.svd(random_matrices(1, shape, seed)[0], full_matrices=False)
    return (u * torch.logspace(0, math.log10(least), min(shape), dtype=torch.float64) @ vh).to(dtype)


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 3e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("shape", [(64, 64), (200, 40)])
def test_iso_c_leaves_out_no_direction_of_a_matrix_of_full_rank(shape, dtype, least):
    """However small its singular value is, as long as the dtype knows it: all of them are lifted to the mean."""
    matrix = conditioned(shape, least, dtype)
    s = torch.linalg.svdvals(step(iso_c, matrix[None]).double())
    assert torch.allclose(s, torch.linalg.svdvals(matrix.double()).mean().expand(min(shape)), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "rank", "size"), [((64, 64), 4, 1.0), ((200, 40), 2, 0.1), ((40, 200), 3, 0.01)])
def test_what_rounding_adds_to_experts_of_low_rank_is_no_direction(shape, rank, size, dtype):
    """theta_0 + B A, rounded: the task matrices have full rank in dust, of which neither merge may make anything."""
    draw = torch.Generator().manual_seed(0)
    randn = lambda *s: torch.randn(*s, generator=draw, dtype=torch.float64)
    theta_0, count = randn(*shape).to(dtype), 3
    products = [size * randn(shape[0], rank) @ randn(rank, shape[1]) / shape[1] ** 0.5 for _ in range(count)]
    experts = [{"w": (theta_0.double() + product).to(dtype)} for product in products]
    for method, wanted in ((iso_c, iso_c), (tsv_m, tsv_m)):
        found = (method({"w": theta_0}, experts)["w"] - theta_0).double()
        exact = step(wanted, torch.stack(products))
        assert torch.linalg.matrix_rank(exact, rtol=1e-9) == rank * count
        assert (found - exact).norm() < 1e-3 * exact.norm()


def test_tasks_that_share_their_directions_keep_them_and_get_no_others_in_tsv_m():
    """As LoRA adapters with one frozen factor: the same column space in every expert, but for rounding."""
    draw = torch.Generator().manual_seed(0)
    left, theta_0 = torch.randn(60, 4, generator=draw), torch.randn(60, 50, generator=draw)
    products = [left @ torch.randn(4, 50, generator=draw) for _ in range(3)]
    found = tsv_m({"w": theta_0}, [{"w": theta_0 + product} for product in products])["w"] - theta_0
    assert (found - left @ torch.linalg.lstsq(left, found).solution).norm() < 1e-3 * found.norm()


@pytest.mark.parametrize("method", [tsv_m, iso_c])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e37), (torch.float64, 1e307), (torch.float64, 1e-307)])
def test_merges_of_matrices_are_right_near_the_largest_and_the_smallest_float(method, dtype, size):
    matrices = random_matrices(2, (6, 5)).to(dtype)
    wanted, found = step(method, matrices), step(method, matrices * size)
    assert torch.allclose(found / size, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", WITH_BASE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_merge_that_its_dtype_cannot_hold_is_refused_by_the_tensors_name(method, dtype):
    """Differences that are infinite in the dtype of the computation, or a sum that the result's cannot hold."""
    large = torch.full((2, 3), 0.9 * torch.finfo(dtype).max, dtype=dtype)
    for start in -large, 0 * large:
        base = {"v": torch.ones(2, dtype=dtype), "w.large": start}
        experts = [{"v": torch.ones(2, dtype=dtype), "w.large": large}] * 2
        with pytest.raises(StateError, match=rf"tensor 'w.large': .* do not fit into {dtype}"):
            method(base, experts, coefficient=9, **({"drop": 0.1} if method is dare else {}))


@pytest.mark.parametrize("method", WITH_BASE)
def test_rows_and_columns_that_no_expert_changed_stay_as_they_are(method):
    """Where the base is zero, as a row of padding is, the rounding of a product would be seen."""
    base = {"w": torch.zeros(12, 10)}
    experts = [{"w": base["w"].clone()} for _ in range(3)]
    for i, one in enumerate(experts):
        one["w"][2:9, 1:7] = random_matrices(1, (7, 6), seed=i)[0].float()
    found = method(base, experts, coefficient=1)["w"]
    assert found[:2].eq(0).all() and found[9:].eq(0).all() and found[:, :1].eq(0).all() and found[:, 7:].eq(0).all()
    assert found[2:9, 1:7].any()


# --- Consensus ---


@given(problems(), st.sampled_from([0.0, 0.2, 0.4, 1.0]), st.integers(1, 5))
def test_consensus_is_what_a_slow_reference_finds_element_by_element(problem, mask_lambda, used_by):
    base, experts = problem
    used_by = min(used_by, len(experts))
    wanted = []
    for b, *column in zip(base, *experts, strict=True):
        total = sum(x - b for x in column)
        users = sum(abs(x - b) > mask_lambda * abs(total - (x - b)) for x in column)
        wanted.append(b + 0.3 * total if users >= used_by else b)
    options = {"mask_lambda": mask_lambda, "used_by": used_by}
    found = consensus(state(base), [state(e) for e in experts], coefficient=0.3, **options)
    assert flat(found) == pytest.approx(wanted)


def test_a_task_uses_no_position_where_it_is_just_as_large_as_the_mask_asks():
    """|tau_n| > lambda |the others'|: equal is not enough, as in the TALL masks of the peers."""
    experts = [{"w": torch.tensor([1.0, 1.5])}, {"w": torch.tensor([2.0, 2.0])}]
    found = consensus({"w": torch.zeros(2)}, experts, mask_lambda=0.5, coefficient=1)["w"]
    assert found.tolist() == [0, 3.5]


def test_consensus_of_positions_that_one_task_suffices_for_drops_only_what_no_task_uses(base, experts):
    found, whole = consensus(base, experts, mask_lambda=0, coefficient=0.3), task_arithmetic(base, experts)
    assert close(found, whole)  # lambda 0: every task uses every position
    few = consensus(base, experts, used_by=len(experts), mask_lambda=0.6)["embedding"]
    some = consensus(base, experts, used_by=1, mask_lambda=0.6)["embedding"]
    stays = lambda x: (x == base["embedding"]).float().mean()
    assert stays(few) > stays(some) + 0.2


# --- all of them ---


@pytest.mark.parametrize("method", [average, tsv_m, iso_c])
def test_one_expert_gives_that_expert_back(method, base, expert):
    if method is iso_c:  # it flattens the spectrum: an expert whose matrices have a flat one already
        expert = {n: base[n] + 0.1 * torch.eye(*t.shape) if t.dim() == 2 else expert[n] for n, t in base.items()}
    assert close(merge(method, base, [expert]), expert, 1e-5)


def merge(method, base, experts):
    return method(experts) if method is average else method(base, experts)


@pytest.mark.parametrize("method", [average, task_arithmetic, ties, tsv_m, iso_c, consensus])
def test_the_order_of_the_experts_does_not_matter(method, base, experts):
    assert close(merge(method, base, experts), merge(method, base, experts[::-1]))


@pytest.mark.parametrize("method", WITH_BASE)
def test_experts_that_are_the_base_leave_it_as_it_is(method, base):
    assert all(torch.equal(tensor, base[n]) for n, tensor in method(base, [base, base]).items())


@pytest.mark.parametrize("method", WITH_BASE)
def test_coefficient_0_is_the_base(method, base, experts):
    assert close(method(base, experts, coefficient=0.0), base)


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_merge_is_in_the_dtype_it_came_in_and_computed_in_float32_or_better(method, dtype, base, experts):
    low = [{n: t.to(dtype) for n, t in one.items()} for one in (base, *experts)]
    found = merge(method, low[0], low[1:])
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    better = [{n: t.double() for n, t in one.items()} for one in low]
    wanted = merge(method, better[0], better[1:])
    # One rounding, that of the result, half a unit in the last place.
    eps = max(torch.finfo(dtype).eps, 1e-6 if dtype == torch.float64 else 0)
    # Of the singular vectors of the three tasks bfloat16 knows too little to tell whether they share a direction.
    names = [n for n in base if not (method is tsv_m and dtype is torch.bfloat16 and base[n].dim() == 2)]
    for n in names:
        error = (found[n].double() - wanted[n]).abs()
        assert (error <= 0.51 * eps * wanted[n].abs() + 1e-6).float().mean() > 0.99, n  # TIES may trim a tie otherwise


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
def test_integer_tensors_are_those_of_the_first_argument_and_nothing_shares_memory(method, base, experts):
    base = {**base, "steps": torch.tensor([7])}
    experts = [{**expert, "steps": torch.tensor([i])} for i, expert in enumerate(experts)]
    before = [{n: t.clone() for n, t in one.items()} for one in (base, *experts)]
    found = merge(method, base, experts)
    assert found["steps"].tolist() == ([0] if method is average else [7])
    for tensor in found.values():
        tensor.zero_()
    for one, old in zip((base, *experts), before, strict=True):
        assert all(torch.equal(one[n], old[n]) for n in one)


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: e.pop("embedding"), "expert 2 does not fit .* lacks 'embedding'"),
        (lambda e: e.update(extra=torch.ones(1)), "expert 2 does not fit .* has beyond it 'extra'"),
        (lambda e: e.update(embedding=torch.ones(1)), r"'embedding' has shape \(1,\) in the expert 2"),
        (lambda e: e["embedding"].view(-1)[5].fill_(float("nan")), "expert 2, tensor 'embedding': 1 of 204"),
        (lambda e: e.clear(), "expert 2 is an empty state dict"),
    ],
)
def test_an_expert_that_does_not_fit_is_refused_by_number_and_tensor(method, base, experts, spoil, message):
    spoil(experts[1])
    with pytest.raises(StateError, match=message):
        merge(method, base, experts)


@pytest.mark.parametrize("method", WITH_BASE)
def test_a_bad_base_is_refused_as_the_base(method, base, experts):
    base["embedding"][0, 0] = float("inf")
    with pytest.raises(StateError, match="base, tensor 'embedding'"):
        method(base, experts)


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
def test_no_experts_are_refused(method, base):
    with pytest.raises(DTSError, match="no experts"):
        merge(method, base, [])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (ties, {"density": 0}, r"density is 0: it must lie in \(0, 1\]"),
        (ties, {"density": 1.1}, "density is 1.1"),
        (ties, {"density": float("nan")}, "density is nan"),
        (ties, {"reduce": "max"}, "reduce is 'max': choose sum or mean"),
        (dare, {"drop": 1}, r"drop is 1: it must lie in \[0, 1\)"),
        (dare, {"drop": -0.1}, "drop is -0.1"),
        (dare, {"drop": float("nan")}, "drop is nan"),
        (consensus, {"used_by": 0}, "used_by is 0: it must lie between 1 and the number of experts, 3"),
        (consensus, {"used_by": 4}, "used_by is 4"),
        (consensus, {"mask_lambda": -0.1}, "mask_lambda is -0.1: it must be 0 or more"),
        (consensus, {"mask_lambda": float("nan")}, "mask_lambda is nan"),
    ],
)
def test_an_option_out_of_range_is_refused(method, options, message, base, experts):
    with pytest.raises(DTSError, match=message):
        method(base, experts, **options)


def test_parameters_with_gradients_are_welcome_and_results_have_none(base, experts):
    base, *experts = ({n: torch.nn.Parameter(t) for n, t in one.items()} for one in (base, *experts))
    for method in MERGES.values():
        assert not any(tensor.requires_grad for tensor in merge(method, base, experts).values())


# --- what the surroundings must not change ---


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


SURROUNDINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "cpu": lambda: default_device("cpu"),
    "meta": lambda: default_device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
@pytest.mark.parametrize("around", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_a_merge_has_the_same_bits_under_other_defaults_of_torch(method, around, base, experts):
    base, *experts = ({**one, "bn.running_var": one["norm.weight"].abs()} for one in (base, *experts))
    wanted = merge(method, base, experts)
    with around():
        found = merge(method, base, experts)
    assert all(torch.equal(found[n], wanted[n]) and found[n].dtype == wanted[n].dtype for n in base)


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
def test_tensors_with_the_negative_bit_are_as_good_as_others(method, base, experts):
    def turned(state):
        return {n: torch._neg_view(-t) if t.dim() != 1 else torch.complex(t, -t).conj().imag for n, t in state.items()}

    plain = [{**one, "steps": torch.tensor([5, 6]), "mask": torch.full((2,), -math.inf)} for one in (base, *experts)]
    other = [turned({n: t for n, t in one.items() if n not in ("steps", "mask")}) for one in plain]
    for one in other:
        one |= {"steps": torch._neg_view(torch.tensor([-5, -6])), "mask": torch._neg_view(torch.full((2,), math.inf))}
    assert all(t.is_neg() for one in other for t in one.values())
    wanted, found = merge(method, plain[0], plain[1:]), merge(method, other[0], other[1:])
    assert all(torch.equal(found[n], wanted[n]) and not found[n].is_neg() for n in wanted)


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
def test_the_order_of_names_changes_nothing_but_the_order_of_the_result(method, base, experts):
    turned = [dict(reversed(one.items())) for one in (base, *experts)]
    found, wanted = merge(method, turned[0], turned[1:]), merge(method, base, experts)
    assert list(found) == list(base)[::-1] and all(torch.equal(found[n], wanted[n]) for n in base)


# --- what is no weight ---


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
@pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan])
def test_a_constant_that_is_not_finite_is_kept_and_changes_no_other_tensor(method, value, base, experts):
    mask = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), value)
    found = merge(method, {**base, "mask": mask}, [{**one, "mask": mask.clone()} for one in experts])
    assert torch.equal(found.pop("mask").nan_to_num(7.0), mask.nan_to_num(7.0))
    wanted = merge(method, base, experts)
    assert all(torch.equal(found[n], wanted[n]) for n in base)


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
def test_a_constant_of_other_bits_in_one_expert_is_refused(method, base, experts):
    masked = [{**one, "mask": torch.tensor([0.0, -math.inf])} for one in (base, *experts)]
    masked[2]["mask"] = torch.tensor([1.0, -math.inf])
    with pytest.raises(StateError, match="tensor 'mask': 1 of 2 values are NaN or infinite"):
        merge(method, masked[0], masked[1:])


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
def test_statistics_are_averaged_over_the_experts_and_no_variance_falls_below_zero(method, base, experts):
    """Variances that fall from base to expert: extrapolated, they would be negative."""
    statistics = {"bn.running_mean": [5.0, 1.0, 2.0, 3.0], "bn.running_var": [9.0, 0.1, 0.2, 0.6]}
    several = [
        {**one, **{n: torch.full((6, 6)[:1], x[i]) for n, x in statistics.items()}, "bn.num_batches_tracked": count}
        for i, (one, count) in enumerate(zip((base, *experts), torch.tensor([0, 10, 20, 33]), strict=True))
    ]
    found = merge(method, several[0], several[1:])
    assert found["bn.running_mean"].tolist() == [2.0] * 6
    assert torch.allclose(found["bn.running_var"], torch.tensor(0.3)) and found["bn.num_batches_tracked"] == 21
    wanted = merge(method, base, experts)
    assert all(torch.equal(found[n], wanted[n]) for n in base), "statistics take part in no count of the weights"


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_the_mean_of_integer_statistics_is_rounded_to_the_nearest(method, dtype, base, experts):
    counts = torch.tensor([[0, 0, 0, 0], [10, 7, 1, 0], [11, 7, 0, 0], [11, 8, 0, 0]])
    several = [{**one, "bn.running_count": x.to(dtype)} for one, x in zip((base, *experts), counts, strict=True)]
    found = merge(method, several[0], several[1:])["bn.running_count"]
    assert found.dtype == dtype and found.tolist() == counts[1:].double().mean(0).round().tolist() == [11, 7, 0, 0]


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
def test_a_quantised_model_is_refused_by_the_tensors_name(method, base, experts):
    for one in (base, *experts):
        one |= {"proj.qweight": torch.ones(4, 4, dtype=torch.int8), "proj.scales": torch.ones(4)}
    with pytest.raises(StateError, match=r"tensor 'proj.qweight': .*quantised .*dequantise"):
        merge(method, base, experts)


@pytest.mark.parametrize("method", MERGES.values(), ids=MERGES)
def test_a_state_of_which_nothing_is_a_weight_is_merged_all_the_same(method):
    state = {"bn.running_var": torch.ones(3), "mask": torch.full((2,), -math.inf), "empty": torch.empty(0, 3)}
    found = merge(method, state, [state, state])
    assert all(torch.equal(found[n], state[n]) for n in state)


@pytest.mark.parametrize("method", [average, task_arithmetic], ids=["average", "task-arithmetic"])
def test_a_merge_that_adds_up_holds_one_experts_tensor_at_a_time(method, base, experts):
    """A state dict may be on disk: what was read for one expert is gone before the next one is read."""
    alive = weakref.WeakSet()

    class OnDisk(dict):
        def __getitem__(self, name):
            tensor = super().__getitem__(name).clone()
            alive.add(tensor)
            assert len(alive) <= 3, "the sum's last term and the new one, beside the base's"
            return tensor

    merge(method, OnDisk(base), [OnDisk(one) for one in [*experts, *experts]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("merge", [tsv_m, iso_c])
def test_what_stands_clear_of_the_rounding_of_half_precision_is_merged_as_in_float32(merge, dtype):
    g = torch.Generator().manual_seed(0)
    base = torch.randn(48, 40, generator=g).to(dtype)
    rounding = torch.finfo(dtype).eps * base.float().norm() / 40**0.5  # twice its largest singular value, about
    task = 1.2 * rounding * torch.linalg.qr(torch.randn(48, 40, generator=g)).Q
    expert = (base.float() + task).to(dtype)
    found = merge({"w": base}, [{"w": expert}])["w"].float() - base.float()
    wanted = merge({"w": base.float()}, [{"w": expert.float()}])["w"] - base.float()
    assert (found - wanted).norm() < 0.25 * wanted.norm()  # which is the rounding of the result


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("q.lora_A.weight", "q.lora_B.weight"),
        ("base_model.model.q.lora_A.default.weight", "base_model.model.q.lora_B.default.weight"),
        ("wte.lora_embedding_A", "wte.lora_embedding_B"),
        ("lora_unet_q.lora_down.weight", "lora_unet_q.lora_up.weight"),
        ("unet.q.lora.down.weight", "unet.q.lora.up.weight"),
        ("q.lora_A", "q.lora_B"),
    ],
)
@pytest.mark.parametrize("name", MERGES)
def test_factors_of_adapters_are_not_merged_unless_all_share_one_of_the_two(name, one, other):
    """The mean of products is no product of means; where one factor is shared it is."""
    draw = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.randn(shape, generator=draw) for shape in ((2, 9), (8, 2), (2, 9), (8, 2)))
    merge = MERGES[name] if name == "average" else lambda experts: MERGES[name](experts[0], experts)
    with pytest.raises(StateError, match=re.escape(f"tensors {one!r} and {other!r} are factors of LoRA adapters")):
        merge([{one: a, other: b}, {one: c, other: d}])
    merged = merge([{one: a, other: b}, {one: a, other: d}])
    assert torch.equal(merged[one], a)
    if name == "average":
        assert torch.allclose(merged[other] @ merged[one], (b @ a + d @ a) / 2, atol=1e-5)
    assert merge([{"q.lora_A": a, "k.lora_B": b}, {"q.lora_A": c, "k.lora_B": d}])  # of no pair
