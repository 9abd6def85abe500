"""State dicts: fingerprints, ties, and what is refused before any work."""

import re
from functools import partial

import pytest
import torch

from dts_mini import TaskDelta, compress, fuse, rebuild
from dts_mini.core.errors import StateError
from dts_mini.core.merging import MERGES
from dts_mini.core.state import (
    check_outline,
    check_same_layout,
    check_state,
    check_tensors,
    compute_dtype,
    digest,
    fingerprint,
    is_statistic,
    quantised,
    seal,
)

STATE = {"a": torch.tensor([[1.0, 2, 3], [4, 5, 6]]), "b": torch.tensor(0.5), "n": torch.tensor([7, 8])}


def changed(**tensors) -> dict:
    return {**STATE, **tensors}


def test_the_fingerprint_is_32_hex_digits_and_the_same_for_equal_states():
    copy = {name: tensor.clone() for name, tensor in STATE.items()}
    assert fingerprint(STATE) == fingerprint(copy)
    assert len(fingerprint(STATE)) == 32
    assert int(fingerprint(STATE), 16) > 0


def test_the_fingerprint_does_not_depend_on_the_order_of_names_nor_on_strides_or_gradients():
    reordered = dict(reversed(STATE.items()))
    strided = changed(a=STATE["a"].T.contiguous().T)
    parameter = changed(a=torch.nn.Parameter(STATE["a"]))
    assert fingerprint(STATE) == fingerprint(reordered) == fingerprint(strided) == fingerprint(parameter)


@pytest.mark.parametrize(
    "other",
    [
        changed(a=STATE["a"].nextafter(torch.tensor(9.0))),
        changed(a=STATE["a"].flip(1)),
        changed(a=STATE["a"].reshape(3, 2)),
        changed(a=STATE["a"].double()),
        changed(b=torch.tensor([0.5])),
        changed(b=torch.tensor(-0.5)),
        changed(n=torch.tensor([7, 9])),
        changed(n=torch.tensor([7, 8], dtype=torch.int32)),
        changed(n=STATE["n"].view(torch.float64)),
        changed(a=STATE["b"], b=STATE["a"]),
        changed(extra=torch.empty(0)),
        {name: STATE[name] for name in ("a", "b")},
        {"A" if name == "a" else name: tensor for name, tensor in STATE.items()},
    ],
    ids=[
        "ulp",
        "order",
        "shape",
        "dtype",
        "0-D",
        "sign",
        "integer",
        "int dtype",
        "same bytes",
        "swap",
        "extra",
        "missing",
        "name",
    ],
)
def test_the_fingerprint_tells_states_apart_by_value_shape_dtype_and_name(other):
    assert fingerprint(other) != fingerprint(STATE)


def test_the_fingerprint_tells_bfloat16_values_apart():
    one, two = ({"w": torch.tensor([x], dtype=torch.bfloat16)} for x in (1.0, 1.0078125))
    assert fingerprint(one) != fingerprint(two)


def test_the_fingerprint_is_the_seal_of_the_tensors_digests():
    assert fingerprint(STATE) == seal({name: digest(tensor) for name, tensor in reversed(STATE.items())})


def test_a_digest_is_the_same_for_equal_tensors_alone():
    x = torch.tensor([[1.0, -0.0], [2.0, 3.0]])
    assert digest(x) == digest(x.T.contiguous().T) == digest(x.clone().requires_grad_())
    others = [x.T, x.half(), x.reshape(4), x + 1e-7, x.abs(), x.view(torch.int32)]
    assert len({digest(other) for other in [x, *others]}) == 7


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_computation_is_in_float32_or_better(dtype, computed):
    assert compute_dtype(torch.ones(1, dtype=dtype)) == computed


