"""State dicts: compress, rebuild, and what a delta weighs."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from dts_mini import DTSError, StateError, TaskDelta, average, compress, load, rebuild, storage
from dts_mini.core.dts import Flat, LowRank, Settings, rank_of
from dts_mini.core.parts import Kept, Tied, Unchanged


def norm(states: dict[str, Tensor], base: dict[str, Tensor]) -> float:
    """The length of the step from ``base`` to ``states``."""
    return math.sqrt(sum((states[n].double() - base[n].double()).square().sum().item() for n in base))


# --- the paper's method, slowly and densely, in float64 ---


def slow_groups(x: Tensor) -> Tensor:
    """Threshold and scale of a whole tensor: sort the elements of a sign, halve them, take each half's RMS."""
    flat = x.reshape(-1)
    result = torch.zeros_like(flat)
    for sign in (1, -1):
        own = torch.nonzero(sign * flat > 0).reshape(-1)
        strongest_first = own[torch.argsort(flat[own].abs(), descending=True, stable=True)]
        half = len(own) // 2
        for group in (strongest_first[:half], strongest_first[half:]):
            if len(group):
                result[group] = sign * flat[group].norm() / math.sqrt(len(group))
    return result.reshape(x.shape)


def slow_dts(x: Tensor, keep_ratio: float, per: str = "matrix") -> Tensor:
    """DTS of one tensor as the paper tells it, with a full-matrices SVD."""
    x = x.double()
    if x.dim() == 0:
        return x
    if x.dim() != 2:
        return slow_groups(x)
    u, s, vh = torch.linalg.svd(x, full_matrices=True)
    rank = max(1, int(keep_ratio * min(x.shape) + 1e-9))
    u, s, v = u[:, :rank], s[:rank], vh[:rank].T
    for i in range(rank):  # the free signs: the largest element of each right vector is positive
        sign = torch.sign(v[v[:, i].abs().argmax(), i])
        u[:, i], v[:, i] = u[:, i] * sign, v[:, i] * sign
    if per == "matrix":
        # The paper flattens U and V; we store their transposes. That matters for ties alone.
        u, v = slow_groups(u), slow_groups(v)
    else:
        u, v = (torch.stack([slow_groups(column) for column in factor.T], 1) for factor in (u, v))
    return u @ torch.diag(s) @ v.T


@pytest.mark.parametrize("keep_ratio", [0.1, 0.3, 1.0])
@pytest.mark.parametrize(("per", "tolerance"), [("matrix", 1e-5), ("vector", 1e-3)])  # per vector: float16 scales
def test_the_packed_path_rebuilds_what_a_slow_dense_reference_does(base, expert, keep_ratio, per, tolerance):
    base, expert = ({n: t.double() for n, t in state.items()} for state in (base, expert))
    delta = TaskDelta.from_bytes(compress(base, expert, keep_ratio=keep_ratio, per=per).to_bytes())
    found = rebuild(base, delta)
    for name in base:
        wanted = slow_dts(expert[name] - base[name], keep_ratio, per)
        assert (found[name] - base[name] - wanted).norm() <= tolerance * wanted.norm(), name


@pytest.mark.parametrize("name", ["block.in_proj_weight", "conv.weight"])
def test_in_float32_too_the_packed_path_follows_the_reference(base, expert, name):
    found = compress(base, expert, keep_ratio=0.3).remainder(name)
    wanted = slow_dts(expert[name] - base[name], 0.3)
    assert found.dtype == torch.float32
    # Not 1e-5: float32 may put an element at a group's very edge on its other side.
    assert (found - wanted).norm() <= 0.05 * wanted.norm()


def test_a_difference_that_group_values_can_express_is_rebuilt_exactly():
    generator = torch.Generator().manual_seed(0)
    signs = [torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1 for n in (16, 64)]
    base = {"w": torch.zeros(16, 64), "b": torch.zeros(8)}
    expert = {"w": 0.5 * torch.outer(*signs), "b": torch.tensor([1.0, 1, 3, 3, -2, -2, -5, -5])}
    found = rebuild(base, compress(base, expert))
    assert torch.allclose(found["w"], expert["w"], rtol=1e-6)
    assert torch.allclose(found["b"], expert["b"], rtol=1e-6)


