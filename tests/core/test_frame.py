"""What did not change, and what is no weight, comes back as it was, whichever method codes the rest."""

import sys
import time

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from dts_mini import DTSError, StateError, TaskDelta, average, compress, fuse, personalise, rebuild, storage
from dts_mini.core.dts import Flat, LowRank
from dts_mini.core.frame import Frame
from dts_mini.core.layout import Stack, Submatrix
from dts_mini.core.merging import MERGES
from dts_mini.core.parts import Exact, Tied, Unchanged

METHODS = {
    "dts": {"keep_ratio": 0.3},
    "dts to a budget": {"budget": 20_000},
    "drc": {"method": "drc", "budget": 20_000},
}
every_method = pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(torch.Size(shape), generator=torch.Generator().manual_seed(seed))


def again(base: dict, expert: dict, **options) -> dict:
    """The expert rebuilt from a file."""
    return rebuild(base, TaskDelta.from_bytes(compress(base, expert, **options).to_bytes()))


# --- rows and columns ---


@every_method
@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(2, 24),
    n=st.integers(2, 24),
    frozen=st.tuples(st.floats(0, 0.95), st.floats(0, 0.95)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 10**6),
)
def test_frozen_rows_and_columns_stay_to_the_bit_and_the_rest_comes_closer(options, m, n, frozen, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(m, n, generator=g).to(dtype)
    moved = (torch.rand(m, 1, generator=g) >= frozen[0]) & (torch.rand(1, n, generator=g) >= frozen[1])
    expert = torch.where(moved, base + torch.randn(m, n, generator=g).to(dtype), base)
    found = again({"w": base}, {"w": expert}, **options)["w"]
    still = base == expert
    rows, columns = still.all(1), still.all(0)
    assert torch.equal(found[rows], base[rows]) and torch.equal(found[:, columns], base[:, columns])
    if not still.all():
        assert (found - expert).double().norm() < (expert - base).double().norm()


@every_method
def test_a_few_new_rows_of_an_embedding_cost_what_they_hold(options):
    base = draw(4000, 32)
    expert = base.clone()
    expert[[5, 1999, 3998]] += draw(3, 32, seed=1)
    delta = compress({"e": base}, {"e": expert}, **({**options, "budget": "1%"} if "budget" in options else options))
    part = delta.parts["e"]
    assert isinstance(part, Submatrix)
    assert part.rows.tolist() == [5, 1999, 3998] and part.columns is None
    assert len(delta.to_bytes()) < 3_000
    a, b = part.factors()
    assert torch.allclose(a @ b, part.restore(), atol=1e-6)
    assert storage(delta).information <= storage(delta).file


def test_the_paper_counts_the_whole_matrix_whatever_is_left_out():
    base, expert = draw(40, 30), draw(40, 30, seed=1)
    whole = compress({"w": base}, {"w": expert}, keep_ratio=0.1)
    part = compress({"w": base}, {"w": torch.cat([base[:20], expert[20:]])}, keep_ratio=0.1)
    assert storage(part).paper == storage(whole).paper
    assert storage(part).information < storage(whole).information


# --- stacks and convolutions ---


@every_method
@pytest.mark.parametrize("shape", [(3, 12, 20), (2, 2, 12, 9)])
def test_a_stack_of_matrices_is_rebuilt_as_its_matrices_are_by_themselves(options, shape):
    base, expert = draw(*shape), draw(*shape, seed=1)
    expert.view(-1, *shape[-2:])[1] = base.view(-1, *shape[-2:])[1]  # one matrix did not change
    apart = lambda x: {f"w{i}": matrix for i, matrix in enumerate(x.view(-1, *shape[-2:]))}
    options = {**options, "budget": 1_000_000} if "budget" in options else options
    delta = compress({"w": base}, {"w": expert}, stacks=["w"], **options)
    assert isinstance(delta.parts["w"], Stack)
    assert delta.parts["w"].parts[1] == Unchanged()
    found = rebuild({"w": base}, TaskDelta.from_bytes(delta.to_bytes()))["w"].view(-1, *shape[-2:])
    wanted = rebuild(apart(base), compress(apart(base), apart(expert), **options))
    for i, matrix in enumerate(found):
        assert torch.allclose(matrix, wanted[f"w{i}"], atol=1e-5), i
    assert torch.equal(found[1], base.view(-1, *shape[-2:])[1])


def test_a_convolution_is_a_matrix_where_asked_and_flat_as_in_the_paper_where_not():
    shapes = {"conv": (16, 8, 3, 3), "pointwise": (16, 8, 1, 1), "bias": (16,)}
    base = {name: draw(*shape) for name, shape in shapes.items()}
    expert = {name: tensor + draw(*tensor.shape, seed=1) for name, tensor in base.items()}
    flat, matrix = (compress(base, expert, convolutions=how) for how in ("flat", "matrix"))
    kinds = lambda delta: {name: type(part) for name, part in delta.parts.items()}
    assert kinds(flat) == dict.fromkeys(shapes, Flat)
    assert kinds(matrix) == {"conv": LowRank, "pointwise": LowRank, "bias": Flat}
    assert len(matrix.to_bytes()) < len(flat.to_bytes())
    as_matrices = lambda state: {name: x.reshape(len(x), -1) if x.dim() > 1 else x for name, x in state.items()}
    wanted = again(as_matrices(base), as_matrices(expert))
    for name, tensor in again(base, expert, convolutions="matrix").items():
        assert torch.equal(tensor.flatten(), wanted[name].flatten())


def test_an_impossible_budget_names_the_tensors_that_no_budget_makes_smaller():
    base, expert = {"conv": draw(16, 8, 3, 3)}, {"conv": draw(16, 8, 3, 3, seed=1)}
    with pytest.raises(DTSError, match=r"'conv'.*convolutions='matrix'"):
        compress(base, expert, budget=700)
    compress(base, expert, budget=1_000, convolutions="matrix")
    base, expert = {"experts": draw(4, 30, 30)}, {"experts": draw(4, 30, 30, seed=1)}
    with pytest.raises(DTSError, match=r"'experts'.*stacks="):
        compress(base, expert, budget=700)
    with pytest.raises(DTSError, match=r"kept exactly: 'b'"):
        compress({"b": draw(99)}, {"b": draw(99, seed=1)}, budget=100, keep=["b"])


def test_patterns_that_name_nothing_are_refused():
    base, expert = {"w": draw(3, 3)}, {"w": draw(3, 3, seed=1)}
    for option in ("keep", "stacks"):
        with pytest.raises(DTSError, match=rf"{option}: no tensor is called '\*\.bias'"):
            compress(base, expert, **{option: ["w", "*.bias"]})
    odd = {"w[0]": draw(3, 3)}  # a name is itself before it is a pattern
    assert isinstance(compress(odd, {"w[0]": draw(3, 3, seed=1)}, keep=["w[0]"]).parts["w[0]"], Exact)


# --- statistics, and what else is kept ---


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)).eval()