def test_a_good_state_passes_with_integers_empty_tensors_and_scalars():
    check_state({**STATE, "empty": torch.empty(0, 3), "flag": torch.tensor(True)}, "expert")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_value_that_is_not_finite_is_refused_with_the_tensors_name(value, dtype):
    bad = STATE["a"].to(dtype, copy=True)
    bad[1, 2] = value
    with pytest.raises(StateError, match="the-expert, tensor 'a': 1 of 6 values are NaN or infinite"):
        check_state(changed(a=bad), "the-expert")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "empty state dict"),
        ({"n": torch.tensor([1]), "flag": torch.tensor(True)}, "holds only integers"),
        ({"w": [1.0]}, "not a state dict"),
        ([torch.ones(1)], "not a state dict"),
        ({0: torch.ones(1)}, "not a state dict: 0 is no name"),
        ({**STATE, ("w", 0): torch.ones(1)}, r"not a state dict: \('w', 0\) is no name"),
        ({**STATE, "w\ud800": torch.ones(1)}, "not a state dict: .* is no name"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "tensor 'w': torch.complex64"),
        (None, "not a state dict"),
        ({**STATE, "w": torch.ones(2, dtype=torch.complex64)}, "tensor 'w': torch.complex64"),
        ({**STATE, "w": torch.ones(2).to(torch.float8_e4m3fn)}, "tensor 'w': torch.float8_e4m3fn is not supported"),
        ({**STATE, "w": torch.ones(2, device="meta")}, "tensor 'w': meta"),
        ({**STATE, "w": torch.ones(2, 2).to_sparse()}, "tensor 'w': meta and sparse"),
    ],
)
def test_what_cannot_be_compressed_is_refused_and_said_whose_it_is(state, message):
    with pytest.raises(StateError, match=message) as raised:
        check_state(state, "second-expert")
    assert "second-expert" in str(raised.value)


def test_states_of_one_layout_fit_in_any_order_and_floating_dtype():
    check_same_layout(STATE, dict(reversed(changed(a=STATE["a"].half()).items())), "expert")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({name: STATE[name] for name in ("a", "n")}, "lacks 'b'"),
        (changed(extra=torch.ones(1)), "has beyond it 'extra'"),
        ({"a": STATE["a"], "n": STATE["n"], "B": STATE["b"]}, "lacks 'b' and has beyond it 'B'"),
        (changed(a=torch.ones(3, 2)), r"'a' has shape \(3, 2\) in the expert and \(2, 3\) in the base"),
        (changed(b=torch.ones(1)), r"'b' has shape \(1,\) in the expert and \(\) in the base"),
        (changed(n=torch.ones(2)), r"'n' is torch.float32 in the expert and torch.int64 in the base"),
    ],
)
def test_states_that_do_not_fit_are_refused_with_the_tensors_name(other, message):
    with pytest.raises(StateError, match=message):
        check_same_layout(STATE, other, "expert")


def test_of_many_missing_names_three_are_shown_and_the_rest_counted():
    base = {f"w{i}": torch.ones(1) for i in range(8)}
    with pytest.raises(StateError, match="lacks 'w1', 'w2', 'w3' and 4 more"):
        check_same_layout(base, {"w0": torch.ones(1)}, "expert")


# --- constants ---

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("values", [[0.0, -INF], [NAN, 1.0], [NAN, INF]])
@pytest.mark.parametrize("dtypes", [[torch.float32] * 3, [torch.float16, torch.float32, torch.float64]])
def test_tensors_that_are_equal_bit_by_bit_need_not_be_finite(values, dtypes):
    check_tensors([torch.tensor(values).to(dtype) for dtype in dtypes], "mask", ["base", "expert 1", "expert 2"])


@pytest.mark.parametrize(
    ("base", "expert", "whose"),
    [
        ([0.0, -INF], [1.0, -INF], "base"),
        ([0.0, -INF], [-0.0, -INF], "base"),
        ([0.0, -INF], [0.0, INF], "base"),
        ([0.0, 1.0], [0.0, -INF], "expert"),
        ([0.0, NAN], [0.0, 1.0], "base"),
    ],
)
def test_of_tensors_that_differ_one_that_is_not_finite_is_refused_and_whose_it_is_said(base, expert, whose):
    with pytest.raises(StateError, match=f"{whose}, tensor 'mask': 1 of 2 values are NaN or infinite"):
        check_tensors([torch.tensor(base), torch.tensor(expert)], "mask", ["base", "expert"])


