"""Deltas as adapters: peft loads them, and answers as the expert does, before it merges them and after."""

import copy
import doctest
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from served import apart
from served import make as make_plain
from torch import nn

from dts_mini import TaskDelta, compress, rebuild
from dts_mini.core.errors import DTSError, FileError, StateError
from dts_mini.core.file import load_tensors
from dts_mini.serving import lora as lora_module
from dts_mini.serving.lora import export_lora, import_lora, plan_lora
from dts_mini.streaming.checkpoint import open_checkpoint

pytest.importorskip("peft")
pytest.importorskip("transformers")
adapted = pytest.importorskip("adapted")


def expert_of(base, *, names: tuple[str, ...] = ("",), size: float = 0.05, keep_ratio: float = 1.0) -> TaskDelta:
    """A delta in which the floating tensors with one of these words in their names have moved."""
    draw, moved = torch.Generator().manual_seed(1), {}
    for name, x in base.items():
        step = size * torch.randn(x.shape, generator=draw)
        known = next((other for other in moved if base[other].data_ptr() == x.data_ptr()), None)
        moves = x.is_floating_point() and any(word in name for word in names)
        moved[name] = moved[known] if known else x + step if moves else x.clone()
    return compress(base, moved, keep_ratio=keep_ratio)


MOVED = {
    "everything": ("",),
    "embeddings": ("wte", "word_embeddings", "embed_tokens", "shared"),
    "biases and a matrix": ("bias", "query.weight", "c_attn.weight", "wo.weight", "q_proj.weight"),
}


@pytest.mark.parametrize("names", MOVED.values(), ids=MOVED)
@pytest.mark.parametrize("name", adapted.MODELS)
def test_peft_gives_the_experts_outputs_from_its_adapter_merged_or_not_and_so_does_the_way_back(name, names, tmp_path):
    module = adapted.make(name)
    module.save_pretrained(tmp_path / "base")
    bases = (module.state_dict(), open_checkpoint(tmp_path / "base"))
    for number, base in enumerate(bases[: 1 + ("embed_tokens" in names)]):  # which hold ties twice, and once
        delta, folder = expert_of({key: base[key] for key in base}, names=names), tmp_path / str(number)
        wanted = adapted.answer(adapted.with_weights(module, rebuild(base, delta)))
        assert apart(adapted.answer(module), wanted) > 1e-2
        adapter = export_lora(delta, module, folder)
        assert not adapter.lost
        with_peft = adapted.with_peft(module, folder)
        assert apart(adapted.answer(with_peft), wanted) < 1e-5
        assert apart(adapted.answer(with_peft.merge_and_unload()), wanted) < 1e-5
        again = rebuild(base, import_lora(folder, base, module))
        assert apart(adapted.answer(adapted.with_weights(module, again)), wanted) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_biases_that_are_kept_exactly_are_in_the_adapter_as_they_are(dtype, tmp_path):
    module = adapted.make("gpt")
    base, draw = module.state_dict(), torch.Generator().manual_seed(0)
    biases = [name for name in base if ".c_" in name and name.endswith(".bias")]
    some = {name: base[name] + 0.1 * torch.randn(base[name].shape, generator=draw) for name in biases}
    for extra in ({}, {"transformer.h.0.mlp.c_fc.weight": base["transformer.h.0.mlp.c_fc.weight"] + 0.1}):
        expert = {**base, **some, **extra}
        adapter = export_lora(
            compress(base, expert, keep=["*.bias"]), module, tmp_path / "adapter", dtype=dtype, overwrite=True
        )
        assert not adapter.modules_to_save and len(adapter.ranks) == len(biases)
        merged = adapted.with_peft(module, tmp_path / "adapter").merge_and_unload().state_dict()
        for name in biases:
            assert (merged[name] - expert[name]).abs().max() <= (1e-6 if dtype == "float32" else 4e-3), name