def trained(base: dict, seed: int) -> dict:
    """As training leaves a net: weights a little on, variances small, counters far."""
    g, expert = torch.Generator().manual_seed(seed), {}
    for name, tensor in base.items():
        noise = torch.rand(tensor.shape, generator=g)
        var = name.endswith("running_var")
        expert[name] = 0.01 + 0.1 * noise if var else tensor + 0.1 * noise if tensor.is_floating_point() else tensor + 7
    return expert


@every_method
@pytest.mark.parametrize("over", ["theta_0", "average"])
def test_statistics_of_norm_layers_are_the_experts_exactly(options, over):
    base = dict(net().state_dict())
    one, two = trained(base, 1), trained(base, 2)
    start = average([one, two]) if over == "average" else base
    found = again(start, one, **options)
    for name in base:
        if "running" in name or "num_batches" in name:
            assert torch.equal(found[name], one[name]), name
    model = net()
    model.load_state_dict(found)
    assert model(draw(2, 3, 9, 9)).isfinite().all()


def test_statistics_that_are_not_finite_are_refused_unless_they_are_named_to_be_kept():
    base = dict(net().state_dict())
    broken = trained(base, 1) | {"1.running_var": torch.full((8,), torch.nan)}
    with pytest.raises(StateError, match=r"'1\.running_var'"):
        compress(base, broken)
    assert again(base, broken, keep=["1.running_var"])["1.running_var"].isnan().all()


