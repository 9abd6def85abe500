"""Models whose files have other names than the model: adapters of them, and deltas that they are served by."""

import pytest
import torch
from served import apart
from torch import nn

from dts_mini import compress, rebuild
from dts_mini.cli import main
from dts_mini.core.errors import StateError
from dts_mini.serving import Base, Expert
from dts_mini.serving import run as run_batch
from dts_mini.serving.lora import export_lora, import_lora
from dts_mini.serving.stored import for_module, stored_names
from dts_mini.streaming.checkpoint import open_checkpoint

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
adapted = pytest.importorskip("adapted")

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def vit() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=8, patch_size=4, initializer_range=0.2, **SIZE)
    return transformers.ViTForImageClassification(config).eval().requires_grad_(False)


@pytest.fixture
def base(tmp_path):
    vit().save_pretrained(tmp_path / "base")
    base = open_checkpoint(tmp_path / "base")
    if not base.keys() - vit().state_dict().keys():
        pytest.skip("this transformers calls everything alike")
    return base


def loaded(folder) -> nn.Module:
    return transformers.ViTForImageClassification.from_pretrained(folder).eval().requires_grad_(False)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "projection"], "bias": "all"},
        {"target_modules": ["fc1"], "modules_to_save": ["classifier", "o_proj"]},
    ],
    ids=["linear", "biases", "saved"],
)
def test_an_adapter_over_such_a_checkpoint_is_what_peft_makes_of_it(base, tmp_path, settings):
    adapted.trained(vit(), tmp_path / "adapter", **settings)
    wanted = adapted.with_peft(loaded(base.path), tmp_path / "adapter")(IMAGES).logits.detach()
    file = import_lora(tmp_path / "adapter", base).save(tmp_path / "a.dts.safetensors")
    assert apart(vit()(IMAGES).logits, wanted) > 1e-2
    assert main(["rebuild", "--base", str(base.path), "--delta", str(file), "--out", str(tmp_path / "again")]) == 0
    assert apart(loaded(tmp_path / "again")(IMAGES).logits, wanted) < 1e-5


def test_a_delta_of_two_checkpoints_is_exported_and_served_under_the_modules_names(base, tmp_path):
    draw = torch.Generator().manual_seed(1)
    expert = {name: x + 0.05 * torch.randn(x.shape, generator=draw) for name, x in base.items()}
    delta, module = compress(base, expert, keep_ratio=1.0), vit()
    with pytest.raises(StateError, match=r"what serving\.stored\.for_module makes of the delta"):
        Expert(Base(module), delta)
    own, wanted = for_module(delta, base, module), vit()
    wanted.load_state_dict({name: rebuild(base, delta)[stored_names(module).get(name, name)] for name in own.parts})
    wanted = wanted(IMAGES).logits
    assert apart(module(IMAGES).logits, wanted) > 1e-2
    assert apart(run_batch(Expert(Base(module), own), IMAGES).logits, wanted) < 1e-5
    assert own.size() <= delta.size() + 64
    adapter = export_lora(own, module, tmp_path / "adapter", partial=True)
    assert all(name.startswith("vit.embeddings") for name in adapter.lost)
    with pytest.raises(StateError, match="is not the one that the delta was made for"):
        for_module(delta, expert, module)


def test_what_is_called_alike_stays_as_it_is():
    module = adapted.make("llama")
    state = module.state_dict()
    delta = compress(state, {name: x + 0.1 for name, x in state.items()})
    assert stored_names(module) == {} and for_module(delta, state, module) is delta
    assert stored_names(nn.Linear(2, 2)) == {}
