"""DRC: integers that rebuild what they should, fitted, restored and bounded."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dts_mini import DTSError, TaskDelta, compress, rebuild
from dts_mini.core.parts import Unchanged
from dts_mini.ours import drc
from dts_mini.ours.drc import NOTCHES, RoundedFlat, RoundedMatrix, Settings, Spectrum, _survey


def one(x: torch.Tensor, **settings) -> TaskDelta:
    return compress({"w": torch.zeros_like(x)}, {"w": x}, method="drc", **settings)


def matrix(m: int, n: int, seed: int = 0, power: float = 1.0) -> torch.Tensor:
    x = torch.randn(m, n, generator=torch.Generator().manual_seed(seed))
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    return (u * s / torch.arange(1, len(s) + 1) ** power) @ vh


def error(x: torch.Tensor, delta: TaskDelta) -> float:
    return ((delta.remainder("w") - x).norm() / x.norm()).item()


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (300, 280), (8, 3, 5, 5), (7, 1), (1, 9)])
def test_finer_steps_rebuild_better_down_to_rounding(shape):
    x = matrix(shape[0], torch.Size(shape[1:]).numel()).reshape(shape)
    errors = [error(x, one(x, notch=notch * NOTCHES, norm=0.0)) for notch in (4, 7, 10, 13)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


def test_a_convolution_is_a_matrix_of_its_outputs_and_a_vector_is_rounded_as_it_is():
    x = {"conv": matrix(8, 75).reshape(8, 3, 5, 5), "bias": matrix(1, 30).reshape(-1)}
    delta = compress({n: torch.zeros_like(t) for n, t in x.items()}, x, method="drc", notch=8 * NOTCHES)
    assert isinstance(delta.parts["conv"], RoundedMatrix)
    assert delta.parts["conv"].right.shape[1] == 75
    assert isinstance(delta.parts["bias"], RoundedFlat)


def test_a_step_too_large_for_a_tensor_leaves_it_unchanged_and_all_else_works():
    x = {"strong": matrix(30, 30), "weak": 1e-6 * torch.ones(5)}
    zeros = {n: torch.zeros_like(t) for n, t in x.items()}
    delta = compress(zeros, x, method="drc", notch=5 * NOTCHES, weight=0.0)
    assert delta.parts["weak"] == Unchanged()
    assert torch.equal(rebuild(zeros, TaskDelta.from_bytes(delta.to_bytes()))["weak"], zeros["weak"])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([(20, 30), (64, 16), (5, 80)]))
def test_fitting_never_makes_the_error_larger_than_the_rounded_integers_alone_by_much(seed, shape):
    x = matrix(*shape, seed)
    plain, fitted = (error(x, one(x, notch=7 * NOTCHES, norm=0.0, fitted=fitted)) for fitted in (False, True))
    assert fitted <= 1.02 * plain


def test_the_fitted_values_are_the_best_for_their_integers():
    """Against a dense least-squares problem: the rank-one matrices a_i b_i^T as columns."""
    x = matrix(24, 30).double()
    full = Settings(notch=8 * NOTCHES, norm=0.0)
    spectrum = drc.Spectrum.of(x)
    part = drc._rounded(drc.decompose(x, 24), spectrum, full, 24)
    columns = torch.stack(
        [torch.outer(a, b).reshape(-1) for a, b in zip(part.left.double(), part.right.double(), strict=True)], 1
    )
    best = torch.linalg.lstsq(columns, x.reshape(-1, 1)).solution.reshape(-1)
    found = columns @ (part.s.double() * part.unit.double())
    best = columns @ best
    assert (found - best).norm() <= 1e-2 * x.norm()


def norm_held(x: torch.Tensor, exponent: float) -> float:
    restored = one(x, notch=5 * NOTCHES, norm=exponent).remainder("w")
    return (restored.norm() / x.norm()).item()


def test_the_norm_is_restored_by_its_exponent():
    x = matrix(40, 50, power=0.3)
    none, half, whole = (norm_held(x, exponent) for exponent in (0.0, 0.5, 1.0))
    assert none < 0.999
    assert half == pytest.approx(none**0.5, abs=2e-3)
    assert whole == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("notch", [4 * NOTCHES, 7 * NOTCHES, 11 * NOTCHES])
def test_a_file_gives_back_exactly_what_was_saved(notch, tower):
    delta = compress(*tower, method="drc", notch=notch)
    read = TaskDelta.from_bytes(delta.to_bytes())
    assert read.to_bytes() == delta.to_bytes()
    for name in delta.parts:
        ours, theirs = delta.remainder(name), read.remainder(name)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_components_of_less_than_the_cut_are_left_out():
    x = matrix(50, 50)
    ranks = [one(x, notch=7 * NOTCHES, cut=cut).parts["w"].rank for cut in (0.0, 0.5, 1.0)]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] > ranks[-1]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("notch", -(10**6)), ("notch", 10**6), ("weight", 1.5), ("cut", -0.1), ("dead", 0.4), ("norm", 2.0)],
)
def test_a_setting_out_of_range_is_named(setting, value):
    with pytest.raises(DTSError, match=setting):
        one(matrix(4, 4), **{setting: value})


def test_settings_of_the_other_method_and_unknown_methods_are_refused():
    with pytest.raises(DTSError, match="drc has no setting 'groups'"):
        one(matrix(4, 4), groups=4)
    with pytest.raises(DTSError, match="method is 'svd'"):
        compress({"w": torch.zeros(2, 2)}, {"w": torch.ones(2, 2)}, method="svd")


def test_without_a_budget_or_a_notch_the_file_takes_one_percent(tower):
    delta = compress(*tower, method="drc")
    model = 4 * sum(tensor.numel() for tensor in tower[0].values())
    assert 0.97 * 0.01 * model <= len(delta.to_bytes()) <= 0.01 * model
    assert replace(Settings(), notch=delta.settings["notch"]) == Settings(**delta.settings)


@pytest.mark.parametrize("shape", [(24, 12), (6, 3, 4, 4), (96, 64)])
def test_a_delta_rebuilds_the_same_bits_from_memory_and_from_its_file(shape):
    generator = torch.Generator().manual_seed(0)
    base, expert = ({"w": torch.randn(shape, generator=generator)} for _ in range(2))
    delta = compress(base, expert, method="drc", notch=800)
    again = TaskDelta.from_bytes(delta.to_bytes())
    assert torch.equal(rebuild(base, delta)["w"], rebuild(base, again)["w"])


def test_a_budget_beyond_the_finest_step_is_left_unused():
    weight = torch.linspace(-1, 1, 12)
    delta = compress({"w": 0 * weight}, {"w": weight}, method="drc", budget=100_000)
    assert len(delta.to_bytes()) < 100_000
    assert torch.allclose(delta.remainder("w"), weight, atol=1e-3)


# --- spectra that are known in part ---


@pytest.mark.parametrize("seed", range(6))
def test_a_difference_of_few_components_is_found_whole_by_any_search_for_more(seed):
    """As a merged LoRA adapter makes them; their last digits must not pass for components that are yet to be found."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(300, 8, generator=g) @ torch.randn(8, 320, generator=g)
    for rank in (20, 100):
        spectrum, source = _survey(x, rank)
        assert spectrum.known == len(source.s) == 8
        assert spectrum.rank(replace(Settings(), notch=2_000)) <= spectrum.known
        assert spectrum.rank(replace(Settings(notch=896), cut=0.0)) <= spectrum.known
    assert one(x, budget="4%").parts["w"].rank == 8


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("known", [10, 100])
def test_what_was_not_found_is_supposed_to_hold_the_rest_of_the_energy(decay, known):
    g = torch.Generator().manual_seed(0)
    s = torch.arange(1, 301).double().pow(-decay)
    u, v = (torch.linalg.qr(torch.randn(n, 300, dtype=torch.float64, generator=g)).Q for n in (300, 400))
    spectrum = Spectrum.leading((u * s) @ v.T, s[:known])
    assert len(spectrum.s) == 300 and spectrum.known == known and (spectrum.s.diff() <= 1e-12).all()
    assert spectrum.s.square().sum().item() == pytest.approx(spectrum.norm**2, rel=0.02)