def test_fused_statistics_are_a_mean_and_weights_that_make_a_variance_negative_are_refused():
    base = dict(net().state_dict())
    experts = {"a": trained(base, 1), "b": trained(base, 2)}
    deltas = list(personalise(base, experts).values())
    name = "1.running_var"
    found = fuse(base, deltas, [0.25, 0.75])[name]
    wanted = 0.25 * experts["a"][name] + 0.75 * experts["b"][name]
    assert torch.allclose(found, wanted, atol=1e-6)
    with pytest.raises(DTSError, match=r"'1.running_(mean|var)'.*negative"):
        fuse(base, deltas, [3.0, -2.0])
    half = [
        compress(state, expert, keep=["k"])
        for state, expert in [({"k": torch.ones(3).half()}, {"k": torch.full((3,), 6e4).half()})]
    ]
    with pytest.raises(StateError, match="'k'"):
        fuse({"k": torch.ones(3).half()}, half, [9.0])


def spectral(way) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(way(nn.Linear(12, 12)), way(nn.Conv2d(3, 4, 2))).eval()


def turned(model: nn.Module, seed: int) -> dict:
    """As training leaves a model of spectral norms: another direction has become the largest."""
    with torch.no_grad():
        for name, x in model.named_parameters():
            x += 0 if "bias" in name else 2 * draw(*x.shape, seed=seed)
    model.train()
    for _ in range(30):
        model[0](draw(2, 12)), model[1](draw(2, 3, 5, 5))
    return dict(model.eval().state_dict())


SPECTRAL = {"parametrized": nn.utils.parametrizations.spectral_norm, "by a hook": nn.utils.spectral_norm}


@every_method
@pytest.mark.parametrize("way", SPECTRAL.values(), ids=SPECTRAL)
def test_the_vectors_that_measure_a_weight_are_the_experts_exactly(options, way):
    base, expert = dict(spectral(way).state_dict()), turned(spectral(way), 1)
    found = again(base, expert, **options)
    vectors = [name for name in base if name.endswith(("_u", "_v"))]
    assert len(vectors) == 4
    assert all(torch.equal(found[name], expert[name]) and not torch.equal(base[name], found[name]) for name in vectors)


@pytest.mark.parametrize("way", SPECTRAL.values(), ids=SPECTRAL)
def test_vectors_that_measure_several_weights_are_not_made_one(way):
    base = dict(spectral(way).state_dict())
    experts = {str(seed): turned(spectral(way), seed) for seed in (1, 2)}
    deltas = list(personalise(base, experts).values())
    merges = [lambda method=method: method(base, list(experts.values())) for method in MERGES.values()][1:]
    for mixed in (lambda: average(list(experts.values())), *merges, lambda: fuse(base, deltas, [0.5, 0.5])):
        with pytest.raises(StateError, match=r"'.*_[uv]' differs, and is found by spectral_norm.*remove_spectral_norm"):
            mixed()
    same = {name: x for name, x in experts["1"].items() if not name.endswith(("_u", "_v"))}
    for mixed in (average([base, base | same]), fuse(base, [compress(base, base | same)], [1.0])):
        assert all(torch.equal(mixed[name], base[name]) for name in base if name.endswith(("_u", "_v")))


@every_method
def test_what_keep_names_is_the_experts_exactly_even_where_it_is_not_finite(options):
    base = {"w": draw(12, 9), "head.weight": draw(5, 9), "mask": torch.zeros(4)}
    expert = {name: tensor + 1 for name, tensor in base.items()} | {
        "mask": torch.tensor([0, -torch.inf, 0, -torch.inf])
    }
    with pytest.raises(StateError, match="'mask'"):
        compress(base, expert, **options)
    found = again(base, expert, keep=["head.*", "mask"], **options)
    assert torch.equal(found["head.weight"], expert["head.weight"])
    assert torch.equal(found["mask"], expert["mask"])