def test_an_untied_expert_of_a_tied_model_is_refused_with_both_ends_and_the_mend(tmp_path):
    module = adapted.make("gpt")
    base = {name: x.clone() for name, x in module.state_dict().items()}
    for moved in ("transformer.wte.weight", "lm_head.weight"):
        delta = compress(base, base | {moved: base[moved] + torch.randn(50, 32)})
        with pytest.raises(StateError, match=r"'transformer.wte.weight' and 'lm_head.weight' apart.*untie them"):
            export_lora(delta, module, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


class Twice(nn.Module):
    """One layer under two names, as one module and, beside it, as one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.blocks.append(self.blocks[0])
        self.after = nn.Linear(16, 16)
        self.after.weight = self.blocks[1].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x).relu()
        return self.after(x)


class Clashing(nn.Module):
    """Names that end as peft's own do: base_layer, lora_dropout, default."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out, self.default = nn.LayerNorm(16), nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.default(self.out(self.layer(x)))


def test_a_module_of_two_names_changes_under_both(tmp_path):
    torch.manual_seed(0)
    module, x = Twice().eval().requires_grad_(False), torch.randn(4, 16)
    delta = expert_of(module.state_dict())
    export_lora(delta, module, tmp_path / "adapter")
    other = copy.deepcopy(module)
    other.load_state_dict(rebuild(module.state_dict(), delta))
    found = adapted.with_peft(module, tmp_path / "adapter")
    assert apart(found(x), other(x)) < 1e-5
    assert apart(found.merge_and_unload()(x), other(x)) < 1e-5


def test_a_module_whose_name_peft_takes_for_its_own_is_refused_or_left_out(tmp_path):
    torch.manual_seed(0)
    module = Clashing().eval().requires_grad_(False)
    delta = expert_of(module.state_dict())
    with pytest.raises(DTSError, match=r"can hold 'default.bias', 'default.weight', 'layer.bias' and more, .*its own"):
        export_lora(delta, module, tmp_path / "adapter")
    adapter = export_lora(delta, module, tmp_path / "adapter", partial=True)
    assert adapter.lost == ("default.bias", "default.weight", "layer.bias", "layer.weight")
    adapted.with_peft(module, tmp_path / "adapter")


class Squared(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).square()


class Unusual(nn.Module):
    """Modules of which peft would make something else than the expert, were they given factors."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.squared = nn.Embedding(50, 16, max_norm=1.0), Squared(16, 16)
        self.normed, self.grouped = (
            nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)),
            nn.Conv1d(16, 16, 3, groups=2),
        )
        self.last = nn.Linear(16, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.last(self.grouped(self.normed(self.squared(self.table(ids))).mT).mT)


def test_what_peft_would_make_something_else_of_is_held_with_all_its_tensors(tmp_path):
    torch.manual_seed(0)
    module, ids = Unusual().eval().requires_grad_(False), torch.randint(50, (4, 6))
    delta = expert_of(module.state_dict())
    adapter = export_lora(delta, module, tmp_path / "adapter")
    assert adapter.ranks.keys() == {"last"} and set(adapter.modules_to_save) == {
        "table",
        "squared",
        "normed",
        "grouped",
    }
    other = copy.deepcopy(module)
    other.load_state_dict(rebuild(module.state_dict(), delta))
    found = adapted.with_peft(module, tmp_path / "adapter")
    assert apart(found(ids), other(ids)) < 1e-5
    assert apart(found.merge_and_unload()(ids), other(ids)) < 1e-5


class Mats(nn.Module):
    """A stack of matrices, as mixtures of experts have one."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 16, 16) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.unsqueeze(-3) @ self.w).sum(-3)


class Mixed(nn.Module):
    """A layer of each kind that is held in its own way: with a bias and without, statistics, a stack, an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.line, self.norm = nn.Embedding(50, 16), nn.Conv1d(16, 16, 3, padding=1), nn.BatchNorm1d(16)
        self.mats, self.attention = Mats(), nn.MultiheadAttention(16, 2, batch_first=True)
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 8, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.mats(self.norm(self.line(self.table(ids).mT)).mT)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.last(self.first(x).relu())


def mixed() -> nn.Module:
    torch.manual_seed(0)
    return Mixed().eval().requires_grad_(False)


FLOATING = sorted(name for name, x in mixed().state_dict().items() if x.is_floating_point())


@settings(max_examples=20)
@given(data=st.data())
def test_whatever_kinds_of_parts_a_delta_has_peft_answers_as_the_expert_and_so_does_the_way_back(
    data, tmp_path_factory
):
    """Tensors kept as they are, frozen rows and columns, stacks; once from DTS and once from the adapter read back."""
    module, tmp_path = mixed(), tmp_path_factory.mktemp("adapters")
    base, ids = module.state_dict(), torch.randint(50, (4, 6), generator=torch.Generator().manual_seed(0))
    kept = data.draw(st.one_of(st.just(["*.bias"]), st.lists(st.sampled_from(FLOATING), unique=True)), label="kept")
    how = st.sampled_from(["moved", "still", "rows", "columns"])
    bare = {"table.weight", "last.weight"}  # beside layers that have one: biases then take the place of the base's
    still = bare if data.draw(st.booleans(), label="layers without a bias stay") else set()
    expert, draw = {name: x.clone() for name, x in base.items()}, torch.Generator().manual_seed(1)
    for name in FLOATING:
        moves, x = "still" if name in still else data.draw(how, label=name), expert[name]
        step = 0.2 * torch.randn(x.shape, generator=draw)
        if moves == "rows":
            step[: len(step) // 2] = 0
        if moves == "columns":
            step[..., : step.shape[-1] // 2] = 0
        x += step.abs() if "running" in name else 0 if moves == "still" else step
    expert["first.weight"][3] += 1  # one matrix has factors, whatever happens to the others
    expert["norm.num_batches_tracked"] += 7
    kept = [name for name in kept if name != "first.weight"]
    delta = compress(base, expert, keep_ratio=0.5, keep=kept, stacks=["mats.w"])
    for turn in ("there", "back"):
        rebuilt, other = rebuild(base, delta), copy.deepcopy(module)
        other.load_state_dict(rebuilt)
        assert not export_lora(delta, module, tmp_path / turn).lost
        found = adapted.with_peft(module, tmp_path / turn)
        assert apart(found(ids), other(ids)) < 1e-5
        merged = found.merge_and_unload()
        assert apart(merged(ids), other(ids)) < 1e-5
        for name, x in merged.state_dict().items():
            assert torch.allclose(x, rebuilt[name], rtol=1e-5, atol=1e-6), name
        delta = import_lora(tmp_path / turn, base, module)


# --- its size ---


def test_embeddings_have_factors_though_biases_differ_and_a_head_around_one_is_not_saved_for_its_bias(tmp_path):
    module = adapted.make("bert")
    adapter = export_lora(expert_of(module.state_dict()), module, tmp_path / "all")
    assert "bert.embeddings.word_embeddings" in adapter.ranks
    assert all("LayerNorm" in name for name in adapter.modules_to_save)
    module = adapted.make("masked bert")
    delta = expert_of(module.state_dict(), names=("cls.predictions.bias", "query.weight"))
    adapter = export_lora(delta, module, tmp_path / "bias")
    assert adapter.modules_to_save == ()
    assert adapter.nbytes < 4 * (2 * 32 * 2 * 32 + 2 * 50) + 1
    found, wanted = adapted.with_peft(module, tmp_path / "bias"), rebuild(module.state_dict(), delta)
    assert apart(adapted.answer(found), adapted.answer(adapted.with_weights(module, wanted))) < 1e-5


@pytest.mark.parametrize("name", adapted.MODELS)
@pytest.mark.parametrize("settings", [{}, {"rank": 3}, {"dtype": "float16"}, {"rank": 1, "dtype": "bfloat16"}], ids=str)
def test_the_bytes_are_told_before_anything_is_written_and_are_the_files_but_for_its_header(name, settings, tmp_path):
    module, told = adapted.make(name), []
    delta = expert_of(module.state_dict(), keep_ratio=0.5)
    plan = plan_lora(delta, module, **settings)
    see = lambda adapter: told.append((adapter, (tmp_path / "adapter").exists()))
    adapter = export_lora(delta, module, tmp_path / "adapter", told=see, **settings)
    assert told == [(plan, False)]
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    held = load_tensors(path)
    assert plan.nbytes == adapter.nbytes == sum(tensor.nbytes for tensor in held.values())
    assert 0 < path.stat().st_size - plan.nbytes < 200 * (len(held) + 1)
    own = {x.data_ptr(): 4 * x.numel() for x in module.state_dict().values()}
    assert plan.share == plan.nbytes / sum(own.values())


def test_a_cap_on_the_rank_leaves_the_largest_components_and_says_what_they_hold(tmp_path):
    module = make_plain("linear")
    delta = expert_of(module.state_dict())
    base = {name: module.state_dict()[name] for name in ("layers.0.weight", "layers.3.weight")}
    change = {name: rebuild(module.state_dict(), delta)[name] - x for name, x in base.items()}
    last = 0.0
    for rank in (1, 4, 12, 24):
        folder = tmp_path / str(rank)
        adapter = export_lora(delta, module, folder, rank=rank)
        assert adapter.ranks == {name: min(rank, 24 if "0" in name else 16) for name in ("layers.0", "layers.3")}
        again, squares = rebuild(module.state_dict(), import_lora(folder, module.state_dict(), module)), 0.0
        for name, x in change.items():
            s = torch.linalg.svdvals(x)
            error = torch.linalg.vector_norm(again[name] - base[name] - x)
            assert torch.allclose(error, torch.linalg.vector_norm(s[rank:]), atol=1e-5)  # Eckart and Young
            squares += float(s[:rank].square().sum())
        assert adapter.kept == pytest.approx(squares / sum(float(x.square().sum()) for x in change.values()), abs=1e-4)
        assert adapter.kept > last
        last = adapter.kept
    assert last == pytest.approx(1)


@pytest.mark.parametrize(("dtype", "within"), [("float16", 2e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("size", [1e-6, 0.05, 30.0])
def test_sixteen_bits_take_half_the_bytes_and_round_no_more_than_they_must(dtype, within, size, tmp_path):
    module = make_plain("linear")
    delta = expert_of(module.state_dict(), size=size)
    wide = export_lora(delta, module, tmp_path / "wide")
    narrow = export_lora(delta, module, tmp_path / "narrow", dtype=dtype)
    assert 2 * narrow.nbytes == wide.nbytes
    again = import_lora(tmp_path / "narrow", module.state_dict(), module)
    for name in ("layers.0.weight", "layers.3.weight"):
        found, wanted = again.remainder(name), delta.remainder(name)
        assert torch.linalg.vector_norm(found - wanted) < within * torch.linalg.vector_norm(wanted)


def test_a_layer_without_a_bias_beside_ones_that_have_theirs_keeps_the_adapter_one_that_peft_can_merge(tmp_path):
    module, x = make_plain("linear"), torch.randn(4, 24)
    delta = expert_of(module.state_dict())
    export_lora(delta, module, tmp_path / "adapter")
    module.load_state_dict(rebuild(module.state_dict(), delta))
    wanted = module(x)
    merged = adapted.with_peft(make_plain("linear"), tmp_path / "adapter").merge_and_unload()
    assert apart(merged(x), wanted) < 1e-5


def test_what_does_not_fit_into_sixteen_bits_is_refused_and_nothing_is_written(tmp_path):
    module = make_plain("linear")
    delta = expert_of(module.state_dict(), size=1e5)
    with pytest.raises(DTSError, match=r"does not fit into torch\.float16; choose bfloat16 or float32"):
        export_lora(delta, module, tmp_path / "adapter", dtype="float16")
    assert not (tmp_path / "adapter").exists()
    export_lora(delta, module, tmp_path / "adapter", dtype="bfloat16")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rank": 0}, "rank is 0: give at least 1"), ({"dtype": "float8"}, "dtype is 'float8': choose one of float32")],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings, message, tmp_path):
    module = make_plain("linear")
    delta = expert_of(module.state_dict())
    for act in (lambda: plan_lora(delta, module, **settings), lambda: export_lora(delta, module, tmp_path, **settings)):
        with pytest.raises(DTSError, match=message):
            act()


def test_what_peft_reads_of_the_settings_is_what_was_meant(tmp_path):
    module = adapted.make("gpt")
    adapter = export_lora(expert_of(module.state_dict(), names=("c_",)), module, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["bias"] == "none" and config["lora_bias"] is True and config["modules_to_save"] is None
    assert config["target_modules"] == sorted(adapter.ranks)
    assert config["rank_pattern"] == {name.replace(".", r"\."): rank for name, rank in adapter.ranks.items()}


def test_names_that_another_fits_as_a_pattern_get_their_own_ranks(tmp_path):
    """peft takes the names of ``rank_pattern`` for patterns, in which a dot is any sign."""
    sizes = {"a": nn.ModuleDict({"b": nn.Linear(8, 8)}), "a_b": nn.Linear(40, 40), "c+": nn.Linear(20, 20)}
    module = nn.ModuleDict({"net": nn.ModuleDict(sizes)}).eval()
    base = module.state_dict()
    delta = compress(base, {name: x + torch.randn_like(x) for name, x in base.items()}, keep_ratio=0.5)
    adapter = export_lora(delta, module, tmp_path / "adapter")
    wanted = rebuild(base, delta)
    merged = adapted.with_peft(module, tmp_path / "adapter").merge_and_unload().state_dict()
    assert len(set(adapter.ranks.values())) == 3
    assert all(torch.allclose(merged[name], wanted[name], atol=1e-5) for name in wanted)


def test_the_example_says_what_happens():
    assert doctest.testmod(lora_module, extraglobs={"compress": compress}) == (0, 3)


@pytest.mark.parametrize("step", ["write_bytes", "write_json"])
def test_a_run_that_ends_while_it_replaces_an_adapter_leaves_the_old_one_or_none(tmp_path, monkeypatch, step):
    module = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6)).eval()
    base = module.state_dict()
    first = compress(base, base | {"0.weight": base["0.weight"] + 1})
    second = compress(base, {name: x + torch.arange(len(x)).view(-1, *[1] * (x.dim() - 1)) for name, x in base.items()})
    export_lora(first, module, tmp_path / "a")

    def ends(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(lora_module, step, ends)
    with pytest.raises(KeyboardInterrupt):
        export_lora(second, module, tmp_path / "a", overwrite=True)
    if step == "write_bytes":
        assert rebuild(base, import_lora(tmp_path / "a", base, module))["1.weight"].equal(base["1.weight"])
    else:
        with pytest.raises(FileError, match=r"adapter_config\.json"):
            import_lora(tmp_path / "a", base, module)
    monkeypatch.undo()
    export_lora(second, module, tmp_path / "a", overwrite=True)
    assert not rebuild(base, import_lora(tmp_path / "a", base, module))["1.weight"].equal(base["1.weight"])
    assert len(list((tmp_path / "a").iterdir())) == 2