@pytest.mark.parametrize("flat", [1.0, 3.0, 8.0])
def test_the_step_of_a_single_row_is_flat_times_that_of_a_matrix_of_its_norm(flat):
    x = torch.randn(900, generator=torch.Generator().manual_seed(0))
    unit = lambda **more: one(x, notch=6 * NOTCHES, norm=0.0, **more).parts["w"].unit
    assert unit(flat=flat) == pytest.approx(flat * unit(flat=1.0))
    row, grid = Spectrum.of(x), Spectrum.of(x.view(30, 30))
    at = Settings(notch=6 * NOTCHES, flat=flat)
    assert row.step(at) == pytest.approx(flat * grid.step(at))


@pytest.mark.parametrize("dead", [0.5, 0.65, 0.9])
def test_magnitudes_below_dead_are_zero_and_those_below_one_more_are_one(dead):
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    part = one(x, notch=6 * NOTCHES, norm=0.0, dead=dead).parts["w"]
    steps = (x / part.unit).abs()
    clear = ((steps - dead) % 1).sub(0.5).abs() < 0.499  # not within rounding of a border
    wanted = (steps - dead).floor().add(1).clamp(min=0)
    assert torch.equal(part.integers[0].abs()[clear].float(), wanted[clear])
    assert set(part.integers.abs().unique().tolist()) >= {0, 1, 2}