def test_all_components_are_kept_at_keep_ratio_1_with_the_singular_values_of_an_exact_svd(base, expert):
    delta = compress(base, expert, keep_ratio=1)
    for name, part in delta.parts.items():
        if isinstance(part, LowRank):
            assert torch.allclose(part.s, torch.linalg.svdvals(expert[name] - base[name]), rtol=1e-5)


# --- kinds of tensors ---


def test_each_kind_of_tensor_is_treated_as_the_paper_says(base, expert):
    parts = compress(base, expert).parts
    kinds = {name: type(part) for name, part in parts.items()}
    assert kinds == {
        "conv.weight": Flat,
        "embedding": LowRank,
        "block.in_proj_weight": LowRank,
        "block.in_proj_bias": Flat,
        "block.mlp.weight": LowRank,
        "norm.weight": Flat,
        "logit_scale": Kept,
    }
    assert list(parts) == sorted(expert), "in name order, so that the file does not depend on the state dict's"


def test_a_zero_dimensional_tensor_is_kept_as_it_is(base, expert):
    assert torch.equal(rebuild(base, compress(base, expert))["logit_scale"], expert["logit_scale"])


def test_vectors_and_convolutions_become_four_values_that_keep_their_norm(base, expert):
    delta = compress(base, expert)
    for name in ("block.in_proj_bias", "conv.weight"):
        change = delta.remainder(name)
        assert change.shape == expert[name].shape
        assert len(change.unique()) == 4
        assert torch.equal(change.sign(), (expert[name] - base[name]).sign())
        assert change.norm().item() == pytest.approx((expert[name] - base[name]).norm().item(), rel=1e-5)


def test_an_expert_that_is_the_base_costs_nothing_and_is_rebuilt_exactly(base):
    delta = compress(base, {name: tensor.clone() for name, tensor in base.items()})
    assert all(part == Unchanged() for part in delta.parts.values())
    assert storage(delta).information == storage(delta).paper == 0
    delta = TaskDelta.from_bytes(delta.to_bytes())
    assert all(torch.equal(tensor, base[name]) for name, tensor in rebuild(base, delta).items())


@pytest.mark.parametrize("zeros", [1, 10, 599])  # of 600: a list of positions, and a mask
@pytest.mark.parametrize("groups", [2, 4, 8])
def test_elements_that_did_not_change_stay_exactly_the_bases(zeros, groups):
    generator = torch.Generator().manual_seed(0)
    base = {"b": torch.randn(600, generator=generator), "c": torch.randn(10, 3, 4, 5, generator=generator)}
    expert = {name: tensor + 1 + torch.rand(tensor.shape, generator=generator) for name, tensor in base.items()}
    where = torch.randperm(600, generator=generator)[:zeros]
    for name in base:
        expert[name].view(-1)[where] = base[name].view(-1)[where]
    found = rebuild(base, TaskDelta.from_bytes(compress(base, expert, groups=groups).to_bytes()))
    for name in base:
        same = found[name] == base[name]
        assert same.view(-1)[where].all()
        assert same.sum() == zeros, "and no other one"


def test_zeros_of_the_factors_stay_exact_in_a_matrix_with_rows_that_did_not_change():
    base = {"w": torch.zeros(40, 6)}
    expert = {"w": torch.zeros(40, 6)}
    expert["w"][7] = torch.tensor([1.0, 2, 3, -1, -2, -3])  # an embedding of which one row was trained
    delta = compress(base, expert, algorithm="gram")
    assert delta.parts["w"].rows.tolist() == [7]
    found = rebuild(base, TaskDelta.from_bytes(delta.to_bytes()))["w"]
    assert found[7].all()
    assert not found[torch.arange(40) != 7].any()


def test_integer_tensors_are_the_experts_exactly_and_cost_nothing_where_they_are_the_bases():
    base = {"w": torch.ones(3, 3), "steps": torch.tensor(5), "ids": torch.arange(17)[None], "mask": torch.ones(2) > 0}
    expert = {**base, "w": torch.zeros(3, 3), "steps": torch.tensor(2**40 + 1), "mask": torch.tensor([True, False])}
    delta = TaskDelta.from_bytes(compress(base, expert).to_bytes())
    assert delta.parts["ids"] == Unchanged()
    found = rebuild(base, delta)
    for name in ("steps", "ids", "mask"):
        assert found[name].dtype == expert[name].dtype
        assert torch.equal(found[name], expert[name])