def test_one_tensor_alone_must_be_finite_and_meta_tensors_are_never_equal():
    with pytest.raises(StateError, match="base, tensor 'mask'"):
        check_tensors([torch.tensor([INF])], "mask", ["base"])
    with pytest.raises(StateError, match="expert, tensor 'mask': meta"):
        check_tensors([torch.ones(1), torch.ones(1, device="meta")], "mask", ["base", "expert"])


def test_the_negative_bit_of_a_tensor_changes_no_digest():
    x = torch.tensor([1.0, -2.0])
    assert digest(torch._neg_view(-x)) == digest(x) == digest(torch.complex(x, -x).conj().imag)


# --- names of statistics ---


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("bn1.running_mean", True),
        ("running_var", True),
        ("stem_bn_running_var", True),
        ("layer1.0.bn.num_batches_tracked", True),
        ("norm.moving_variance", True),
        ("norm.running_std", True),
        ("norm.running_avg_var", True),
        *((f"bn.{last}", True) for last in ("avg_mean", "avg_var", "ema_var", "var_ema", "running_m2", "running_vars")),
        *(
            (f"bn.{last}", True)
            for last in ("running_var_0", "running_mean.0", "runningVar", "running_inv_std", "_mean")
        ),
        *((f"bn{last}", True) for last in ("/moving_variance:0", "/~/var_ema/average", "._var", "._std")),
        *((f"vq.{last}", True) for last in ("cluster_size", "ema_cluster_size", "embed_avg")),
        *((f"act.observer.{last}", True) for last in ("min_val", "max_val", "min_vals")),
        *((f"batch_stats{dot}bn{dot}{last}", True) for dot in "./" for last in ("mean", "var")),
        ("batch_stats.mean.kernel", False),
        ("params.bn.mean", False),
        ("running_var.0.weight", False),
        ("mean_ema.bias", False),
        ("head_var", False),
        ("mean_val", False),
        ("encoder.max_value", False),
        ("ema.weight", False),
        ("window_size", False),
        ("bn1.weight", False),
        ("running_mean.weight", False),
        ("moving.weight", False),
        ("mean", False),
        ("forerunning_mean", False),
        ("running_track.bias", False),
    ],
)
def test_statistics_are_told_by_the_ends_of_their_names(name, is_one):
    assert is_statistic(name) is is_one


# --- quantised models ---

