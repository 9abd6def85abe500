"""Deltas as LoRA adapters: peft loads them, with the same outputs; adapters that peft trained come back as deltas."""

import copy
import json
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from served import apart, bits, experts_of, image_tower, make, materialised, same, samples
from torch import nn

from dts_mini import load, rebuild
from dts_mini.core.errors import DTSError, FileError, StateError
from dts_mini.core.parts import Factors, Unchanged
from dts_mini.serving import Base, Expert, run
from dts_mini.serving.lora import export_lora, import_lora

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def clip() -> nn.Module:
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(image_size=32, patch_size=8, **SIZE))


def bert() -> nn.Module:
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=3, **SIZE)
    return transformers.BertForSequenceClassification(config)


def gpt() -> nn.Module:
    size = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}
    tokens = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
    return transformers.GPT2Model(transformers.GPT2Config(**size, **tokens))


def images(g: torch.Generator) -> dict:
    return {"pixel_values": torch.randn(3, 3, 32, 32, generator=g)}


def words(g: torch.Generator) -> dict:
    return {"input_ids": torch.randint(50, (3, 7), generator=g)}


TRANSFORMERS = {
    "clip": (clip, images),
    "bert": (bert, words),
    "gpt": (gpt, words),
}


@pytest.fixture(params=TRANSFORMERS)
def model(request) -> SimpleNamespace:
    """A tiny random model of transformers, and a batch for it."""
    build, inputs = TRANSFORMERS[request.param]
    torch.manual_seed(0)
    module = build().eval().requires_grad_(False)
    return SimpleNamespace(name=request.param, module=module, x=inputs(torch.Generator().manual_seed(0)))


def first(output):
    return output[0]


def with_peft(module: nn.Module, folder) -> nn.Module:
    return peft.PeftModel.from_pretrained(copy.deepcopy(module), str(folder)).eval()


def only(module: nn.Module, delta, *names: str):
    """A delta of those tensors alone, as if fine-tuning had left all others."""
    parts = {name: part if name in names else Unchanged() for name, part in delta.parts.items()}
    return type(delta)(parts, delta.shapes, delta.dtypes, delta.method, delta.settings, delta.base, delta.expert)


# --- out ---


@pytest.mark.parametrize("settings", [{"keep_ratio": 0.1}, {"method": "drc", "notch": 640}], ids=["dts", "drc"])
def test_peft_loads_what_was_exported_and_gives_the_experts_outputs(model, tmp_path, settings):
    (delta,) = experts_of(model.module, 1, size=0.02, **settings)
    before = bits(model.module)
    adapter = export_lora(delta, model.module, tmp_path / "adapter")
    assert same(model.module, before)
    assert adapter.ranks and not adapter.lost
    found, wanted = first(with_peft(model.module, tmp_path / "adapter")(**model.x)), materialised(model.module, delta)
    assert apart(found, first(wanted(**model.x))) < 1e-5
    assert apart(first(model.module(**model.x)), first(wanted(**model.x))) > 1e-3, "the base answers otherwise"


def test_the_exported_adapter_merges_into_the_rebuilt_experts_weights(model, tmp_path):
    (delta,) = experts_of(model.module, 1, size=0.02)
    export_lora(delta, model.module, tmp_path / "adapter")
    merged = with_peft(model.module, tmp_path / "adapter").merge_and_unload().state_dict()
    for name, tensor in rebuild(model.module.state_dict(), delta).items():
        assert torch.allclose(merged[name], tensor, atol=1e-5), name


@pytest.mark.parametrize("name", ["linear", "embedding, tied", "convolutions 2d", "convolutions 1d and 3d"])
def test_modules_of_plain_pytorch_are_exported_as_well(name, tmp_path):
    module = make(name)
    (delta,) = experts_of(module, 1, method="drc", notch=384)
    export_lora(delta, module, tmp_path / "adapter")
    x = samples(name, 4)
    assert apart(with_peft(module, tmp_path / "adapter")(*x), materialised(module, delta)(*x)) < 1e-5