def test_empty_tensors_are_rebuilt_empty(base, expert):
    empty = torch.empty(0, 3)
    delta = TaskDelta.from_bytes(compress({**base, "none": empty}, {**expert, "none": empty}).to_bytes())
    assert rebuild({**base, "none": empty}, delta)["none"].shape == (0, 3)


def test_tied_tensors_are_stored_once_and_rebuilt_tied(base, expert):
    def tie(state):
        return {**state, "head": state["embedding"]}

    alone, delta = compress(base, expert), compress(tie(base), tie(expert))
    assert delta.parts["head"] == Tied("embedding")
    assert storage(delta).information == storage(alone).information
    assert storage(delta).model == storage(alone).model
    found = rebuild(tie(base), TaskDelta.from_bytes(delta.to_bytes()))
    assert found["head"] is found["embedding"]
    assert torch.equal(found["head"], rebuild(base, alone)["embedding"])
    assert torch.equal(delta.remainder("head"), delta.remainder("embedding"))


def test_tensors_tied_in_the_expert_but_not_in_the_base_are_each_rebuilt_from_their_own_base(base, expert):
    base = {**base, "head": -base["embedding"]}
    expert = {**expert, "head": expert["embedding"]}
    delta = compress(base, expert, keep_ratio=1, groups=8)
    assert isinstance(delta.parts["head"], LowRank)
    found = rebuild(base, delta)
    assert (found["head"] - expert["head"]).norm() < 0.5 * (base["head"] - expert["head"]).norm()