ones = torch.ones
CODED = {
    "GPTQ": {
        "q.g_idx": ones(8, dtype=torch.int32),
        "q.qweight": ones(8, 8, dtype=torch.int32),
        "q.qzeros": ones(1, 1, dtype=torch.int32),
        "q.scales": ones(1, 8).half(),
    },
    "int8 by row": {"fc.weight": ones(8, 8, dtype=torch.int8), "fc.weight_scale": ones(8, 1)},
    "bitsandbytes int8": {"fc.weight": ones(8, 8, dtype=torch.int8), "fc.SCB": ones(8)},
    "bitsandbytes 4 bits": {
        "fc.weight": ones(32, 1, dtype=torch.uint8),
        "fc.weight.absmax": ones(1),
        "fc.weight.quant_map": ones(16),
        "fc.weight.quant_state.bitsandbytes__nf4": ones(90, dtype=torch.uint8),
    },
    "4 bits packed into a floating tensor": {"fc.weight": ones(8, 1).bfloat16(), "fc.weight.absmax": ones(1)},
    "compressed-tensors": {
        "fc.weight_packed": ones(8, 1, dtype=torch.int32),
        "fc.weight_scale": ones(8, 1).bfloat16(),
        "fc.weight_shape": torch.tensor([8, 8]),
    },
    "blocks of a shared exponent": {
        "mlp.down_proj_blocks": ones(2, 8, 1, 16, dtype=torch.uint8),
        "mlp.down_proj_scales": ones(2, 8, 1, dtype=torch.uint8),
    },
    "codes with a zero point": {"fc.w_q": ones(8, 4, dtype=torch.uint8), "fc.scale": ones(8, 1), "fc.zero": ones(8, 1)},
    "codes of a name of their own": {"fc.kept": ones(8, 8, dtype=torch.int16), "fc.kept_scale": ones(())},
    "a subclass's parts": {"fc.weight._data": ones(8, 8, dtype=torch.int8), "fc.weight._scale": ones(8, 1)},
    "a flat module": {"codes": ones(8, 8, dtype=torch.int8), "scale": ones(())},
    "packed codes, scales of one letter": {
        "q.B": ones(8, 64, dtype=torch.int32),
        "q.s": ones(4, 64).half(),
        "q.workspace": ones(16, dtype=torch.int32),
    },
    "indices into centroids": {
        "q.indices": ones(1, 8, 64, dtype=torch.int32),
        "q.centroids.weight": ones(1, 256, 8),
        "q.weight_scale": ones(64),
    },
    "a trellis": {"q.trellis": ones(4, 4, 48, dtype=torch.int16), "q.suh": ones(64).half(), "q.svh": ones(64).half()},
    "indices into a table of values": {"fc.idx": ones(8, 8, dtype=torch.uint8), "fc.lut": ones(16)},
    "indices and a table called after the weight": {
        "fc.weight_indices": ones(8, 8, dtype=torch.uint8),
        "fc.weight_lut": ones(16),
    },
    "codes and a table a row": {"fc.codes": ones(8, 8, dtype=torch.uint8), "fc.lookup_table": ones(8, 16)},
    "codes beside a matrix": {"fc.q": ones(8, 8, dtype=torch.int8), "fc.s": ones(8), "fc.kernel": ones(3, 4)},
    "a delta": {"fc.w": ones(8, 8, dtype=torch.int8), "fc.w_delta": ones(8)},
    "a step": {"fc.w": ones(8, 8, dtype=torch.int8), "fc.step_size": ones(8)},
    "ternary": {"fc.w": ones(8, 8, dtype=torch.int8), "fc.absmean": ones(1)},
    "a table of codes": {"e.table": ones(8, 8, dtype=torch.int8), "e.table_scale": ones(8)},
    "scales of a matrix's shape": {"fc.kept": ones(8, 8, dtype=torch.int8), "fc.weight_scale": ones(8, 1)},
    "a kernel without its scale": {"conv.kernel": ones(8, 8, dtype=torch.int8)},
}
HONEST = {
    "BatchNorm": {"bn.weight": ones(8), "bn.running_var": ones(8), "bn.num_batches_tracked": torch.tensor(7)},
    "position ids beside a learned scale": {
        "text.position_ids": torch.arange(8)[None],
        "text.weight": ones(8, 8),
        "text.scale": ones(8),
        "logit_scale": ones(()),
    },
    "short position ids, no matrix beside": {
        "position_ids": torch.arange(8, dtype=torch.int32)[None],
        "scale": ones(()),
    },
    "token types": {"e.token_type_ids": ones(1, 8, dtype=torch.uint8), "e.scale": ones(8)},
    "a causal mask in uint8": {"attn.bias": ones(1, 1, 8, 8, dtype=torch.uint8), "attn.c_attn.weight": ones(8, 24)},
    "a mask beside a temperature": {"attn.mask": ones(8, 8, dtype=torch.uint8), "attn.scale": ones(4, 1, 1)},
    "a bool mask": {"attn.allowed": ones(8, 8, dtype=torch.bool), "attn.scale": ones(())},
    "a pruning mask": {"fc.weight_orig": ones(8, 8), "fc.weight_mask": ones(8, 8, dtype=torch.bool)},
    "relative positions": {
        "attn.relative_position_index": ones(49, 49, dtype=torch.int64),
        "attn.logit_scale": ones(4, 1, 1),
        "attn.relative_position_bias_table": ones(169, 4),
    },
    "layer scale": {"ls1.gamma": ones(8), "ls1.scale": ones(8), "attn.qkv.weight": ones(24, 8)},
    "a table beside a matrix": {"adjacency": ones(8, 8, dtype=torch.int8), "scale": ones(()), "embedding": ones(8, 4)},
    "weight norm": {"fc.weight_g": ones(8, 1), "fc.weight_v": ones(8, 8), "fc.scale": ones(8)},
    "floats with a scale": {"fc.weight": ones(8, 8).half(), "fc.weight_scale": ones(8, 1)},
    "weights of classes": {"class_weights": torch.arange(4), "fc.weight": ones(8, 8)},
    "short weights of classes": {"loss.class_weights": ones(4, dtype=torch.int32), "loss.scale": ones(4)},
    "random attention beside a scale": {"attn.rand_attn": ones(4, 4, dtype=torch.int32), "attn.scale": ones(1)},
    "an integer table beside a scale": {"layer.table": ones(4, 4, dtype=torch.int32), "layer.scale": ones(4)},
    "32 bits beside one number": {"layer.whatever": ones(4, 4, dtype=torch.int32), "layer.scale": ones(())},
    "buckets of positions": {
        "rpe.lookup_table_bucket": ones(4, 4, dtype=torch.int32),
        "rpe.lookup_table_weight": ones(2, 4),
    },
    "an index beside a bias table": {
        "attn.relative_position_index": ones(9, 9, dtype=torch.int32),
        "attn.relative_position_bias_table": ones(25, 4),
    },
    "training for codes, still in floats": {
        "fc.weight": ones(8, 8),
        "fc.fake.fake_quant_enabled": ones(1, dtype=torch.uint8),
        "fc.fake.observer_enabled": ones(1, dtype=torch.uint8),
        "fc.fake.scale": ones(1),
        "fc.fake.zero_point": ones(1, dtype=torch.int32),
    },
    "a codebook that is trained": {"vq.codebook": ones(16, 8), "vq.cluster_size": ones(16), "vq.initted": ones(1)},
    "a generator": {"rng_state": ones(5056, dtype=torch.uint8), "scale": ones(())},
}


