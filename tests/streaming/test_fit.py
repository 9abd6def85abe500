"""An expert's names brought to the base's: what is recognised and said, and what to do where it is not."""

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from dts_mini import average, compress, rebuild
from dts_mini.core.errors import StateError
from dts_mini.core.file import save_tensors
from dts_mini.streaming.checkpoint import open_checkpoint
from dts_mini.streaming.fit import fitted

DRAW = torch.Generator().manual_seed(0)


class Tied(nn.Module):
    """An embedding whose weight the head and a third module share, between layers that began alike."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.head, self.also = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False), nn.Embedding(20, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        for x in self.parameters():
            x.data = torch.randn(x.shape, generator=DRAW)
        self.head.weight = self.also.weight = self.wte.weight


ENDS = {"wte.weight", "head.weight", "also.weight"}
SAVED = [{"wte.weight"}, {"head.weight"}, {"wte.weight", "also.weight"}, ENDS]


def stored(module: nn.Module, ends: set[str], path, *, noted: bool = False):
    """A module's checkpoint that holds these ends of its tie, with a note of the others or without."""
    state = {name: x.clone() for name, x in module.state_dict().items() if name in ends or name not in ENDS}
    note = dict.fromkeys(ENDS - ends, min(ends)) if noted else {}
    return open_checkpoint(save_tensors(state, path, metadata={"format": "pt", **note}, overwrite=True))


@pytest.mark.parametrize("noted", [False, True])
@pytest.mark.parametrize("theirs", SAVED, ids=lambda ends: "+".join(sorted(ends)))
@pytest.mark.parametrize("ours", SAVED, ids=lambda ends: "+".join(sorted(ends)))
def test_whichever_ends_of_a_tie_are_stored_the_expert_is_the_same_or_refused(ours, theirs, noted, tmp_path):
    module, expert = Tied(), Tied()
    base = stored(module, ours, tmp_path / "base.safetensors", noted=noted)
    other = stored(expert, theirs, tmp_path / "expert.safetensors", noted=noted)
    if not (ours & theirs or noted):  # nothing tells that these are ends of one tie
        with pytest.raises(StateError, match="does not fit the base: it lacks"):
            fitted(base, other, "expert")
        return
    found = fitted(base, other, "expert")
    assert {name: x.tolist() for name, x in found.items()} == {
        name: expert.state_dict()[name].tolist() for name in base
    }
    assert all(any(repr(end) in line for line in found.said) for end in ours ^ theirs)
    again = rebuild(base, compress(base, found, keep_ratio=1.0))
    assert all(torch.equal(again[one], again[other]) for one in ours for other in ours)


def test_what_save_model_leaves_out_is_known(tmp_path):
    module, expert = Tied(), Tied()
    save_model(module, str(tmp_path / "base.safetensors"))
    save_tensors(
        {n: x for n, x in expert.state_dict().items() if n not in ENDS - {"wte.weight"}}, tmp_path / "e.safetensors"
    )
    base, other = (open_checkpoint(tmp_path / f"{name}.safetensors") for name in ("base", "e"))
    assert "wte.weight" not in base
    found = fitted(base, other, "expert")
    (end,) = ENDS & base.keys()
    assert torch.equal(found[end], expert.wte.weight)


def test_an_end_that_the_expert_changed_by_itself_is_not_left_out(tmp_path):
    base = stored(Tied(), {"wte.weight"}, tmp_path / "base.safetensors", noted=True)
    state = {name: x.clone() for name, x in Tied().state_dict().items() if name != "also.weight"}
    state["head.weight"] += 1
    with pytest.raises(StateError, match=r"has beyond it 'head\.weight'"):
        fitted(base, state, "expert")


@pytest.mark.parametrize("lacks", ["layers.1.weight", "layers.1.bias", "norm.weight", "other.weight"])
def test_layers_that_are_alike_are_no_ends_of_a_tie(lacks):
    same, ones = torch.randn(8, 8, generator=DRAW), torch.ones(8, 8)
    base = {"layers.0.weight": same, "layers.1.weight": same.clone(), "norm.weight": ones, "other.weight": ones.clone()}
    base |= {"layers.0.bias": torch.arange(8.0), "layers.1.bias": torch.arange(8.0), "wte.weight": torch.eye(9, 8)}
    with pytest.raises(StateError, match=f"it lacks '{lacks}'"):
        fitted(base, {name: x + 1 for name, x in base.items() if name != lacks}, "expert")


@pytest.mark.parametrize("merged", [False, True])
def test_factors_of_an_adapter_are_no_head(merged):
    base = {"q.weight": torch.ones(4, 4), "k.weight": torch.ones(4, 4)}
    adapter = {f"base_model.model.q.lora_{side}.default.weight": torch.ones(4, 4) for side in "AB"}
    adapter |= {"base_model.model.q.base_layer.weight": base["q.weight"]} if merged else {}
    with pytest.raises(
        StateError, match="is of a LoRA adapter: make a delta of its folder by dts-mini import-lora, or"
    ):
        fitted(base, adapter, "expert")


@pytest.mark.parametrize("kind", ["fc.weight_scale_inv", "fc.weight_scale"])
def test_scales_beside_eight_bits_are_no_head(kind):
    base = {"fc.weight": torch.ones(4, 4), "norm.weight": torch.ones(4)}
    for dtype, word in ((torch.float8_e4m3fn, "float8"), (torch.int8, "codes of quantised weights")):
        coded = base | {"fc.weight": torch.ones(4, 4).to(dtype), kind: torch.ones(4, 1)}
        with pytest.raises(StateError, match=rf"^expert x, tensor 'fc\.weight': .*{word}.*dequantise"):
            fitted(base, coded, "expert x")
        with pytest.raises(StateError, match=rf"^base, tensor 'fc\.weight': .*{word}.*dequantise"):
            fitted(coded, base, "expert x")


@pytest.mark.parametrize("lead", ["", "bert."])
@pytest.mark.parametrize("head", ["classifier.weight", "cls.predictions.weight"])
def test_a_head_beside_a_prefix_is_told_from_another_model(lead, head):
    base = {f"layer.{i}.weight": torch.ones(3, 3) for i in range(6)}
    expert = {lead + name: x for name, x in base.items()} | {head: torch.ones(2, 3)}
    for one, other in ((base, expert), (expert, base)):
        with pytest.raises(StateError, match="transformers' AutoModel, save_pretrained, pass those folders"):
            fitted(one, other, "expert")
    with pytest.raises(StateError, match="pass checkpoints of one model"):
        fitted(base, {name.replace("layer", "block"): x for name, x in expert.items()}, "expert")


def test_experts_with_other_ends_are_merged(tmp_path):
    one, two = Tied(), Tied()
    first = stored(one, ENDS, tmp_path / "one.safetensors")
    second = fitted(first, stored(two, {"head.weight"}, tmp_path / "two.safetensors"), "expert 2")
    merged = average([first, second])
    assert torch.equal(merged["wte.weight"], (one.wte.weight + two.wte.weight) / 2)