def test_a_tensor_to_keep_is_not_tied_to_one_that_is_not():
    base, expert = draw(6, 6), draw(6, 6, seed=1)
    pair = lambda x: {"a": x, "b": x}
    delta = compress(pair(base), pair(expert), keep=["b"])
    assert isinstance(delta.parts["a"], LowRank) and isinstance(delta.parts["b"], Exact)
    assert compress(pair(base), pair(expert)).parts["b"] == Tied("a")


@pytest.mark.parametrize("value", [-torch.inf, torch.inf, torch.nan])
@every_method
def test_equal_constants_need_not_be_finite(options, value):
    mask = torch.full((5, 5), value).triu(1)
    base, expert = {"w": draw(12, 9), "mask": mask}, {"w": draw(12, 9, seed=1), "mask": mask.clone()}
    found = again(base, expert, **options)["mask"]
    assert torch.equal(found.view(torch.uint8), mask.view(torch.uint8))
    other = {**expert, "mask": torch.where(mask == 0, 1.0, mask)}
    with pytest.raises(StateError, match="'mask'"):
        compress(base, other, **options)


# --- dtypes ---


@every_method
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_only_was_rounded_to_the_experts_dtype_did_not_change(options, dtype):
    base = {"frozen": draw(20, 10), "rows": draw(20, 10), "mask": torch.full((3,), -torch.inf), "b": draw(9)}
    expert = {name: tensor.to(dtype) for name, tensor in base.items()}
    expert["rows"][:4] += 1
    expert["b"] = expert["b"] + 1
    delta = compress(base, expert, **options)
    assert delta.parts["frozen"] == Unchanged() == delta.parts["mask"]
    assert delta.parts["rows"].rows.tolist() == [0, 1, 2, 3]
    found = again(base, expert, **options)
    for name in ("frozen", "mask"):
        assert torch.equal(found[name], expert[name])
    assert torch.equal(found["rows"][4:], expert["rows"][4:])


@every_method
@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e-16, 1e16, 1e30])
def test_values_whose_squares_are_beyond_float32_are_coded_as_others_are(options, size):
    if size < 1e-40 and "method" in options:
        pytest.skip("DRC refuses them, below")
    one = {"w": draw(20, 12), "b": draw(30)}
    zero = {name: torch.zeros_like(tensor) for name, tensor in one.items()}
    error = lambda found, wanted: ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()
    scaled = {name: tensor * size for name, tensor in one.items()}
    found = again(zero, scaled, **options)
    if options.get("method") == "drc":  # its step depends on the norm: to this budget all is exact, up to denormals
        assert error(found["w"], scaled["w"]) < 0.01
    else:
        wanted = error(again(zero, one, **options)["w"], one["w"])
        assert error(found["w"], scaled["w"]) == pytest.approx(wanted, rel=0.05)


def test_what_drc_has_no_step_for_is_refused_by_name():
    with pytest.raises(StateError, match=r"'w'.*keep=\['w'\]"):
        compress({"w": torch.zeros(20, 12)}, {"w": 1e-40 * draw(20, 12)}, method="drc", budget=20_000)


def test_a_difference_too_long_for_float32_is_refused_by_name():
    base, expert = {"w": torch.zeros(9, 9)}, {"w": torch.full((9, 9), 3e38)}
    with pytest.raises(StateError, match="'w'"):
        compress(base, expert)


# --- the state of torch around us ---


