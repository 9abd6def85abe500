"""Routing without a task id: subspaces of the deltas, heads, and how they are put together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dts_mini import DTSError, compress
from dts_mini.core.dts import LowRank
from dts_mini.ours.router import calibrated, choose, energies, head_scores, subspaces

WIDTH, TASKS = 16, ("signs", "digits", "textures")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.fc = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x):
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return x + 0.1 * self.fc(x)[..., :WIDTH]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), Block(), Block()).eval()


def tuned(model: nn.Module, seed: int, layers=None) -> dict:
    """An expert whose matrices moved along few directions, drawn by its seed."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in model.state_dict().items():
        step = torch.zeros_like(tensor)
        if tensor.dim() == 2 and (layers is None or name in layers):
            left = torch.randn(tensor.shape[0], 2, generator=generator)
            step = 0.1 * left @ torch.randn(2, tensor.shape[1], generator=generator)
        state[name] = tensor + step
    return state


@pytest.fixture
def deltas(model) -> dict:
    base = model.state_dict()
    return {task: compress(base, tuned(model, seed), keep_ratio=0.125) for seed, task in enumerate(TASKS)}


def test_the_last_share_of_linear_and_attention_layers_is_taken_in_the_models_order(model, deltas):
    every = ["0", "1.attn", "1.fc", "2.attn", "2.fc"]
    assert list(subspaces(model, deltas, share=1)) == every
    assert list(subspaces(model, deltas, share=0.4)) == every[-2:]
    assert list(subspaces(model, deltas, share=0.01)) == every[-1:]
    for path, several in subspaces(model, deltas, share=1).items():
        kind = "in_proj_weight" if path.endswith("attn") else "weight"
        for found, delta in zip(several, deltas.values(), strict=True):
            assert torch.equal(found, delta.parts[f"{path}.{kind}"].right.restore())


@given(count=st.integers(1, 12), share=st.floats(0, 1, exclude_min=True))
def test_of_the_layers_as_near_to_the_share_as_can_be_are_taken_and_at_least_one(count, share):
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(count)))
    base = {f"{i}.weight": torch.zeros(4, 4) for i in range(count)}
    expert = {name: (i + 1) * torch.eye(4) for i, name in enumerate(base)}  # equal ones would count as tied
    delta = compress(base, expert, keep_ratio=0.25)
    taken = len(subspaces(model, {"a": delta}, share=share))
    assert taken == 1 if share * count < 1 else abs(taken - share * count) <= 0.5


def test_a_layer_whose_weight_is_tied_to_anothers_is_routed_by_as_that_one_is():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    base = {name: x.detach().clone() for name, x in model.state_dict().items()}
    weight = base["0.weight"] + torch.arange(16.0).view(4, 4).sin()
    spaces = subspaces(model, {"a": compress(base, dict.fromkeys(base, weight))}, share=1.0)
    assert spaces.keys() == {"0", "1"} and torch.equal(spaces["0"][0], spaces["1"][0])


@pytest.mark.parametrize("ambient", ["float64", "bfloat16", "meta"])
def test_scores_do_not_depend_on_pytorchs_default_device_and_dtype(model, deltas, ambient):
    inputs = torch.randn(5, 3, WIDTH, generator=torch.Generator().manual_seed(1))
    heads = [inputs[:, 0], inputs[:3, 1]]
    scores = lambda: (*energies(model, inputs, subspaces(model, deltas)), head_scores(inputs[:, 2], heads))
    after = lambda found: [*found, calibrated(found[1], found[1]), choose(found[1], 2)]
    wanted = after(scores())
    try:
        if ambient == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, ambient))
        found = after(scores())
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype and torch.allclose(one, other, atol=1e-5)  # attention takes another path


def test_energies_are_what_a_dense_reference_finds(model, deltas):
    inputs = torch.randn(5, 3, WIDTH, generator=torch.Generator().manual_seed(1))
    spaces = subspaces(model, deltas, share=1)
    output, found = energies(model, inputs, spaces)
    assert torch.allclose(output, model(inputs), atol=1e-5)
    hidden = model[0](inputs)
    first = {"0": inputs, "1.attn": hidden}  # inputs of the first two layers, by hand
    some = {path: spaces[path] for path in first}
    wanted = torch.zeros(5, 3, dtype=torch.float64)
    for path, x in first.items():
        for n, vectors in enumerate(some[path]):
            x0, v = x[:, 0].detach().double(), vectors.double()
            share = (x0 @ v.T).square().sum(1) / x0.square().sum(1)
            wanted[:, n] += (share / (v.square().sum() / WIDTH)).log() / 2
    assert torch.allclose(energies(model, inputs, some)[1].double(), wanted, atol=1e-4)
    assert found.shape == (5, 3)


def test_an_input_along_a_tasks_own_directions_is_routed_to_it(model, deltas):
    (vectors,) = subspaces(
        model[:1], {t: compress(model[:1].state_dict(), tuned(model[:1], s)) for s, t in enumerate("abc")}
    ).values()
    for task, v in enumerate(vectors):
        inputs = torch.randn(20, len(v), generator=torch.Generator().manual_seed(task)) @ v
        assert (choose(energies(model[:1], inputs, {"0": vectors})[1]) == task).all()