@pytest.mark.parametrize("base_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_expert_of_any_floating_dtype_is_rebuilt_in_its_dtype(base, make_expert, base_dtype, dtype):
    base = {name: tensor.to(base_dtype) for name, tensor in base.items()}
    expert = {name: t.to(dtype) for name, t in make_expert(base, 1, size=0.5).items()}
    found = rebuild(base, TaskDelta.from_bytes(compress(base, expert, keep_ratio=1).to_bytes()))
    assert all(tensor.dtype == dtype for tensor in found.values())
    assert norm({n: found[n].double() - expert[n].double() + base[n].double() for n in base}, base) < 0.6 * norm(
        expert, base
    )


def test_float64_differences_are_computed_in_float64():
    base = {"w": torch.ones(6, 5, dtype=torch.float64), "b": torch.ones(7, dtype=torch.float64)}
    expert = {name: tensor + 1e-12 for name, tensor in base.items()}  # lost if rounded to float32
    found = rebuild(base, compress(base, expert))
    for name in base:
        assert torch.allclose(found[name] - 1, expert[name] - 1, rtol=1e-3, atol=0)


def test_half_precision_is_computed_in_float32():
    base = {"b": torch.full((3,), 6.0e4, dtype=torch.float16)}
    expert = {"b": -base["b"]}  # the difference, -120000, is beyond float16
    assert torch.equal(rebuild(base, compress(base, expert))["b"], expert["b"])


def test_parameters_with_gradients_are_welcome_and_results_have_none(base, expert):
    wanted = rebuild(base, compress(base, expert))
    base, expert = ({n: torch.nn.Parameter(t) for n, t in state.items()} for state in (base, expert))
    found = rebuild(base, compress(base, expert))
    assert all(torch.equal(found[n], wanted[n]) and not found[n].requires_grad for n in wanted)


def test_rebuilding_changes_neither_the_base_nor_the_delta_and_shares_no_memory_with_them(base, expert):
    base, expert = {**base, "steps": torch.tensor([1])}, {**expert, "steps": torch.tensor([2])}
    base["same"] = expert["same"] = torch.ones(3)
    before, delta = {n: t.clone() for n, t in base.items()}, compress(base, expert)
    first = rebuild(base, delta)
    kept = {n: t.clone() for n, t in first.items()}
    for tensor in first.values():
        tensor.zero_()
    assert all(torch.equal(base[n], before[n]) for n in base)
    assert all(torch.equal(t, kept[n]) for n, t in rebuild(base, delta).items())


def test_compressing_keeps_no_memory_of_the_expert(base, expert):
    base, expert = {**base, "steps": torch.tensor([1])}, {**expert, "steps": torch.tensor([2])}
    delta = compress(base, expert)
    data = delta.to_bytes()
    for tensor in expert.values():
        tensor.zero_()
    assert delta.to_bytes() == data


# --- settings ---


@pytest.mark.parametrize("keep_ratio", [0.01, 0.29, 1])
@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("scale", ["rms", "mean"])
@pytest.mark.parametrize("per", ["matrix", "vector"])
def test_every_setting_gives_the_ranks_codes_and_a_file_that_rebuilds_the_same(
    base, expert, keep_ratio, groups, scale, per
):
    delta = compress(base, expert, keep_ratio=keep_ratio, groups=groups, scale=scale, per=per)
    for name, part in delta.parts.items():
        if isinstance(part, LowRank):
            rank = rank_of(expert[name].shape, keep_ratio)
            assert (part.left.shape, part.right.shape) == ((rank, expert[name].shape[0]), (rank, expert[name].shape[1]))
            assert part.left.scales.shape == part.right.scales.shape == (rank if per == "vector" else 1, groups)
            for coded in (part.left, part.right):
                for vector in coded.restore() if per == "vector" else [coded.restore()]:
                    assert len(vector.unique()) <= groups
    read = TaskDelta.from_bytes(delta.to_bytes())
    assert Settings(**read.settings) == Settings(keep_ratio, groups, scale, per)
    found, again = rebuild(base, delta), rebuild(base, read)
    assert all(torch.equal(found[n], again[n]) for n in base)
    if scale == "mean":  # least squares cannot be further from the expert's vectors than the base is
        assert (found["norm.weight"] - expert["norm.weight"]).norm() < (
            base["norm.weight"] - expert["norm.weight"]
        ).norm()


def test_more_groups_and_more_components_come_closer_to_the_expert(base, expert):
    def error(**settings) -> float:
        return norm(rebuild(base, compress(base, expert, scale="mean", **settings)), expert)

    assert error(groups=8) < error(groups=4) < error(groups=2) < norm(expert, base)
    assert error(keep_ratio=1) < error(keep_ratio=0.5) < error(keep_ratio=0.1)


def test_scales_per_vector_come_closer_than_per_matrix_where_vectors_differ_in_shape():
    # One component is a spike, one is spread out: one set of values cannot fit both.
    u, v = torch.zeros(2, 40), torch.zeros(2, 40)
    u[0, 0] = v[0, 0] = 1.0
    u[1, 1:] = v[1, 1:] = 39**-0.5
    base = {"w": torch.zeros(40, 40)}
    expert = {"w": 2 * torch.outer(u[0], v[0]) + torch.outer(u[1], v[1])}
    errors = {
        per: norm(rebuild(base, compress(base, expert, keep_ratio=0.05, per=per)), expert)
        for per in ("matrix", "vector")
    }
    assert errors["vector"] < 1e-2 < 0.3 < errors["matrix"]


@pytest.mark.parametrize("algorithm", ["exact", "gram", "randomised"])
def test_every_algorithm_compresses_to_about_the_same_error(tower, algorithm):
    name = "transformer.resblocks.0.mlp.c_fc.weight"
    base, expert = ({name: state[name]} for state in tower)
    exact = norm(rebuild(base, compress(base, expert, algorithm="exact")), expert)
    assert norm(rebuild(base, compress(base, expert, algorithm=algorithm)), expert) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_ratio": 0}, r"keep_ratio is 0: it must lie in \(0, 1\]"),
        ({"keep_ratio": -0.1}, "keep_ratio is -0.1"),
        ({"keep_ratio": 1.0001}, "keep_ratio is 1.0001"),
        ({"keep_ratio": float("nan")}, "keep_ratio is nan"),
        ({"keep_ratio": float("inf")}, "keep_ratio is inf"),
        ({"groups": 3}, "groups is 3: choose one of 2, 4, 8"),
        ({"scale": "max"}, "scale is 'max': choose one of rms, mean"),
        ({"per": "row"}, "per is 'row': choose one of matrix, vector"),
        ({"algorithm": "fast"}, "algorithm is 'fast': choose one of auto"),
    ],
)
def test_a_setting_out_of_range_is_refused_before_any_work(base, expert, settings, message):
    with pytest.raises(DTSError, match=message):
        compress(base, expert, **settings, progress=pytest.fail)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b, e: e.pop("embedding"), "lacks 'embedding'"),
        (lambda b, e: b.pop("embedding"), "has beyond it 'embedding'"),
        (lambda b, e: e.update(embedding=torch.ones(12, 17)), "'embedding' has shape"),
        (lambda b, e: e["embedding"].fill_(float("nan")), "expert, tensor 'embedding'"),
        (lambda b, e: b["embedding"].fill_(float("inf")), "base, tensor 'embedding'"),
        (lambda b, e: e.clear(), "the expert is an empty state dict"),
        (lambda b, e: b.clear(), "the base is an empty state dict"),
        (
            lambda b, e: [s.update({n: t.int() for n, t in s.items()}) for s in (b, e)],
            "base, tensor .conv.weight.: holds codes",
        ),
    ],
)
def test_bad_state_dicts_are_refused_before_any_work(base, expert, spoil, message):
    spoil(base, expert)
    with pytest.raises(StateError, match=message):
        compress(base, expert, progress=pytest.fail)


