"""Materialise: a swapped module has the bits of ``rebuild``, the first time and the thousandth."""

import pytest
import torch
from served import MODELS, bits, experts_of, image_tower, make, same
from torch import nn

from dts_mini import compress, rebuild
from dts_mini.core import delta as delta_module
from dts_mini.core.errors import StateError
from dts_mini.serving import Swapper, unpacked
from dts_mini.serving import swap as swap_module


def has(module: nn.Module, state: dict) -> bool:
    return all(torch.equal(module.state_dict()[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("settings", [{"keep_ratio": 0.1}, {"method": "drc", "notch": 384}], ids=["dts", "drc"])
@pytest.mark.parametrize("name", MODELS)
def test_a_swap_is_rebuild_to_the_bit_and_none_is_the_base(name, settings):
    module = make(name)
    before, deltas = bits(module), experts_of(module, 2, **settings)
    swapper = Swapper(module)
    for delta in (*deltas, None, unpacked(deltas[0])):
        swapper.to(delta)
        assert has(module, before if delta is None else rebuild(before, delta))
    assert has(module, rebuild(before, deltas[0])), "unpacked or not"
    swapper.to(None)
    assert same(module, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_drifts_in_a_thousand_swaps(dtype):
    module = make("linear on tokens").to(dtype)
    before, deltas = bits(module), experts_of(module, 5)
    wanted = [rebuild(before, delta) for delta in deltas]
    swapper, generator = Swapper(module), torch.Generator().manual_seed(0)
    for i in torch.randint(len(deltas), (1000,), generator=generator).tolist():
        swapper.to(deltas[i])
        assert has(module, wanted[i])
    swapper.to(None)
    assert same(module, before)


def test_the_modules_own_tensors_are_written_so_that_what_holds_them_sees_the_expert():
    tower = image_tower()
    (delta,) = experts_of(tower, 1)
    tensors = tower.state_dict(keep_vars=True)
    x = torch.ones(1, 3, 32, 32)
    before = tower(x)
    Swapper(tower).to(delta)
    assert all(tower.state_dict(keep_vars=True)[name] is tensor for name, tensor in tensors.items())
    assert not torch.equal(tower(x), before)


def test_a_swap_writes_what_differs_and_no_other_tensor():
    module = make("linear")
    one, other = experts_of(module, 2)
    only = lambda delta, name: type(delta)(
        {n: part if n == name else delta_module.Unchanged() for n, part in delta.parts.items()},
        *(delta.shapes, delta.dtypes, delta.method, delta.settings, delta.base, delta.expert),
    )
    swapper = Swapper(module)
    version = lambda: {name: tensor._version for name, tensor in module.state_dict(keep_vars=True).items()}
    first, second = "layers.0.weight", "layers.3.weight"
    swapper.to(only(one, first))
    before = version()
    swapper.to(only(other, second))
    assert {name for name, count in version().items() if count != before[name]} == {first, second}
    before = version()
    swapper.to(None)
    assert {name for name, count in version().items() if count != before[name]} == {second}


def test_a_module_built_under_inference_mode_is_swapped_as_any_in_any_mode():
    with torch.inference_mode():
        module = make("linear")
    before, deltas = bits(module), experts_of(module, 2)
    swapper = Swapper(module)
    swapper.to(deltas[0])
    assert has(module, rebuild(before, deltas[0]))
    with torch.inference_mode():
        swapper.to(deltas[1])
    assert has(module, rebuild(before, deltas[1]))
    swapper.to(None)
    assert same(module, before)


def test_weights_that_could_be_trained_are_swapped_as_any():
    module = make("linear").requires_grad_(True)
    before, (delta,) = bits(module), experts_of(module.requires_grad_(False), 1)
    Swapper(module.requires_grad_(True)).to(delta)
    assert has(module, rebuild(before, delta)) and all(x.requires_grad for x in module.parameters())


def test_autocast_does_not_round_what_is_written():
    module = make("convolutions 2d").to(memory_format=torch.channels_last)
    before, deltas = bits(module), experts_of(module, 1, method="drc", notch=384)
    with torch.autocast("cpu", torch.bfloat16):
        Swapper(module).to(deltas[0])
    wanted = rebuild(before, deltas[0])
    assert all(torch.equal(module.state_dict()[name], x) for name, x in wanted.items())


# --- what is refused ---


def test_an_untied_expert_of_a_tied_module_is_refused_and_nothing_is_written():
    module = make("embedding, tied")
    base = bits(module)
    delta = compress(base, base | {"out.weight": base["out.weight"] + torch.randn(50, 24)})
    with pytest.raises(StateError, match=r"'table.weight' and 'out.weight' apart, which are one tensor of the module"):
        Swapper(module).to(delta)
    assert same(module, base)


def test_a_delta_of_another_base_is_refused_and_the_module_keeps_its_expert():
    module, other = make("linear"), make("linear")
    other.layers[0].weight += 1
    (delta,), (foreign,) = experts_of(module, 1), experts_of(other, 1)
    swapper = Swapper(module)
    swapper.to(delta)
    now = bits(module)
    with pytest.raises(StateError, match="are not those that the delta was made for"):
        swapper.to(foreign)
    assert same(module, now)


def test_a_module_without_a_matching_weight_is_refused_by_the_tensors_name():
    module = make("linear")
    before, (foreign,) = bits(module), experts_of(make("attention"), 1)
    with pytest.raises(StateError, match="the module has no tensor 'inner"):
        Swapper(module).to(foreign)
    assert same(module, before)


def test_a_module_in_training_mode_is_refused():
    with pytest.raises(StateError, match="training mode"):
        Swapper(nn.Linear(2, 2))


@pytest.mark.parametrize("after", [0, 1, 3])
def test_whatever_goes_wrong_on_the_way_the_module_is_the_base_again(monkeypatch, after):
    module = make("linear")
    before, deltas = bits(module), experts_of(module, 2)
    swapper, real, done = Swapper(module), swap_module.rebuild_tensor, []
    swapper.to(deltas[0])

    def failing(*arguments, **options):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(swap_module, "rebuild_tensor", failing)
    with pytest.raises(KeyboardInterrupt):
        swapper.to(deltas[1])
    assert same(module, before)
    monkeypatch.undo()
    swapper.to(deltas[1])
    assert has(module, rebuild(before, deltas[1]))


@torch.no_grad()
def test_what_somebody_else_wrote_meanwhile_is_written_over():
    """Two Swappers of one module, or a step of training: the next swap is ``rebuild`` all the same."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)).eval()
    base = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    one = compress(base, base | {"0.weight": base["0.weight"] + torch.randn(5, 6)})
    other = compress(base, base | {"1.weight": base["1.weight"] + torch.randn(4, 5)})
    first, second = Swapper(module), Swapper(module)
    first.to(one)
    second.to(other)
    assert same(module, rebuild(base, other))
    module[1].bias.add_(1)
    first.to(one)
    assert same(module, rebuild(base, one))
    first.to(None)
    second.to(None)
    assert same(module, base)


def test_a_module_with_other_parameters_is_refused():
    module = nn.Linear(6, 5).eval()
    swapper = Swapper(module)
    module.weight = nn.Parameter(module.weight.detach().clone())
    with pytest.raises(StateError, match=r"tensor 'weight' of the module is another"):
        swapper.to(None)


def test_two_parameters_in_the_same_memory_are_refused():
    """Not tied, so that each would have an expert of its own, and the second that is written would be both's."""
    module = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6)).eval()
    module[2].weight = nn.Parameter(module[0].weight.data)
    with pytest.raises(StateError, match=r"tensors '0.weight' and '2.weight' .* lie in the same memory.*clone"):
        Swapper(module)
    module[2].weight = module[0].weight  # tied: one tensor
    Swapper(module)
    Swapper(nn.LSTM(4, 4).eval())  # whose weights lie side by side in one storage
