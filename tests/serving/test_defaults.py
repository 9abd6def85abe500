"""PyTorch's default device and dtype are the caller's: whatever they are, an adapter and an answer are the same bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from served import MODELS, bits, experts_of, make, samples
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dts_mini import compress, rebuild
from dts_mini.serving.expert import Base, Expert
from dts_mini.serving.live import run
from dts_mini.serving.lora import export_lora, import_lora
from dts_mini.serving.swap import Swapper, unpacked

AMBIENT = ["float64", "bfloat16", "meta"]


@contextmanager
def around(ambient: str) -> Iterator[None]:
    try:
        if ambient == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, ambient))
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def equal(one: object, other: object) -> bool:
    pairs = zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True)
    return all(
        x.dtype == y.dtype and x.device == y.device and torch.equal(x, y) if isinstance(x, Tensor) else x == y
        for x, y in pairs
    )


SETTINGS = [{}, {"rank": 2}, {"dtype": "float16"}, {"rank": 2, "dtype": "bfloat16"}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("ambient", AMBIENT)
@pytest.mark.parametrize("stays", ["nothing", "a weight", "a bias", "all others"])
def test_an_adapter_is_the_same_bytes_and_is_read_alike(stays, ambient, settings, tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(24, 16), nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 8)).eval()
    base = module.state_dict()
    gone = {"nothing": (), "a weight": ("2.weight",), "a bias": ("2.bias",), "all others": ("0", "1", "2")}[stays]
    expert = {n: x if n.startswith(gone) and gone else x + 0.1 * torch.randn(x.shape) for n, x in base.items()}
    delta = compress(base, expert, keep=["3.bias"])
    wanted = export_lora(delta, module, tmp_path / "wanted", **settings)
    with around(ambient):
        assert export_lora(delta, module, tmp_path / "found", **settings) == wanted
        again = import_lora(tmp_path / "found", base, module)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "found" / file).read_bytes() == (tmp_path / "wanted" / file).read_bytes()
    assert again == import_lora(tmp_path / "wanted", base, module)


@pytest.mark.parametrize("ambient", AMBIENT)
@pytest.mark.parametrize("name", [name for name in MODELS if "causal" not in name and "its weights" not in name])
def test_an_expert_and_a_mixed_batch_answer_with_the_same_bits(name, ambient):
    module, inputs = make(name), samples(name, 5)
    deltas = experts_of(module, 2, keep_ratio=0.2)
    answers = lambda experts: (run(experts[0], *inputs), run([experts[i] for i in (1, 0, 0, 1, 0)], *inputs))
    base = Base(module)
    wanted, before = answers([Expert(base, delta) for delta in deltas]), bits(module)
    with around(ambient):
        base = Base(module)
        found = answers([Expert(base, delta) for delta in deltas])
    assert equal(found, wanted)
    assert equal(dict(module.state_dict()), before)


@pytest.mark.parametrize("ambient", AMBIENT)
def test_swapped_weights_are_the_same_bits(ambient):
    module = make("linear")
    (delta,) = experts_of(module, 1)
    wanted, before = rebuild(module.state_dict(), delta), bits(module)
    with around(ambient):
        swapper = Swapper(module)
        swapper.to(unpacked(delta))
        assert equal(dict(sorted(module.state_dict().items())), wanted)
        swapper.to(None)
    assert equal(dict(module.state_dict()), before)