@every_method
@pytest.mark.parametrize("ambient", ["float64", "bfloat16", "meta", "autocast", "grad"])
def test_defaults_autocast_and_gradients_around_a_call_change_no_bit(options, ambient):
    base = {"w": draw(20, 12), "e": draw(30, 8), "c": draw(4, 3, 2, 2), "b": draw(9), "n.running_var": draw(4).abs()}
    expert = {name: tensor + draw(*tensor.shape, seed=1) for name, tensor in base.items()}
    expert["e"][:20], expert["n.running_var"] = base["e"][:20], base["n.running_var"] + 1
    file = compress(base, expert, **options).to_bytes()
    wanted = rebuild(base, TaskDelta.from_bytes(file))
    fused = fuse(base, [TaskDelta.from_bytes(file)], [0.5])
    if ambient == "grad":
        base, expert = ({n: x.clone().requires_grad_() for n, x in state.items()} for state in (base, expert))
    try:
        if ambient in ("float64", "bfloat16"):
            torch.set_default_dtype(getattr(torch, ambient))
        elif ambient == "meta":
            torch.set_default_device("meta")
        with torch.autocast("cpu", torch.bfloat16, enabled=ambient == "autocast"):
            delta = compress(base, expert, **options)
            assert delta.to_bytes() == file
            read = TaskDelta.from_bytes(file)
            assert (read, storage(read), repr(read)) == (delta, storage(delta), repr(delta))
            found, mixed = rebuild(base, read), fuse(base, [read], [0.5])
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor) and torch.equal(mixed[name], fused[name]), name


def test_tensors_with_the_negative_bit_are_what_they_stand_for():
    base, expert = {"w": draw(9, 7), "s": draw()}, {"w": draw(9, 7, seed=1), "s": draw(seed=1)}
    view = {name: torch._neg_view(-tensor) for name, tensor in expert.items()}
    assert compress(base, view).to_bytes() == compress(base, expert).to_bytes()
    assert compress(view, base).to_bytes() == compress(expert, base).to_bytes()


# --- the frame itself ---


def test_a_frame_is_complete_once_built_and_in_name_order():
    base = {"b": draw(5), "a": draw(6, 4), "n": torch.tensor(1), "same": draw(2)}
    expert = {**base, "a": draw(6, 4, seed=1), "b": draw(5, seed=1), "n": torch.tensor(2)}
    frame = Frame(base, expert)
    assert list(frame) == ["a", "b"] and len(frame) == 2 and set(frame.parts) == {"n", "same"}
    assert torch.equal(frame["a"], expert["a"] - base["a"])
    assert frame.model == 4 * (24 + 5 + 1 + 2)
    assert frame.budget("50%") == frame.model // 2


def test_deltas_are_equal_by_content_and_short_in_a_line():
    base, expert = {"w": draw(50, 40), "<b>": draw(3)}, {"w": draw(50, 40, seed=1), "<b>": draw(3, seed=1)}
    delta = compress(base, expert)
    read = TaskDelta.from_bytes(delta.to_bytes())
    assert read == delta and hash(read) == hash(delta) and read.parts == delta.parts
    assert delta != compress(base, expert, keep_ratio=0.2) and delta != "delta"
    assert delta.parts["w"] != compress(base, expert, keep_ratio=0.2).parts["w"]
    assert len(repr(delta)) < 100 and "2 tensors" in repr(delta)
    table = delta._repr_html_()
    assert "&lt;b&gt;" in table and "<b>" not in table and table.count("<tr>") == 3 and "50 × 40" in table


@every_method
def test_what_is_nowhere_negative_comes_back_so_whatever_it_is_called(options):
    g = torch.Generator().manual_seed(0)
    base = {"w": draw(12, 9), "codebook.used": torch.rand(40, generator=g)}
    expert = {"w": draw(12, 9, seed=1), "codebook.used": base["codebook.used"] * torch.rand(40, generator=g)}
    options = {**options, "budget": 1_400} if "budget" in options else options
    found = again(base, expert, **options)
    assert found["codebook.used"].min() >= 0
    signed = {"w": base["w"], "b": draw(40)}
    assert not isinstance(compress(signed, {"w": expert["w"], "b": draw(40, seed=1)}).parts["b"], Exact)


@pytest.mark.parametrize("per", ["matrix", "vector"])
@pytest.mark.parametrize("how", ["rms", "mean"])
def test_lloyd_max_levels_keep_the_signs_of_one_signed_values(per, how):
    x = draw(40, 30).abs()
    lloyd, halves = (
        again({"w": torch.zeros(40, 30)}, {"w": x}, per=per, scale=how, levels=levels)["w"]
        for levels in ("lloyd-max", "halves")
    )
    assert (lloyd - x).norm() < 1.2 * (halves - x).norm()
    bias = torch.arange(1.0, 30)
    assert (again({"b": torch.zeros(29)}, {"b": bias}, scale=how, levels="lloyd-max")["b"] > 0).all()