def test_a_random_direction_has_about_no_energy_beyond_chance_in_any_task(model, deltas):
    inputs = torch.randn(4000, 1, WIDTH, generator=torch.Generator().manual_seed(2))
    some = {"0": subspaces(model, deltas, share=1)["0"]}
    assert energies(model, inputs, some)[1].exp().mean(0).tolist() == pytest.approx([1] * 3, abs=0.1)


@given(st.floats(0.01, 100))
def test_the_length_of_an_input_does_not_matter(length):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 4))
    deltas = {task: compress(model.state_dict(), tuned(model, seed)) for seed, task in enumerate(TASKS)}
    inputs, spaces = torch.randn(6, WIDTH), subspaces(model, deltas)
    one, other = energies(model, inputs, spaces)[1], energies(model, length * inputs, spaces)[1]
    assert torch.allclose(one, other, atol=1e-3)


def test_tokens_first_or_batch_first_and_one_token_or_the_mean(model, deltas):
    flat = nn.Sequential(nn.Linear(WIDTH, 4))
    spaces = subspaces(flat, {t: compress(flat.state_dict(), tuned(flat, s)) for s, t in enumerate(TASKS)})
    x = torch.randn(5, 3, WIDTH)

    class TokensFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = flat

        def forward(self, x):
            return self.inner(x.transpose(0, 1)).transpose(0, 1)

    turned = {f"inner.{path}": vectors for path, vectors in spaces.items()}
    for token in (0, 2, None):
        one, other = energies(flat, x, spaces, token=token)[1], energies(TokensFirst(), x, turned, token=token)[1]
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(energies(flat, x, spaces, token=2)[1], energies(flat, x[:, 2], spaces)[1], atol=1e-5)


def test_hooks_are_taken_off_even_when_the_forward_pass_fails(model, deltas):
    spaces = subspaces(model, deltas)
    with pytest.raises(RuntimeError):
        energies(model, torch.randn(2, 3, WIDTH + 1), spaces)
    energies(model, torch.randn(2, 3, WIDTH), spaces)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_layers_that_one_task_left_alone_are_not_routed_by(model, deltas):
    base = model.state_dict()
    deltas["idle"] = compress(base, tuned(model, 9, layers={"1.fc.weight"}))
    assert not isinstance(deltas["idle"].parts["2.fc.weight"], LowRank)
    assert list(subspaces(model, deltas, share=1)) == ["1.fc"]
    with pytest.raises(DTSError, match="nothing to route by"):
        subspaces(model, {**deltas, "still": compress(base, base)})


def test_bad_input_is_refused_by_name(model, deltas):
    with pytest.raises(DTSError, match="no deltas to route to"):
        subspaces(model, {})
    with pytest.raises(DTSError, match="share is 0"):
        subspaces(model, deltas, share=0)
    with pytest.raises(DTSError, match="share is nan"):
        subspaces(model, deltas, share=float("nan"))
    with pytest.raises(DTSError, match=r"delta of 'signs' holds '1\.attn\.in_proj_bias' .* has no such tensor"):
        subspaces(model[:1], {"signs": deltas["signs"]})
    other = nn.Sequential(nn.Linear(WIDTH, 3), *model[1:])
    with pytest.raises(DTSError, match=r"holds '0\.(bias|weight)' .* has it in shape"):
        subspaces(other, deltas)
    unused = nn.ModuleDict({"used": nn.Linear(WIDTH, 4), "unused": nn.Linear(WIDTH, 4)})
    unused.forward = lambda x: unused["used"](x)
    made = {t: compress(unused.state_dict(), tuned(unused, s)) for s, t in enumerate(TASKS)}
    with pytest.raises(DTSError, match="layer 'unused' was not called"):
        energies(unused, torch.randn(2, WIDTH), subspaces(unused, made, share=1))


# --- heads, calibration, choice ---


def test_head_scores_find_the_head_that_holds_the_class_however_many_classes_it_has():
    rows = torch.eye(6)
    heads = [20 * rows[:2], 20 * rows[2:5], 20 * rows[5:]]
    assert choose(head_scores(rows, heads)).tolist() == [0, 0, 1, 1, 1, 2]
    nothing = head_scores(torch.zeros(1, 6), heads)
    assert nothing.tolist()[0] == pytest.approx([0, 0, 0], abs=1e-6)  # more classes are no evidence by themselves
    with pytest.raises(DTSError, match="no heads"):
        head_scores(rows, [])


def test_calibration_takes_away_what_one_task_scores_on_everything():
    scores = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    reference = torch.randn(400, 3, generator=torch.Generator().manual_seed(1))
    shifted = torch.tensor([5.0, 0, -3]) + torch.tensor([2.0, 1, 1]) * scores
    like = torch.tensor([5.0, 0, -3]) + torch.tensor([2.0, 1, 1]) * reference
    assert torch.allclose(calibrated(shifted, like), calibrated(scores, reference), atol=1e-5)
    for bad in (reference[:1], reference[:, :2]):
        with pytest.raises(DTSError, match="m > 1"):
            calibrated(scores, bad)


def test_a_batch_of_one_task_is_chosen_together():
    scores = torch.tensor([[1.0, 0], [0, 3], [1, 0], [0, 0.5], [0, 1]])
    assert choose(scores).tolist() == [0, 1, 0, 1, 1]
    assert choose(scores, 3).tolist() == [1, 1, 1, 1, 1]
    assert choose(scores, 2).tolist() == [1, 1, 0, 0, 1]
    with pytest.raises(DTSError, match="batch is 0"):
        choose(scores, 0)