@pytest.mark.parametrize("settings", [{}, {"budget": 4_000}, {"method": "drc", "budget": 4_000}])
def test_progress_is_told_every_tensor_once(base, expert, settings):
    told = []
    compress(base, expert, progress=told.append, **settings)
    assert sorted(told) == sorted(expert)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b["embedding"].view(-1)[0].add_(1e-6),
        lambda b: b.pop("norm.weight"),
        lambda b: b.update(extra=torch.ones(1)),
        lambda b: b.update(embedding=b["embedding"].double()),
    ],
    ids=["value", "missing", "extra", "dtype"],
)
def test_a_base_that_the_delta_was_not_made_for_is_refused(base, expert, spoil):
    delta = compress(base, expert)
    rebuild(dict(reversed(base.items())), delta)  # the order of names is not part of a base
    spoil(base)
    with pytest.raises(StateError, match=r"not the one that the delta was made for .*pass that base"):
        rebuild(base, delta)


def test_the_expert_is_refused_as_the_base(base, expert):
    with pytest.raises(StateError, match="not the one"):
        rebuild(expert, compress(base, expert))


def test_the_difference_from_a_merged_model_is_compressed_without_a_pretrained_one(experts):
    merged = average(experts)
    for expert in experts:
        found = rebuild(merged, compress(merged, expert, keep_ratio=1, scale="mean"))
        assert norm(found, expert) < 0.6 * norm(merged, expert)


# --- storage ---

SHAPES = {"w": (96, 32), "conv": (8, 3, 4, 4), "b": (33,), "scale": ()}


def counted(tmp_path, base, expert, **settings):
    delta = compress(base, expert, **settings)
    counts, path = storage(delta), delta.save(tmp_path / "t.dts.safetensors")
    assert counts.file == path.stat().st_size == len(delta.to_bytes())
    assert storage(load(path)) == counts
    with safe_open(path, "pt") as file:
        recorded = json.loads(file.metadata()["dts"])["storage"]
    assert recorded == {n: getattr(counts, n) for n in ("paper", "information", "model", "file")}
    return counts


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return base, {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in base.items()}