@pytest.mark.parametrize("tensors", CODED.values(), ids=CODED)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_codes_of_quantised_weights_are_refused_by_name_with_the_mend(tensors, device):
    state = {"norm.weight": torch.ones(8), **{n: t.to(device) for n, t in tensors.items()}, "head.weight": ones(4, 8)}
    codes = list(tensors)[tensors.keys() >= {"q.g_idx"}]
    assert quantised(state) == quantised(dict(reversed(state.items()))) == codes
    with pytest.raises(StateError, match=rf"expert, tensor '{codes}': holds codes .* dequantise the model first"):
        check_outline(state, "expert")


@pytest.mark.parametrize("tensors", HONEST.values(), ids=HONEST)
def test_honest_integers_and_learned_scales_pass(tensors):
    assert quantised(tensors) is None
    check_state(tensors, "expert")


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_a_tensor_of_a_dtype_for_codes_alone_is_refused():
    x = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.quint8)
    with pytest.raises(StateError, match=r"expert, tensor 'x': holds codes .*quint8"):
        check_outline({"a": torch.ones(1), "x": x}, "expert")


def test_a_tensor_that_keeps_its_values_in_others_and_an_entry_that_is_no_tensor_are_refused_by_name():
    class Packed(torch.Tensor):
        def __tensor_flatten__(self):
            return [], None

    with pytest.raises(StateError, match=r"expert, tensor 'w': Packed .*dequantize"):
        check_outline({"w": torch.ones(2).as_subclass(Packed)}, "expert")
    with pytest.raises(
        StateError, match=r"expert is not a state dict: 'fc._packed_params.dtype' is no tensor \(dtype\)"
    ):
        check_outline({"w": torch.ones(2), "fc._packed_params.dtype": torch.qint8}, "expert")


