"""Adapters that peft trained: what peft makes of them over the same base, or refused by name, of every kind."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from served import apart
from served import make as make_plain

from dts_mini import rebuild
from dts_mini.core.errors import DTSError, FileError, StateError
from dts_mini.core.file import load_tensors, save_tensors
from dts_mini.serving.lora import import_lora
from dts_mini.streaming.checkpoint import open_checkpoint

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
adapted = pytest.importorskip("adapted")

RIGHT = {
    "linear layers": ("bert", {"target_modules": ["query", "value", "dense"]}),
    "all linear layers": ("llama", {"target_modules": "all-linear"}),
    "a pattern": ("bert", {"target_modules": r".*layer\.1.*(query|value)"}),
    "a module excluded": (
        "bert",
        {"target_modules": ["query"], "exclude_modules": ["bert.encoder.layer.0.attention.self.query"]},
    ),
    "one layer": ("llama", {"target_modules": ["q_proj"], "layers_to_transform": 1}),
    "layers by a pattern": ("bert", {"target_modules": ["key"], "layers_to_transform": [1], "layers_pattern": "layer"}),
    "patterns, rank-stabilised": (
        "bert",
        {
            "target_modules": ["query", "key"],
            "use_rslora": True,
            "rank_pattern": {"query": 3},
            "alpha_pattern": {"key": 5, r"layer\.0.*query": 7},
        },
    ),
    "a task with a head": ("bert", {"target_modules": ["query"], "task_type": "SEQ_CLS"}),
    "the head itself": ("bert", {"target_modules": ["classifier", "query"]}),
    "biases of the adapted": ("bert", {"target_modules": ["query"], "bias": "lora_only"}),
    "all biases": ("gpt", {"target_modules": ["c_proj", "c_fc"], "bias": "all"}),
    "all biases, tied": ("masked bert", {"target_modules": ["query"], "bias": "all"}),
    "all biases and the adapter's own": ("bert", {"target_modules": ["query"], "bias": "all", "lora_bias": True}),
    "all biases and saved modules": (
        "bert",
        {"target_modules": ["query"], "bias": "all", "modules_to_save": ["classifier", "pooler"]},
    ),
    "norms saved": ("t5", {"target_modules": ["q"], "modules_to_save": ["layer_norm"]}),
    "an embedding saved": ("bert", {"target_modules": ["query"], "modules_to_save": ["word_embeddings"]}),
    "embeddings": ("bert", {"target_modules": ["word_embeddings", "position_embeddings", "query"]}),
    "embedding and head": ("llama", {"target_modules": ["embed_tokens", "lm_head"]}),
    "position biases": ("t5", {"target_modules": ["q", "wo", "relative_attention_bias"]}),
    "square Conv1D": ("gpt", {"target_modules": ["c_proj"]}),
    "Conv1D beside a linear layer": ("gpt, untied", {"target_modules": ["c_proj", "lm_head"]}),
    "Conv1D beside an embedding": ("gpt, untied", {"target_modules": ["c_proj", "wte"]}),
    "Conv1D with biases": ("gpt", {"target_modules": ["c_proj", "c_fc"], "lora_bias": True}),
    "ties kept by peft": (
        "llama, tied",
        {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    ),
    "saved ties kept by peft": (
        "llama, tied",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    **{
        f"begun as {way}": ("llama", {"target_modules": ["q_proj"], "init_lora_weights": way})
        for way in (True, False, "gaussian", "eva", "orthogonal", "mica")
    },
}


@pytest.fixture
def folder(tmp_path) -> SimpleNamespace:
    return SimpleNamespace(base=tmp_path / "base", adapter=tmp_path / "adapter")


@pytest.mark.parametrize(("name", "settings"), RIGHT.values(), ids=RIGHT)
def test_an_adapter_is_what_peft_makes_of_it_from_a_checkpoint_and_from_a_module(name, settings, folder):
    module = adapted.make(name)
    adapted.trained(module, folder.adapter, **settings)
    module.save_pretrained(folder.base)
    wanted = adapted.answer(adapted.with_peft(module, folder.adapter))
    assert apart(adapted.answer(module), wanted) > 1e-2
    for base, known in ((open_checkpoint(folder.base), None), (module.state_dict(), module)):
        delta = import_lora(folder.adapter, base, known)
        assert apart(adapted.answer(adapted.with_weights(module, rebuild(base, delta))), wanted) < 1e-5


def test_a_base_layer_that_was_saved_beside_its_factors_is_the_one_they_are_added_to(folder):
    module = adapted.make("llama")
    adapted.trained(module, folder.adapter, target_modules=["embed_tokens", "lm_head"])
    path = folder.adapter / "adapter_model.safetensors"
    key = "base_model.model.model.embed_tokens.base_layer.weight"
    moved = load_tensors(path)
    save_tensors(moved | {key: moved[key] + 0.1}, path, overwrite=True)
    wanted = adapted.answer(adapted.with_peft(module, folder.adapter))
    found = rebuild(module.state_dict(), import_lora(folder.adapter, module.state_dict(), module))
    assert apart(adapted.answer(adapted.with_weights(module, found)), wanted) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits_of_the_adapter_are_kept_and_of_the_base_are_enough(dtype, folder):
    module = adapted.make("llama")
    adapted.trained(module, folder.adapter, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"])
    path = folder.adapter / "adapter_model.safetensors"
    save_tensors({name: x.to(dtype) for name, x in load_tensors(path).items()}, path, overwrite=True)
    for format, within in ((torch.float32, 1e-5), (torch.bfloat16, 0.03)):
        base = module.to(format)
        wanted = adapted.answer(adapted.with_peft(base, folder.adapter)).float()
        delta = import_lora(folder.adapter, base.state_dict(), base)
        assert delta.parts["model.layers.0.mlp.down_proj.weight"].left.dtype == dtype
        found = adapted.answer(adapted.with_weights(base, rebuild(base.state_dict(), delta)))
        assert apart(found.float(), wanted) < within


# --- what a delta cannot be ---

TIED = {
    "an embedding": ("gpt", {"target_modules": ["wte"]}),
    "a head": ("llama, tied", {"target_modules": ["lm_head"]}),
    "both, each in its own way": ("gpt", {"target_modules": ["wte", "lm_head"]}),
    "a saved embedding": ("gpt", {"target_modules": ["c_attn"], "modules_to_save": ["wte"]}),
    "of BERT": ("masked bert", {"target_modules": ["word_embeddings"]}),
    "of T5": ("t5", {"target_modules": ["shared"]}),
    "a tie that peft does not know": ("gpt", {"target_modules": ["wte"], "ensure_weight_tying": True}),
}


@pytest.mark.parametrize(("name", "settings"), TIED.values(), ids=TIED)
def test_a_change_of_one_end_of_a_tie_is_refused_with_both_ends(name, settings, folder):
    module = adapted.make(name)
    adapted.trained(module, folder.adapter, **settings)
    module.save_pretrained(folder.base)
    for base, known in ((open_checkpoint(folder.base), None), (module.state_dict(), module)):
        with pytest.raises(StateError, match=r"which the model ties to '.*', and not that one alike; untie the model"):
            import_lora(folder.adapter, base, known)


def test_over_the_untied_model_such_an_adapter_is_what_peft_makes_of_it(folder):
    module = adapted.make("gpt")
    adapted.trained(module, folder.adapter, target_modules=["wte"])
    wanted = adapted.answer(adapted.with_peft(module, folder.adapter))
    module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.clone())
    module.config.tie_word_embeddings = False
    module.save_pretrained(folder.base)
    base = open_checkpoint(folder.base)
    found = rebuild(base, import_lora(folder.adapter, base))
    assert apart(adapted.answer(adapted.with_weights(module, found)), wanted) < 1e-5


REFUSED = {
    "trained with DoRA": ({"use_dora": True}, "use_dora is true"),
    "activated": (
        {"alora_invocation_tokens": [3, 4], "task_type": "CAUSAL_LM"},
        "alora_invocation_tokens.*run it with",
    ),
    "of tokens": ({"trainable_token_indices": [1, 2]}, r"trainable_token_indices is \[1, 2\].*merge it with peft"),
    "of tokens by module": ({"trainable_token_indices": {"embed_tokens": [1]}}, "trainable_token_indices is"),
    "of parameters": ({"target_modules": [], "target_parameters": ["mlp.down_proj.weight"]}, "target_parameters is"),
    "with layers replicated": ({"layer_replication": [(0, 2), (0, 2)]}, "layer_replication.*save the model with its"),
    **{f"begun as {way}": ({"init_lora_weights": way}, f'init_lora_weights is "{way}"') for way in ("olora", "pissa")},
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_more_of_an_adapter_than_factors_is_refused_by_name_with_the_way_out(settings, message, folder):
    module = adapted.make("llama")
    adapted.trained(module, folder.adapter, **{"target_modules": ["q_proj"]} | settings)
    with pytest.raises(FileError, match=message) as refused:
        import_lora(folder.adapter, module.state_dict(), module)
    assert str(folder.adapter / "adapter_config.json") in str(refused.value)


@pytest.fixture
def plain(folder) -> SimpleNamespace:
    """A plain adapter of Llama whose settings and tensors may be changed."""
    module = adapted.make("llama")
    adapted.trained(module, folder.adapter, target_modules=["q_proj"])
    config, tensors = folder.adapter / "adapter_config.json", folder.adapter / "adapter_model.safetensors"

    def change(tensor=None, **settings) -> None:
        config.write_text(json.dumps(json.loads(config.read_text()) | settings))
        if tensor:
            save_tensors(load_tensors(tensors) | tensor, tensors, overwrite=True)

    call = lambda: import_lora(folder.adapter, module.state_dict(), module)
    return SimpleNamespace(module=module, change=change, load=call, folder=folder.adapter)


VALUES = {
    "init_lora_weights": ["pissa_niter_4", "PiSSA", "corda", "loftq", "lora_ga", "Gaussian", "new", None, 3],
    "bias": ["some", None, True],
    "lora_alpha": ["16", float("nan"), float("inf"), None],
    "r": [0, -1, 4.0, "4", None, True],
    "rank_pattern": [{"q_proj": 0}, ["q_proj"]],
    "alpha_pattern": [{"q_proj": "8"}, {"(": 3}],
    "target_modules": [None, [3], "("],
    "modules_to_save": ["lm_head", [1]],
    "exclude_modules": [[3]],
    "layers_to_transform": ["1", [1.5]],
    "layers_pattern": [3],
    "use_rslora": ["yes", 1],
    "lora_bias": [1],
    "fan_in_fan_out": ["yes"],
    "ensure_weight_tying": [1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in VALUES.items() for value in values])
def test_a_setting_with_a_value_that_is_not_understood_is_refused_by_name(plain, field, value):
    plain.change(**{field: value})
    with pytest.raises(FileError, match=field):
        plain.load()


def test_every_setting_that_peft_knows_is_understood_or_refused_by_name_and_so_is_any_that_it_will_know(plain):
    from dts_mini.serving.lora_config import _HARMLESS, _READ

    known = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert known >= (_HARMLESS | _READ.keys()) - {"peft_version"}
    for field in (known | {"use_tomorrow", "scaled_by"}) - _HARMLESS - _READ.keys():
        for on in (True, 0, 2, "on", {"a": 1}, [1]):
            plain.change(**{field: on})
            with pytest.raises(FileError, match=f"{field} is .*not read here; "):
                plain.load()
        for off in (None, False, [], {}, ""):
            plain.change(**{field: off})
            plain.load()


@pytest.mark.parametrize(
    "kind", sorted(kind.value for kind in peft.PeftType if kind.value != "LORA") if peft else [], ids=str
)
def test_an_adapter_of_another_kind_is_refused_by_its_kind(plain, kind):
    plain.change(peft_type=kind)
    with pytest.raises(FileError, match=f"is an adapter of the kind '{kind}'; only LORA is read"):
        plain.load()


PLACE = "base_model.model.model.layers.0.self_attn.{}"
STRAY = {
    "of a module not targeted": ({"target_modules": ["k_proj"]}, {}, "does not target, and peft would not load it"),
    "of a module excluded": ({"exclude_modules": ["q_proj"]}, {}, "does not target"),
    "of a layer not targeted": ({"layers_to_transform": [1]}, {}, "layers.0.self_attn.q_proj', which.*not target"),
    "of a module to save": ({"modules_to_save": ["q_proj"]}, {}, "does not target"),
    "of another rank": ({"r": 3}, {}, r"has rank 4, and adapter_config\.json says 3"),
    "under no prefix": ({}, {"lm_head.weight": torch.ones(50, 32)}, "lm_head.weight does not begin with base_model"),
    "of a base within no factors": (
        {},
        {PLACE.format("k_proj.base_layer.weight"): torch.ones(32, 32)},
        "does not know.*has no factors",
    ),
    "under an adapter's name": (
        {},
        {PLACE.format("q_proj.lora_A.default.weight"): torch.ones(4, 32)},
        "lora_A.default.*peft would not load it: save the adapter by its own",
    ),
    "a factor that a sharded training left empty": (
        {},
        {PLACE.format("q_proj.lora_A.weight"): torch.ones(0)},
        r"a factor of shape \(0,\); save the adapter again by peft, and gather it first",
    ),
    "a factor that is one number": ({}, {PLACE.format("q_proj.lora_B.weight"): torch.tensor(1.0)}, r"of shape \(\)"),
    "a factor without an ending": (
        {},
        {PLACE.format("q_proj.lora_A"): torch.ones(4, 32)},
        "has a lora_A, .*peft would not load it: save the adapter by its own",
    ),
    "a norm laid out otherwise": (
        {},
        {"base_model.model.model.norm.weight": torch.ones(32, 1)},
        r"has shape \(32,\) in the base and \(32, 1\) in the adapter; pass its own base$",
    ),
    "of a vocabulary that grew": (
        {},
        {"base_model.model.lm_head.weight": torch.ones(53, 32)},
        r"whose vocabulary may have been resized \(resize_token_embeddings\(53\)\)",
    ),
    "missing from a module that is targeted": (
        {"target_modules": ["q_proj", "k_proj"]},
        {},
        r"lacks the factors of 'model\.layers\.0\.self_attn\.k_proj', which adapter_config\.json targets",
    ),
    "of a scale beyond float32": ({"lora_alpha": 1e39}, {}, "whose product, by lora_alpha, may be beyond float32"),
    "of a scale that is no number": ({"lora_alpha": 10**400}, {}, "lora_alpha is 1000.*not read here"),
    "beside factors": ({}, {PLACE.format("q_proj.weight"): torch.ones(32, 32)}, "does not know.*has factors"),
    "of DoRA": ({}, {PLACE.format("q_proj.lora_magnitude_vector"): torch.ones(32)}, "has a lora_magnitude_vector"),
    "of an embedding": ({}, {PLACE.format("q_proj.lora_embedding_A"): torch.ones(4, 9)}, "has a lora_embedding_A"),
    "a bias that is not said": ({}, {PLACE.format("q_proj.lora_B.bias"): torch.ones(32)}, "has a lora_B.bias"),
    "a bias that the base has not": (
        {"lora_bias": True},
        {PLACE.format("q_proj.lora_B.bias"): torch.ones(32)},
        "a bias in the adapter and none in the base",
    ),
    "missing from a module to save": ({"modules_to_save": ["lm_head"]}, {}, "lacks lm_head.weight of 'lm_head'"),
}


@pytest.mark.parametrize(("settings", "tensor", "message"), STRAY.values(), ids=STRAY)
def test_a_tensor_that_peft_would_not_load_or_that_is_missing_is_refused_by_name(plain, settings, tensor, message):
    plain.change(tensor, **settings)
    with pytest.raises(DTSError, match=message) as refused:
        plain.load()
    assert str(plain.folder) in str(refused.value)


class Odd(torch.nn.Module):
    """Modules to whose output a change of the weight does not add what peft adds."""

    def __init__(self) -> None:
        class Squared(torch.nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x).square()

        super().__init__()
        self.squared, self.short = Squared(8, 8), torch.nn.Embedding(9, 8, max_norm=1.0)
        self.grouped, self.circular = (
            torch.nn.Conv1d(8, 8, 3, groups=2),
            torch.nn.Conv1d(8, 8, 3, padding_mode="circular"),
        )
        self.dilated = torch.nn.Conv1d(8, 8, 3, dilation=2, padding="same")
        self.attention = torch.nn.MultiheadAttention(8, 2)
        self.one = torch.nn.Linear(8, 8)
        self.other = self.one


@pytest.mark.parametrize("name", ["squared", "short", "grouped", "circular", "dilated", "attention.out_proj", "one"])
def test_a_module_of_which_peft_makes_something_else_is_refused(name, folder):
    module = Odd().eval()
    adapted.trained(module, folder.adapter, target_modules=[name])
    with pytest.raises(FileError, match=f"the adapter changes '{name}', "):
        import_lora(folder.adapter, module.state_dict(), module)


# --- where the model is known from ---


def test_without_a_module_or_a_config_json_an_adapter_is_refused(plain, folder):
    state = plain.module.state_dict()
    save_tensors(state, folder.base.with_suffix(".safetensors"))
    for base, why in ((state, "lies in memory"), (open_checkpoint(folder.base.with_suffix(".safetensors")), "has no")):
        with pytest.raises(
            StateError, match=rf"{why}.*; pass the model \(module=...\), or a base with its config.json"
        ):
            import_lora(plain.folder, base)


def test_a_config_json_that_names_no_model_of_transformers_is_refused(plain, folder):
    plain.module.save_pretrained(folder.base)
    path = folder.base / "config.json"
    for architectures in (None, [], ["Nothing"], ["logging"]):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": architectures}))
        with pytest.raises(StateError, match="names no architecture that transformers has"):
            import_lora(plain.folder, open_checkpoint(folder.base))


def test_the_model_of_another_adapter_is_refused(plain):
    other = make_plain("linear")
    with pytest.raises(StateError, match="which the base has no weight for; pass its own base"):
        import_lora(plain.folder, other.state_dict(), other)


def test_a_base_whose_names_lack_the_models_prefix_is_told_from_another_model(plain):
    short = {name.removeprefix("model."): x for name, x in plain.module.state_dict().items()}
    with pytest.raises(
        StateError, match=r"pass that model as its own class saves it, not with 'layers\.0\.self_attn\.q"
    ):
        import_lora(plain.folder, short, plain.module)


def test_an_adapter_of_a_model_within_and_one_with_a_head_of_its_own_say_how_the_base_is_to_be_opened(folder):
    """The mend is tried: what it says makes the adapter one that can be read."""
    module = adapted.make("bert")
    adapted.trained(module.bert, folder.adapter, target_modules=["query"])
    module.save_pretrained(folder.base)
    with pytest.raises(
        StateError, match=r"in 'bert\.encoder.*open the base by transformers' AutoModel, save_pretrained"
    ):
        import_lora(folder.adapter, open_checkpoint(folder.base))
    inner = folder.base.with_name("inner")
    transformers.AutoModel.from_pretrained(folder.base).save_pretrained(inner)
    assert import_lora(folder.adapter, open_checkpoint(inner))
    head = folder.base.with_name("head")
    adapted.trained(module, head, target_modules=["query"], task_type="SEQ_CLS")
    masked = folder.base.with_name("masked")
    adapted.make("masked bert").save_pretrained(masked)
    with pytest.raises(StateError, match=r"a head of the adapter's own.*by AutoModelForSequenceClassification or the"):
        import_lora(head, open_checkpoint(masked))
    again = folder.base.with_name("again")
    transformers.AutoModelForSequenceClassification.from_pretrained(masked, num_labels=3).save_pretrained(again)
    assert import_lora(head, open_checkpoint(again))


def test_what_does_not_fit_into_the_bases_dtype_with_the_adapter_is_refused_by_name(plain):
    state = {name: (1e4 * x).half() for name, x in plain.module.state_dict().items()}
    plain.change({}, lora_alpha=1e7)
    with pytest.raises(StateError, match=r"q_proj\.weight' does not fit into torch\.float16; look at lora_alpha"):
        import_lora(plain.folder, state, plain.module)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("way", ["factors", "saved"])
def test_over_a_base_that_is_quantised_an_adapter_is_refused_with_the_tensor_and_the_mend(folder, dtype, way):
    module = adapted.make("llama")
    more = {"target_modules": ["k_proj"], "modules_to_save": ["q_proj"]} if way == "saved" else {}
    adapted.trained(module, folder.adapter, **{"target_modules": ["q_proj"]} | more)
    state = module.state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    for scale in ({}, {name.replace("weight", "SCB"): torch.ones(32)}):
        base = state | {name: (100 * state[name]).to(dtype)} | scale
        with pytest.raises(StateError, match=rf"^base, tensor '{name}': .*{dtype}.*(in floats|dequantise the model)"):
            import_lora(folder.adapter, base, module)


def test_where_no_adapter_lies_it_is_said_where_one_may_be(plain):
    within = plain.folder / "within"
    within.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (plain.folder / name).rename(within / name)
    with pytest.raises(FileError, match=r"holds no adapter \(adapter_config\.json\); pass one of those within: within"):
        plain.load()
    with pytest.raises(FileError, match=r"is a file; pass the adapter's folder, .*within$"):
        import_lora(within / "adapter_model.safetensors", plain.module.state_dict(), plain.module)
    assert import_lora(within, plain.module.state_dict(), plain.module)
    (within / "adapter_config.json").unlink()
    with pytest.raises(FileError, match="pass the folder that peft saved"):
        plain.load()


def test_weights_of_a_pickle_are_refused_by_what_they_are(plain):
    path = plain.folder / "adapter_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(
        FileError, match=r"adapter_model\.bin: is a pickle; load the adapter with peft, and save it again"
    ):
        import_lora(plain.folder, plain.module.state_dict(), plain.module)


def test_a_path_is_enough(plain, folder):
    plain.module.save_pretrained(folder.base)
    base = open_checkpoint(Path(folder.base) / "model.safetensors")
    assert rebuild(base, import_lora(str(plain.folder), base)).keys() == base.keys()
