"""Budgets: read rightly, kept, used, and never less for more."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dts_mini import DTSError, compress, storage
from dts_mini.core import dts as part
from dts_mini.core.budget import fit, in_bytes, water_fill
from dts_mini.core.dts import Settings, component_bytes

METHODS = ["dts", "drc"]


@pytest.mark.parametrize(("budget", "found"), [("1%", 100), (" 0.5 % ", 50), ("12.34%", 1234), (77, 77), (".7%", 70)])
def test_a_budget_is_bytes_or_a_share(budget, found):
    assert in_bytes(budget, 10_000) == found


@pytest.mark.parametrize("budget", ["1", "one %", "-1%", 0, -5, "0%", 0.01, True, None, "1e1%"])
def test_any_other_budget_is_refused(budget):
    with pytest.raises(DTSError, match="budget is"):
        in_bytes(budget, 10_000)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 50), st.integers(0, 40))
def test_fit_finds_the_largest_number_that_fits(most, guess, slope, offset):
    size = lambda number: offset + slope * number
    for budget in (offset, offset + slope * most // 2, offset + slope * most + 7):
        assert fit(size, budget, most, guess) == max(n for n in range(most + 1) if size(n) <= budget)


def test_fit_says_the_least_possible_budget():
    with pytest.raises(DTSError, match=r"the least possible is 1,234 bytes"):
        fit(lambda number: 1234 + number, 1000, 50, 10)


@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1),
)
def test_every_prefix_of_the_order_is_the_best_choice_of_its_cost(values):
    """Against all choices by brute force; components cost 1 byte in a, 2 in b, 3 in c."""
    costs = {"a": 1, "b": 2, "c": 3}
    values = {name: torch.tensor(sorted(v, reverse=True), dtype=torch.float64) for name, v in values.items()}
    order = water_fill(values, costs)
    gain = lambda counts: sum(values[name][1 : 1 + n].sum().item() for name, n in counts.items())
    cost = lambda counts: sum(costs[name] * n for name, n in counts.items())
    every = [
        dict(zip(values, counts, strict=True))
        for counts in itertools.product(*(range(len(v)) for v in values.values()))
    ]
    for length in range(len(order) + 1):
        chosen = {name: order[:length].count(name) for name in values}
        assert gain(chosen) >= max(gain(c) for c in every if cost(c) <= cost(chosen)) - 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", ["2%", "4%", "9%"])
def test_a_budget_is_never_exceeded_and_at_least_97_percent_of_it_is_used(layered, method, share):
    base, expert = layered
    delta = compress(base, expert, method=method, budget=share)
    limit = in_bytes(share, storage(delta).model)
    assert 0.97 * limit <= len(delta.to_bytes()) <= limit


@pytest.mark.parametrize("method", METHODS)
def test_a_larger_budget_gives_no_smaller_file_and_no_larger_error(layered, method):
    base, expert = layered
    sizes, errors = [], []
    for budget in (12_000, 12_100, 15_000, 20_000, 40_000):
        delta = compress(base, expert, method=method, budget=budget, norm=0.0)
        sizes.append(len(delta.to_bytes()))
        errors.append(
            sum(
                (expert[n] - base[n] - (0 if (r := delta.remainder(n)) is None else r)).square().sum() for n in base
            ).item()
        )
    assert sizes == sorted(sizes)
    assert all(later <= 1.02 * before for before, later in itertools.pairwise(errors))
    assert errors[-1] < 0.95 * errors[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_input_and_budget_give_the_same_bytes(layered, method):
    assert (
        compress(*layered, method=method, budget="3%").to_bytes()
        == compress(*layered, method=method, budget="3%").to_bytes()
    )


@pytest.mark.parametrize("method", METHODS)
def test_an_impossible_budget_is_refused_and_the_least_one_is_named_and_works(layered, method):
    with pytest.raises(DTSError, match="the least possible is") as raised:
        compress(*layered, method=method, budget=300)
    least = int(str(raised.value).split("possible is ")[1].split(" ")[0].replace(",", ""))
    assert len(compress(*layered, method=method, budget=least).to_bytes()) <= least


@pytest.mark.parametrize(("method", "own"), [("dts", {"keep_ratio": 0.1}), ("drc", {"notch": 800})])
def test_a_budget_beside_what_it_decides_is_refused(layered, method, own):
    with pytest.raises(DTSError, match=f"both a budget and {next(iter(own))}"):
        compress(*layered, method=method, budget="1%", **own)


def test_the_spectrum_decides_the_ranks(layered):
    """Of two matrices as large, the one whose components are stronger is given more of them."""
    base = {"flat": torch.zeros(64, 64), "steep": torch.zeros(64, 64)}
    basis = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q
    expert = {"flat": basis, "steep": basis @ torch.diag(0.5 ** torch.arange(64.0)) @ basis.T * 8}
    delta = compress(base, expert, budget=5_000, weight=0.0)
    assert delta.parts["flat"].rank > delta.parts["steep"].rank


@pytest.mark.parametrize("per", ["matrix", "vector"])
@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("shape", [(40, 24), (24, 64), (8, 8)])
def test_a_component_takes_in_a_file_what_it_is_reckoned_at(per, groups, shape):
    """Within a byte, by which packing rounds up."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    zero, own = {"w": torch.zeros(shape)}, {"per": per, "groups": groups}
    information = lambda rank: storage(compress(zero, {"w": x}, keep_ratio=rank / min(shape), **own)).information
    for rank in (2, 5):
        each = component_bytes(shape, Settings(**own))
        assert abs(information(rank + 2) - information(rank) - 2 * each) <= 1


def test_where_errors_are_relative_the_scale_of_a_matrix_changes_no_rank_and_where_not_it_does():
    g = torch.Generator().manual_seed(0)
    draw = lambda m, n: torch.randn(m, 6, generator=g) @ torch.randn(6, n, generator=g) + torch.randn(m, n, generator=g)
    expert = {"a": draw(40, 40), "b": draw(40, 40)}
    base = {name: torch.zeros_like(x) for name, x in expert.items()}
    ranks = lambda state, weight: [p.rank for p in compress(base, state, budget=2_500, weight=weight).parts.values()]
    louder = {"a": 8 * expert["a"], "b": expert["b"]}
    assert ranks(louder, 1.0) == ranks(expert, 1.0)
    assert ranks(louder, 0.0)[0] > ranks(expert, 0.0)[0]
    # Between them the exchange rate is the norm to the power 2 (1 - weight): squared at 0, the norm itself at a half.
    order = lambda weight: water_fill(
        {n: part.offer(x, Settings(weight=weight))[1] for n, x in louder.items()}, dict.fromkeys(louder, 1.0)
    )
    values = {n: torch.linalg.svdvals(x.double()).square() / x.double().norm() for n, x in louder.items()}
    assert order(0.5) == water_fill(values, dict.fromkeys(louder, 1.0))