def test_a_weight_of_eight_floating_bits_is_to_be_dequantised():
    state = {"fc.weight": torch.ones(2, 2).to(torch.float8_e4m3fn), "fc.weight_scale_inv": torch.ones(1, 1)}
    with pytest.raises(StateError, match=r"tensor 'fc.weight': .*float8_e4m3fn is not supported.*; dequantise"):
        check_state(state, "expert")


UNCOMPUTED = {
    "complex": torch.polar(torch.ones(6, 3), torch.linspace(-3, 3, 18).view(6, 3)),
    "complex, with a NaN": torch.full((2,), float("nan"), dtype=torch.complex128),
    "8 floating bits": torch.linspace(-3, 3, 8).to(torch.float8_e4m3fn),
    "more of them": torch.linspace(-3, 3, 8).to(torch.float8_e5m2),
}


@pytest.mark.parametrize("method", ["dts", "drc"])
@pytest.mark.parametrize("constant", UNCOMPUTED.values(), ids=UNCOMPUTED)
def test_a_constant_of_a_dtype_that_is_not_computed_with_is_kept_where_all_are_equal(constant, method):
    draw = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(30, 20, generator=draw), "freqs_cis": constant}
    expert = {"w": base["w"] + torch.randn(30, 20, generator=draw), "freqs_cis": constant.clone()}
    file = compress(base, expert, method=method, budget=2000).to_bytes()
    delta = TaskDelta.from_bytes(file)
    states = [rebuild(base, delta), fuse(base, [delta, delta], [0.5, 0.5])]
    for name, merge in MERGES.items():
        states.append(merge([expert, expert]) if name == "average" else merge(base, [expert, expert]))
    for state in states:
        assert state["freqs_cis"].dtype == constant.dtype and digest(state["freqs_cis"]) == digest(constant)


DTYPES = {
    x for x in vars(torch).values() if isinstance(x, torch.dtype) and not re.match(r"torch\.(q|u?int[1-7]$)", str(x))
}


@pytest.mark.parametrize("dtype", sorted(DTYPES, key=str), ids=str)
def test_a_constant_of_any_dtype_lies_in_a_file_that_is_read_again_or_is_refused_before(dtype):
    constant = torch.zeros(32, dtype=torch.uint8).view(dtype)
    base = {"w": torch.eye(3), "constant": constant}
    try:
        delta = compress(base, {"w": torch.ones(3, 3), "constant": constant})
    except StateError as error:
        assert "'constant'" in str(error)
        return
    assert digest(rebuild(base, TaskDelta.from_bytes(delta.to_bytes()))["constant"]) == digest(constant)


@pytest.mark.parametrize("constant", UNCOMPUTED.values(), ids=UNCOMPUTED)
def test_of_such_a_dtype_what_differs_is_refused_by_name_even_if_it_is_to_be_kept(constant):
    base = {"w": torch.eye(3), "freqs_cis": constant}
    for other in (constant.flip(0).nan_to_num(1) if constant.is_complex() else constant.float().flip(0), torch.ones(9)):
        expert = {"w": torch.ones(3, 3), "freqs_cis": other}
        for work in (
            compress,
            partial(compress, keep=["freqs_cis"]),
            lambda base, expert: MERGES["average"]([base, expert]),
            lambda base, expert: MERGES["ties"](base, [expert]),
        ):
            with pytest.raises(StateError, match="tensor 'freqs_cis'"):
                work(base, expert)


def test_a_conjugate_view_has_the_digest_of_what_it_stands_for():
    x = torch.tensor([1 + 2j, 3 - 1j])
    assert digest(x.conj()) == digest(x.conj().resolve_conj()) != digest(x)
