"""State dicts: fingerprints, ties, and what is refused before any work."""

import pytest
import torch

from dts_mini.core.errors import StateError
from dts_mini.core.state import check_same_layout, check_state, compute_dtype, digest, fingerprint, seal

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
