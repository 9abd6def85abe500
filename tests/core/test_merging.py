"""Base merges: average, Task Arithmetic, TIES, DARE, TSV-M, Iso-C, Consensus."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dts_mini import DTSError, StateError, average, consensus, dare, iso_c, task_arithmetic, ties, tsv_m
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
    """TIES element by element, from the paper's words: trim, elect, disjoint merge."""
    keep = len(base) - math.floor((1 - Fraction(str(density))) * len(base))
    vectors = [[x - b for x, b in zip(expert, base, strict=True)] for expert in experts]
    for vector in vectors:
        least = sorted(map(abs, vector), reverse=True)[keep - 1]
        vector[:] = [x if abs(x) >= least else 0 for x in vector]
    merged = []
    for b, *column in zip(base, *vectors, strict=True):
        elected = sum(column)
        agree = [x for x in column if x * elected > 0]
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
    [(0.1, 100), (0.2, 200), (0.3, 300), (0.7, 700), (0.8, 800), (0.9, 900), (0.0005, 1), (1e-12, 1), (1, 1000)],
)
def test_trimming_keeps_exactly_the_largest_share_over_all_tensors_together(density, kept, dtype):
    """(1 - 0.9) * 1000 is 99.99999999999997 in floating point: 100 elements are meant to go."""
    generator = torch.Generator().manual_seed(0)
    vector = (torch.randperm(1000, generator=generator) + 1).to(dtype) * (-1.0) ** torch.arange(1000)
    base = {"small": torch.zeros(10, 10, dtype=dtype), "large": torch.zeros(900, dtype=dtype)}
    expert = {"small": vector[:100].reshape(10, 10), "large": vector[100:]}
    found = ties(base, [expert], density=density, coefficient=1)
    found = torch.cat([found["small"].reshape(-1), found["large"]])
    assert torch.equal(found, torch.where(vector.abs() > 1000 - kept, vector, 0))


def test_trimming_tells_float64_magnitudes_apart_that_float32_cannot():
    vector = 1 + 1e-12 * torch.arange(10, dtype=torch.float64)
    found = ties({"w": torch.zeros(10, dtype=torch.float64)}, [{"w": vector}], density=0.3, coefficient=1)["w"]
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
    assert summed.tolist() == [3, 4, 0, 6]  # where positive and negative cancel, nothing is elected
    assert mean.tolist() == [3, 4, 0, 3]  # of those that agree: the zero of the second expert does not count


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


# --- Consensus ---


@given(problems(), st.sampled_from([0.0, 0.2, 0.4, 1.0]), st.integers(1, 5))
def test_consensus_is_what_a_slow_reference_finds_element_by_element(problem, mask_lambda, used_by):
    base, experts = problem
    used_by = min(used_by, len(experts))
    wanted = []
    for b, *column in zip(base, *experts, strict=True):
        total = sum(x - b for x in column)
        users = sum(abs(x - b) >= mask_lambda * abs(total - (x - b)) for x in column)
        wanted.append(b + 0.3 * total if users >= used_by else b)
    options = {"mask_lambda": mask_lambda, "used_by": used_by}
    found = consensus(state(base), [state(e) for e in experts], coefficient=0.3, **options)
    assert flat(found) == pytest.approx(wanted)


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
    for n in base:
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