# Of w, r = floor(0.25 * 32) = 8 components are kept: 8 * (96 + 32) = 1024 codes. conv has 384 codes, b has 33.
@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        ({}, 2 * (1024 + 384 + 33) + 32 * (2 + 1 + 1) * 4),
        ({"groups": 2}, 1 * (1024 + 384 + 33) + 32 * (2 + 1 + 1) * 2),
        ({"groups": 8}, 3 * (1024 + 384 + 33) + 32 * (2 + 1 + 1) * 8),
        ({"per": "vector"}, 2 * (1024 + 384 + 33) + 16 * (2 * 8) * 4 + 32 * (1 + 1) * 4),
    ],
    ids=["4 groups", "2 groups", "8 groups", "per vector"],
)
def test_the_three_counts_are_those_recomputed_by_hand_from_the_shapes(tmp_path, pair, settings, bits):
    counts = counted(tmp_path, *pair, keep_ratio=0.25, **settings)
    assert counts.paper == math.ceil((3 * (1024 + 384 + 33) + 32 * 8) / 8)
    assert counts.information == math.ceil((bits + 32 * 8 + 32) / 8)  # 8 singular values, one 0-D tensor
    assert counts.model == 4 * (96 * 32 + 384 + 33 + 1)
    assert counts.share() == counts.file / counts.model
    assert counts.share("paper") == counts.paper / counts.model
    assert counts.share("information") == counts.information / counts.model


@pytest.mark.parametrize(("zeros", "bits"), [(1, 32), (12, 12 * 32), (13, 384), (300, 384)])
def test_exact_zeros_cost_their_positions_or_a_bit_an_element_whichever_is_less(tmp_path, pair, zeros, bits):
    base, expert = pair
    before = counted(tmp_path, base, expert).information
    (tmp_path / "t.dts.safetensors").unlink()
    expert["conv"].view(-1)[:zeros] = base["conv"].view(-1)[:zeros]
    assert counted(tmp_path, base, expert).information - before == bits // 8


def test_kept_integers_count_as_information_and_four_bytes_a_number_of_the_model(tmp_path, pair):
    base, expert = pair
    before = storage(compress(base, expert))
    base, expert = {**base, "ids": torch.zeros(5).long()}, {**expert, "ids": torch.ones(5).long()}
    after = counted(tmp_path, base, expert)
    assert after.information - before.information == 8 * 5
    assert after.model - before.model == 4 * 5
    assert after.paper == before.paper


@pytest.mark.parametrize(("keep_ratio", "most"), [(0.3, 1.10), (0.1, 1.20)])
@pytest.mark.parametrize("per", ["matrix", "vector"])
def test_the_file_of_the_mini_tower_is_little_larger_than_its_information(tmp_path, tower, keep_ratio, most, per):
    counts = counted(tmp_path, *tower, keep_ratio=keep_ratio, per=per)
    assert counts.information < counts.file <= most * counts.information
    assert counts.share() < {0.3: 0.03, 0.1: 0.0125}[keep_ratio]


def test_a_coded_factor_restores_what_threshold_and_scale_left_of_it():
    x = torch.tensor([[3.0, 4, 1, 1, -2, -6, -1, 0]])
    for per in ("matrix", "vector"):
        coded = Settings(scale="mean", per=per).coded(x)
        assert coded.restore().tolist() == [[3.5, 3.5, 1, 1, -1.5, -6, -1.5, 0]]
        assert coded.zeros.tolist() == [7]


def test_a_difference_that_overflows_is_refused_with_the_tensors_name():
    base = {"w": torch.full((4, 4), -3e38), "b": torch.zeros(3)}
    with pytest.raises(StateError, match="tensor 'w': expert - base does not fit into float32"):
        compress(base, {"w": torch.full((4, 4), 3e38), "b": torch.ones(3)})


def test_a_difference_far_below_one_is_still_a_difference():
    base = {"b": torch.zeros(4)}
    expert = {"b": torch.tensor([1e-30, 2e-30, -1e-30, -2e-30])}
    assert torch.allclose(rebuild(base, compress(base, expert))["b"], expert["b"], rtol=1e-6, atol=0)


def test_the_order_of_a_state_dict_does_not_change_the_file(base, expert):
    backwards = dict(reversed(expert.items()))
    assert compress(base, backwards).to_bytes() == compress(base, expert).to_bytes()


@pytest.mark.parametrize(
    ("name", "layout"), [("attn.in_proj_weight", "fused"), ("self_attn.q_proj.weight", "split"), ("fc.weight", "none")]
)
def test_the_manifest_records_the_layout_of_the_attention_weights(name, layout, tmp_path):
    path = compress({name: torch.zeros(4, 4)}, {name: torch.eye(4)}).save(tmp_path / "d.safetensors")
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["dts"])["attention"] == layout