def test_a_tensor_that_is_called_as_a_matrix_of_a_stack_is_refused():
    base = {"w": draw(2, 4, 4), "w[0]": draw(4, 4)}
    with pytest.raises(DTSError, match=r"'w\[0\]'"):
        compress(base, {name: x + 1 for name, x in base.items()}, stacks=["w"])


def test_counters_are_each_layers_own():
    base = {"1.num_batches_tracked": torch.tensor(3), "2.num_batches_tracked": torch.tensor(3), "w": draw(4, 4)}
    expert = {name: x + 1 for name, x in base.items()}
    found = again(base, expert)
    assert found["1.num_batches_tracked"].data_ptr() != found["2.num_batches_tracked"].data_ptr()
    assert found["2.num_batches_tracked"] == 4


def test_a_budget_holds_where_what_is_kept_outweighs_the_model():
    base = {"w": draw(20, 20), "ids": torch.zeros(13_000, dtype=torch.int64)}
    expert = {"w": draw(20, 20, seed=1), "ids": torch.arange(13_000)}
    for budget in range(105_050, 105_400, 7):
        assert len(compress(base, expert, budget=budget, weight=0.11111).to_bytes()) <= budget


def test_blocks_are_corrected_in_float64_too():
    base, expert = {"w": draw(20, 12).double()}, {"w": draw(20, 12, seed=1).double()}
    assert again(base, expert, per="vector", block=2)["w"].dtype == torch.float64


@pytest.mark.parametrize("value", [4.0, "4", True, 1.5])
def test_a_setting_of_another_type_is_refused_and_any_number_of_the_right_kind_taken(value):
    base, expert = {"w": draw(4, 4)}, {"w": draw(4, 4, seed=1)}
    with pytest.raises(DTSError, match="groups is"):
        compress(base, expert, groups=value)
    one, other = (compress(base, expert, keep_ratio=ratio) for ratio in (0.5, torch.tensor(0.5)))
    assert one == other and one == compress(base, expert, keep_ratio=np.float32(0.5), groups=np.int64(4))


def test_the_model_is_counted_once_where_tensors_are_tied_and_places_are_information():
    base, expert = draw(6, 5), draw(6, 5, seed=1)
    assert Frame({"a": base, "b": base}, {"a": expert, "b": expert}).model == 4 * 30
    few = base.clone()
    few[2] += 1
    part = compress({"w": base}, {"w": few}).parts["w"]
    assert part.bits == part.part.bits + 6  # a bit a row


def test_fusing_is_computed_in_float32_whatever_the_base_is_stored_in():
    base, expert = draw(30, 20).bfloat16(), draw(30, 20, seed=1).bfloat16()
    deltas = [compress({"w": base}, {"w": expert})] * 8
    wanted = base.float() + sum(0.125 * delta.remainder("w") for delta in deltas)
    assert torch.equal(fuse({"w": base}, deltas, [0.125] * 8)["w"], wanted.bfloat16())


def test_a_tensor_takes_no_longer_where_there_are_thousands():
    def each(count: int) -> float:
        """Seconds of CPU that a tensor takes."""
        base = {f"layers.{i}.weight": torch.ones(4) for i in range(count)}
        expert = {name: tensor + i for i, (name, tensor) in enumerate(base.items(), 1)}
        began = time.process_time()
        Frame(base, expert)
        return (time.process_time() - began) / count

    assert min(each(4000) for _ in range(2)) < 2 * min(each(400) for _ in range(3))


def test_a_reader_of_the_plainest_use_goes_from_file_to_file_forty_times_at_most():
    base = {"w": torch.randn(12, 9)}
    expert, path = {"w": base["w"] + torch.randn(12, 9)}, []

    def follow(frame, event, argument):
        name = frame.f_code.co_filename
        if "dts_mini/" not in name or "/tests/" in name:
            return None
        path.extend([name] if event in ("call", "line") and path[-1:] != [name] else [])
        return follow

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        rebuild(base, compress(base, expert))
    finally:
        sys.settrace(before)
    assert 10 < len(path) <= 41