def test_no_integer_is_beyond_the_peak_however_fine_the_step():
    x = matrix(40, 30)
    finest = one(x, budget=10**6)
    part = finest.parts["w"]
    assert 1_000 < max(int(part.left.abs().max()), int(part.right.abs().max())) <= 32_767
    assert one(x, notch=60 * NOTCHES).parts["w"] == one(x, notch=40 * NOTCHES).parts["w"] == part


def test_a_tensor_of_large_values_does_not_keep_the_others_from_a_budget():
    state = {"w": matrix(64, 64, power=0.2), "bias": 1e6 * torch.arange(1.0, 33)}
    zeros = {name: torch.zeros_like(x) for name, x in state.items()}
    error = lambda share: (rebuild(zeros, compress(zeros, state, method="drc", budget=share))["w"] - state["w"]).norm()
    assert error("60%") < 0.2 * error("30%")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_changed_row_of_a_matrix_is_coded_as_finely_as_more_of_them(count):
    base, change = torch.zeros(400, 64), torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    expert = base.clone()
    expert[:count] = change[:count]
    found = compress({"w": base}, {"w": expert}, method="drc", notch=5 * NOTCHES, weight=0.0, norm=0.0)
    spacing = (found.remainder("w") - expert).abs().max()
    assert spacing <= 2 * 2.0**-5  # steps of one size, a dead zone and two rounded factors


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("spectrum", ["equal", "half equal", "slowly falling", "two matrices"])
def test_a_budget_is_used_where_singular_values_are_equal(spectrum, share):
    g = torch.Generator().manual_seed(0)
    orthogonal = lambda: torch.linalg.qr(torch.randn(200, 200, generator=g)).Q
    s = {"half equal": torch.cat([torch.ones(100), torch.full((100,), 0.01)])}.get(spectrum, torch.ones(200))
    s = torch.arange(1, 201) ** -0.05 if spectrum == "slowly falling" else s
    state = {"w": 0.01 * (orthogonal() * s) @ orthogonal()}
    if spectrum == "two matrices":
        state["v"] = matrix(150, 100)
    zeros = {name: torch.zeros_like(x) for name, x in state.items()}
    limit = int(share * 4 * sum(x.numel() for x in state.values()))
    delta = compress(zeros, state, method="drc", budget=limit)
    assert 0.97 * limit <= len(delta.to_bytes()) <= limit
    rebuilt = rebuild(zeros, delta)
    assert sum((rebuilt[name] * x).sum() for name, x in state.items()) > 0
    for name in delta.bounds:
        assert delta.bounds[name].error <= delta.bounds[name].truncation + delta.bounds[name].coding + 1e-3


@pytest.mark.parametrize("budget", [900, "50%"])
def test_a_budget_for_an_expert_that_is_its_base_gives_the_empty_delta(budget):
    state = {"w": matrix(30, 20)}
    assert compress(state, state, method="drc", budget=budget).parts["w"] == Unchanged()


def test_the_estimate_of_all_tensors_together_is_that_of_each(layered):
    base, expert = layered
    survey = drc.Survey(None, str)
    survey.spectra = {name: Spectrum.of(expert[name] - base[name]) for name in base}
    for notch in (200, 900, 1600):
        at = Settings(notch=notch)
        ranks, bits = survey._counted(at)
        assert ranks.tolist() == [spectrum.rank(at) for spectrum in survey.spectra.values()]
        found = 0.0
        for spectrum in survey.spectra.values():
            for s in spectrum.s[: spectrum.rank(at)].tolist():
                ratio = (s / spectrum.step(at)) ** 2
                found += 32 + sum(
                    n * math.log2(1 + 2 * math.pi * math.e * ratio / n) / 2 for n in spectrum.sides if n > 1
                )
        assert bits == pytest.approx(found)


def test_a_matrix_whose_second_factor_rounds_to_nothing_has_no_part():
    x = torch.zeros(8, 8)
    x[0] = torch.tensor([1.0, -1, 1, -1, 1, -1, 1, -1])
    spectrum = Spectrum.of(x)
    found = [
        drc._rounded(drc.decompose(x, 8), spectrum, Settings(notch=notch, cut=0.0), 8) for notch in range(0, 900, 5)
    ]
    assert any(part is None for part in found)
    assert any(part is not None for part in found)