@pytest.mark.parametrize("name", ["attention", "transformer layer", "cross-attention"])
def test_what_reads_its_parts_weights_without_calling_them_is_no_adapter_by_itself(name, tmp_path):
    module = make(name)
    (delta,) = experts_of(module, 1)
    with pytest.raises(DTSError, match="would hold whole modules alone"):
        export_lora(delta, module, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_what_the_model_itself_owns_no_adapter_holds_and_partial_leaves_it_out(tmp_path):
    tower = image_tower()
    (delta,) = experts_of(tower, 1, size=0.02)
    with pytest.raises(DTSError, match=r"no LoRA adapter can hold 'class_embedding', 'positional_embedding', 'proj'"):
        export_lora(delta, tower, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
    adapter = export_lora(delta, tower, tmp_path / "adapter", partial=True)
    assert adapter.lost == ("class_embedding", "positional_embedding", "proj")
    assert "transformer.resblocks.0.attn" in adapter.modules_to_save
    assert "transformer.resblocks.1.mlp.c_fc" in adapter.ranks
    rest = only(tower, delta, *(name for name in delta.parts if name not in adapter.lost))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert apart(with_peft(tower, tmp_path / "adapter")(x), materialised(tower, rest)(x)) < 1e-5


def test_each_module_keeps_the_rank_of_its_own_part(tmp_path):
    module = make("linear")
    (delta,) = experts_of(module, 1, method="drc", notch=384)
    adapter = export_lora(delta, module, tmp_path / "adapter")
    assert adapter.ranks == {name: delta.parts[f"{name}.weight"].rank for name in ("layers.0", "layers.3")}
    assert len(set(adapter.ranks.values())) == 2
    layers = with_peft(module, tmp_path / "adapter").base_model.model.layers
    assert {name: layers[int(name[-1])].r["default"] for name in adapter.ranks} == adapter.ranks


def test_names_that_end_alike_are_told_apart(tmp_path):
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.block = nn.Linear(16, 16), nn.ModuleDict({"fc": nn.Linear(16, 16), "norm": nn.LayerNorm(16)})
            self.norm = nn.LayerNorm(16)

        def forward(self, x):
            return self.norm(self.fc(self.block["norm"](self.block["fc"](x))))

    torch.manual_seed(0)
    module = Nested().eval().requires_grad_(False)
    (whole,) = experts_of(module, 1)
    x = torch.randn(4, 16)
    for number, names in enumerate((["fc.weight"], ["block.fc.weight", "norm.bias"], list(whole.parts))):
        delta = only(module, whole, *names)
        export_lora(delta, module, tmp_path / str(number))
        assert apart(with_peft(module, tmp_path / str(number))(x), materialised(module, delta)(x)) < 1e-5


# --- in ---


def trained(module: nn.Module, folder, **config) -> nn.Module:
    """The module with an adapter of random values, saved as peft saves it."""
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(copy.deepcopy(module), peft.LoraConfig(init_lora_weights=False, **config)).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "modules_to_save" in name:
                parameter += 0.1
            elif "lora_B" in name:
                parameter *= 10
    wrapped.save_pretrained(str(folder))
    return wrapped


CONFIGS = {
    "linear": ("bert", {"target_modules": ["query", "value", "dense"], "r": 4}),
    "scaled": ("bert", {"target_modules": ["query"], "r": 4, "lora_alpha": 10}),
    "rank and alpha patterns": (
        "bert",
        {
            "target_modules": ["query", "key"],
            "r": 4,
            "rank_pattern": {"query": 3},
            "alpha_pattern": {"layer.0.attention.self.query": 5},
        },
    ),
    "rank-stabilised": ("bert", {"target_modules": ["query"], "r": 9, "use_rslora": True}),
    "bias of the adapter": ("bert", {"target_modules": ["query"], "r": 2, "lora_bias": True, "lora_alpha": 6}),
    "biases of the model": ("bert", {"target_modules": ["query"], "r": 2, "bias": "all"}),
    "modules to save": ("bert", {"target_modules": ["query"], "r": 2, "modules_to_save": ["classifier"]}),
    "embedding": ("bert", {"target_modules": ["word_embeddings", "query"], "r": 3}),
    "convolution": ("clip", {"target_modules": ["patch_embedding", "q_proj"], "r": 3}),
    "transposed": ("gpt", {"target_modules": ["c_attn", "c_fc"], "r": 3, "fan_in_fan_out": True}),
}


@pytest.mark.parametrize(("name", "config"), CONFIGS.values(), ids=CONFIGS)
def test_an_adapter_of_peft_becomes_a_delta_with_the_same_outputs_in_every_way(name, config, tmp_path):
    build, inputs = TRANSFORMERS[name]
    torch.manual_seed(0)
    module, x = build().eval().requires_grad_(False), inputs(torch.Generator().manual_seed(0))
    wanted = first(trained(module, tmp_path / "adapter", **config)(**x)).detach()
    assert apart(first(module(**x)), wanted) > 1e-3
    delta = import_lora(tmp_path / "adapter", module.state_dict(), module)
    delta = load(delta.save(tmp_path / "a.dts.safetensors"))
    assert apart(first(materialised(module, delta)(**x)), wanted) < 1e-5
    assert apart(first(run(Expert(Base(module), delta), **x)), wanted) < 1e-5


def test_an_imported_delta_holds_the_adapters_own_factors_and_its_file_is_no_larger(tmp_path):
    torch.manual_seed(0)
    module = bert().eval().requires_grad_(False)
    trained(module, tmp_path / "adapter", target_modules=["query"], r=4)
    held = safetensors.torch.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    delta = import_lora(tmp_path / "adapter", module.state_dict(), module)
    factors = [part for part in delta.parts.values() if isinstance(part, Factors)]
    assert sum(part.left.numel() + part.right.numel() for part in factors) == sum(x.numel() for x in held.values())
    path = delta.save(tmp_path / "a.dts.safetensors")
    assert path.stat().st_size < (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size + 2048


def test_there_and_back_again_is_the_same_expert(model, tmp_path):
    (delta,) = experts_of(model.module, 1, size=0.02)
    export_lora(delta, model.module, tmp_path / "adapter")
    again = import_lora(tmp_path / "adapter", model.module.state_dict(), model.module)
    wanted, found = (rebuild(model.module.state_dict(), each) for each in (delta, again))
    for name in wanted:
        assert torch.allclose(found[name], wanted[name], atol=1e-6), name


# --- what is refused ---


@pytest.fixture
def adapter(tmp_path) -> SimpleNamespace:
    """A BERT, and an adapter of it in a folder, whose files may be spoilt."""
    torch.manual_seed(0)
    module = bert().eval().requires_grad_(False)
    folder = tmp_path / "adapter"
    trained(module, folder, target_modules=["query"], r=2)
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())

    def change(change_tensors=None, **settings) -> None:
        if change_tensors:
            change_tensors(tensors)
            safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(config | settings))

    return SimpleNamespace(module=module, base=module.state_dict(), folder=folder, change=change)


KEY = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_{}.weight"
SPOILT = {
    "another kind": ({"peft_type": "IA3"}, None, "is an adapter of the kind 'IA3'; only LORA is read"),
    "DoRA": ({"use_dora": True}, None, "use_dora is true, which is not read here; merge it with peft"),
    "no partner": ({}, lambda t: t.pop(KEY.format("B")), "has no partner lora_B; copy the adapter again"),
    "no other partner": ({}, lambda t: t.pop(KEY.format("A")), "has no partner lora_A; copy the adapter again"),
    "another shape": ({}, lambda t: t.update({KEY.format("A"): torch.ones(2, 33)}), r"\(32, 32\) in the base and"),
    "another rank": ({}, lambda t: t.update({KEY.format("A"): torch.ones(3, 32)}), "rank 3 in lora_A and 2 in lora_B"),
    "other tensors": ({}, lambda t: t.update({KEY.format("C"): torch.ones(2)}), "nothing that plain LoRA has"),
    "unknown module": (
        {},
        lambda t: t.update({f"base_model.model.roof.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}),
        "changes 'roof', which the base has no weight for",
    ),
    "unknown tensor": ({}, lambda t: t.update({"base_model.model.roof": torch.ones(2)}), "has a tensor 'roof'"),
    "NaN": ({}, lambda t: t[KEY.format("A")].fill_(float("nan")), "values are NaN or infinite"),
}


@pytest.mark.parametrize(("settings", "tensors", "message"), SPOILT.values(), ids=SPOILT)
def test_an_adapter_that_is_spoilt_or_of_another_kind_is_refused(adapter, settings, tensors, message):
    adapter.change(tensors, **settings)
    with pytest.raises(DTSError, match=message) as refused:
        import_lora(adapter.folder, adapter.base, adapter.module)
    assert str(adapter.folder) in str(refused.value)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "no such format", "empty"])
def test_a_file_that_is_missing_or_damaged_is_refused_by_its_name(adapter, name, damage):
    path = adapter.folder / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_text("[1]" if damage == "no such format" else "")
    with pytest.raises(FileError, match=name.replace(".", r"\.")) as refused:
        import_lora(adapter.folder, adapter.base, adapter.module)
    assert ("is no JSON" in str(refused.value)) is (damage == "empty" and name == "adapter_config.json")


def test_an_adapter_of_fused_attention_is_refused_since_peft_applies_part_of_it_twice(tmp_path):
    tower = image_tower()
    trained(tower, tmp_path / "adapter", target_modules=["attn"], r=3)
    with pytest.raises(FileError, match=r"adapts twice; merge it with peft \(merge_and_unload\), save that model"):
        import_lora(tmp_path / "adapter", tower.state_dict(), tower)


def test_an_adapter_of_another_model_is_refused(adapter):
    with pytest.raises(StateError, match="which the base has no weight for; pass its own base"):
        import_lora(adapter.folder, make("linear").state_dict(), make("linear"))


def test_export_refuses_another_base_training_mode_and_files_in_the_way_and_writes_nothing(tmp_path):
    module, other = make("linear"), make("linear")
    other.layers[0].weight += 1
    (delta,), (foreign,) = experts_of(module, 1), experts_of(other, 1)
    folder = tmp_path / "adapter"
    with pytest.raises(StateError, match="are not those that the delta was made for"):
        export_lora(foreign, module, folder)
    with pytest.raises(StateError, match="training mode"):
        export_lora(delta, make("linear").train(), folder)
    with pytest.raises(FileError, match="does not exist; make it first"):
        export_lora(delta, module, tmp_path / "none" / "adapter")
    assert not folder.exists()
    folder.write_text("in the way")
    with pytest.raises(FileError, match="adapter: is a file; name a folder"):
        export_lora(delta, module, folder)
    folder.unlink()
    export_lora(delta, module, folder)
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileError, match="exists already; pass --overwrite"):
        export_lora(delta, module, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == whole
    export_lora(delta, module, folder, overwrite=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == whole
