"""The command line: its commands and flags are fixed, its refusals short and clean."""

import io
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import pytest
import torch
from safetensors.torch import load, load_file, save_file

import dts_mini
from dts_mini import average, cli, compress, rebuild
from dts_mini.cli import main
from dts_mini.core.compress import METHODS
from dts_mini.core.merging import MERGES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def base(files) -> dict:
    return load_file(files.base)  # a file orders its tensors by itself


@pytest.fixture
def experts(files) -> list[dict]:
    return [load_file(files.a), load_file(files.b)]


@pytest.fixture
def run(files, capsys, monkeypatch):
    """Runs a command line, written as one string, in the folder of the files."""
    monkeypatch.chdir(files.folder)

    def call(line: str) -> tuple[int, str, str]:
        code = main(line.split())
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(run, files):
    """Runs a command line that must fail, and returns its one line of complaint."""

    def call(line: str) -> str:
        before = {path: path.read_bytes() for path in files.folder.iterdir() if path.is_file()}
        code, out, err = run(line)
        assert code == 1
        assert out == ""
        assert err.startswith(f"dts-mini {line.split()[0]}: ")
        assert err.count("\n") == 1, "one line"
        assert err.endswith("\n")
        assert "Traceback" not in err
        after = {path: path.read_bytes() for path in files.folder.iterdir() if path.is_file()}
        assert after == before, "no output and no leftover"
        return err

    return call


def equal(path: str, state: dict) -> bool:
    found = load_file(path)
    return found.keys() == state.keys() and all(torch.equal(found[n], state[n]) for n in state)


# --- what the commands do ---


def test_compress_writes_the_delta_that_the_library_makes_by_default(run, base, experts):
    code, out, err = run("compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors")
    assert (code, err) == (0, "")
    data = Path("a.dts.safetensors").read_bytes()
    assert data == compress(base, experts[0], keep_ratio=0.1, groups=4, scale="rms", per="matrix").to_bytes()
    assert f"a.dts.safetensors: {len(data):,} bytes" in out


def test_compress_passes_every_option_on(run, base, experts):
    options = "--keep-ratio 0.3 --groups 8 --scale mean --per vector"
    code, *_ = run(f"compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors {options}")
    assert code == 0
    wanted = compress(base, experts[0], keep_ratio=0.3, groups=8, scale="mean", per="vector")
    assert Path("a.dts.safetensors").read_bytes() == wanted.to_bytes()


def test_rebuild_writes_the_expert_that_the_library_rebuilds(run, base, experts):
    run("compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors")
    code, out, err = run("rebuild --base base.safetensors --delta a.dts.safetensors --out a2.safetensors")
    assert (code, err) == (0, "")
    assert "a2.safetensors" in out
    assert equal("a2.safetensors", rebuild(base, compress(base, experts[0])))


def test_inspect_shows_settings_fingerprints_three_counts_and_every_tensor(run):
    run("compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors --keep-ratio 0.3")
    code, out, err = run("inspect a.dts.safetensors")
    assert (code, err) == (0, "")
    delta = dts_mini.load("a.dts.safetensors")
    for text in ("keep_ratio 0.3", "groups 4", delta.base, delta.expert, "paper", "information", "file", "scalar"):
        assert text in out
    assert f"{Path('a.dts.safetensors').stat().st_size:,} bytes" in out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines.keys() >= delta.parts.keys()
    assert "36 x 12" in lines["block.in_proj_weight"]
    assert "rank 3" in lines["block.in_proj_weight"]  # floor(0.3 * 12)


def test_inspect_as_json_prints_the_manifest_alone(run):
    run("compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors")
    code, out, err = run("inspect a.dts.safetensors --json")
    assert (code, err) == (0, "")
    manifest = json.loads(out)
    assert manifest["settings"]["keep_ratio"] == 0.1
    assert manifest["storage"]["file"] == Path("a.dts.safetensors").stat().st_size


@pytest.mark.parametrize(("name", "method"), MERGES.items())
def test_merge_writes_what_the_library_merges(run, base, experts, name, method):
    code, out, err = run(
        f"merge --method {name} --base base.safetensors --experts a.safetensors b.safetensors --out m.safetensors"
    )
    assert (code, err) == (0, "")
    assert f"{name} of 2 experts" in out
    assert equal("m.safetensors", method(experts) if method is average else method(base, experts))


def test_average_needs_no_base(run, experts):
    assert run("merge --method average --experts a.safetensors b.safetensors --out m.safetensors")[0] == 0
    assert equal("m.safetensors", average(experts))


def test_overwrite_replaces_an_output_that_exists(run):
    for line in (
        "compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors",
        "rebuild --base base.safetensors --delta a.dts.safetensors --out a2.safetensors",
        "merge --method average --experts a.safetensors --out m.safetensors",
    ):
        out = line.split()[-1]
        run(line)
        whole = Path(out).read_bytes()
        Path(out).write_bytes(b"old")
        assert run(line)[0] == 1
        assert Path(out).read_bytes() == b"old"
        assert run(f"{line} --overwrite")[0] == 0
        assert Path(out).read_bytes() == whole


@pytest.fixture
def suite(monkeypatch):
    """Stands in for the mini suite and its tables, which take minutes and the committed checkpoints."""
    calls = []

    def table(title):
        def make(suite, progress):
            calls.append(title)
            progress("a row")
            return {"title": title, "rows": [1]}

        return make

    suites, tables = (ModuleType(f"dts_mini.{name}") for name in ("suites.mini.suite", "measures.tables"))
    suites.MiniSuite = lambda: None
    tables.headline, tables.unseen = table("The headline"), table("Unseen tasks")
    tables.markdown = lambda table: f"| {table['rows'][0]} |"
    for module in (suites, tables):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_evaluate_prints_both_tables_and_writes_them_as_json(run, suite):
    code, out, err = run("evaluate --suite mini --json tables.json")
    assert (code, err) == (0, "")
    assert suite == ["The headline", "Unseen tasks"]
    assert "The headline" in out
    assert "Unseen tasks" in out
    assert json.loads(Path("tables.json").read_text()) == {
        "headline": {"title": "The headline", "rows": [1]},
        "unseen": {"title": "Unseen tasks", "rows": [1]},
    }


def test_evaluate_refuses_an_existing_json_file_before_it_measures(refused, suite, files):
    (files.folder / "tables.json").write_text("old")
    assert "tables.json: exists already" in refused("evaluate --suite mini --json tables.json")
    assert suite == []


# --- the settings ---

OTHER = {"dts": {"per": "vector"}, "drc": {}}  # settings that others need


def values(kind: object) -> tuple[str, object]:
    """A value that is not the usual one, as the command line has it and as the library does."""
    match kind:
        case tuple():
            return str(kind[-1]), kind[-1]
        case _ if kind is bool:
            return "", False
    return "1", kind(1)


@pytest.mark.parametrize("method", ["dts", "drc"])
def test_every_setting_of_a_method_is_an_option_of_its_type_and_choices(method):
    hints = get_type_hints(METHODS[method].Settings)
    for field in fields(METHODS[method].Settings):
        kind, hint = cli.SETTINGS[field.name][0], hints[field.name]
        chosen = get_args(hint)
        if isinstance(kind, tuple):
            assert kind == chosen, field.name
        else:
            assert kind in ({hint, *chosen}), field.name


def test_no_option_is_a_setting_of_no_method_and_methods_and_merges_are_all_named():
    known = {field.name for method in ("dts", "drc") for field in fields(METHODS[method].Settings)}
    assert cli.SETTINGS.keys() == known
    assert sorted(cli.MERGES) == sorted(MERGES)
    assert set(METHODS) == {"dts", "drc"}


@pytest.mark.parametrize(
    ("method", "name"),
    [(method, field.name) for method in ("dts", "drc") for field in fields(METHODS[method].Settings)],
)
def test_a_setting_reaches_the_method(run, base, experts, method, name):
    word, value = values(cli.SETTINGS[name][0])
    settings = OTHER[method] | {name: value} | ({"budget": 3000} if method == "drc" and name != "notch" else {})
    if name == "dead":
        word, settings[name] = "0.7", 0.7
    flag = f"--{'no-' if value is False else ''}{name.replace('_', '-')} {word}"
    rest = " ".join(f"--{key} {settings[key]}" for key in settings if key != name)
    inputs = "--base base.safetensors --expert a.safetensors --out x.dts.safetensors"
    code, _, err = run(f"compress {inputs} --method {method} {rest} {flag}")
    assert (code, err) == (0, "")
    wanted = compress(base, experts[0], method=method, **settings)
    assert Path("x.dts.safetensors").read_bytes() == wanted.to_bytes()


def test_names_and_patterns_to_keep_reach_the_library(run, base, experts):
    inputs = "--base base.safetensors --expert a.safetensors --out x.dts.safetensors"
    assert run(f"compress {inputs} --keep *_bias embedding --keep-ratio 0.3")[0] == 0
    wanted = compress(base, experts[0], keep=["*_bias", "embedding"], keep_ratio=0.3)
    assert Path("x.dts.safetensors").read_bytes() == wanted.to_bytes()


# --- what they refuse ---


SPOILED = {
    "missing key": (lambda s: s.pop("embedding"), "lacks 'embedding'"),
    "extra key": (lambda s: s.update(extra=torch.ones(1)), "has beyond it 'extra'"),
    "other shape": (lambda s: s.update(embedding=torch.ones(3, 3)), "tensor 'embedding' has shape (3, 3)"),
    "NaN": (lambda s: s["embedding"].fill_(float("nan")), "tensor 'embedding': 204 of 204 values are NaN"),
    "infinity": (lambda s: s["norm.weight"][:1].fill_(float("inf")), "tensor 'norm.weight': 1 of 12"),
    "integer model": (lambda s: s.update({n: t.int() for n, t in s.items()}), "holds codes of quantised weights"),
    "empty": (lambda s: s.clear(), "is an empty state dict"),
}


def rewrite(path: Path, change) -> None:
    """Changes a state dict on disk."""
    state = load(path.read_bytes())
    change(state)
    save_file(state, path)


@pytest.mark.parametrize(("change", "message"), SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize(
    "line",
    [
        "compress --base base.safetensors --expert a.safetensors --out out.safetensors",
        "merge --method average --experts b.safetensors a.safetensors --out out.safetensors",
        "merge --method ties --base base.safetensors --experts b.safetensors a.safetensors --out out.safetensors",
    ],
    ids=["compress", "average", "ties"],
)
def test_a_bad_expert_is_refused_with_its_tensor(refused, files, line, change, message):
    rewrite(files.a, change)
    complaint = refused(line)
    assert message in complaint
    assert "expert" in complaint


@pytest.mark.parametrize("name", ["NaN", "infinity", "integer model", "empty"])
def test_a_bad_base_is_refused_as_the_base(refused, files, name):
    change, message = SPOILED[name]
    rewrite(files.base, change)
    for line in (
        "compress --base base.safetensors --expert a.safetensors --out out.safetensors",
        "merge --method ties --base base.safetensors --experts a.safetensors --out out.safetensors",
    ):
        complaint = refused(line)
        assert message in complaint
        assert "base" in complaint


@pytest.mark.parametrize("ratio", ["0", "-0.5", "1.5", "nan", "inf"])
def test_a_keep_ratio_outside_0_to_1_is_refused(refused, ratio):
    line = f"compress --base base.safetensors --expert a.safetensors --out o.safetensors --keep-ratio {ratio}"
    assert f"keep_ratio is {float(ratio)}" in refused(line)


INPUTS = {
    "compress base": ("base", "compress --base base.safetensors --expert a.safetensors --out out.safetensors"),
    "compress expert": ("a", "compress --base base.safetensors --expert a.safetensors --out out.safetensors"),
    "rebuild base": ("base", "rebuild --base base.safetensors --delta t.dts.safetensors --out out.safetensors"),
    "rebuild delta": ("t.dts", "rebuild --base base.safetensors --delta t.dts.safetensors --out out.safetensors"),
    "inspect": ("t.dts", "inspect t.dts.safetensors"),
    "inspect json": ("t.dts", "inspect t.dts.safetensors --json"),
    "merge base": ("base", "merge --method dare --base base.safetensors --experts a.safetensors --out out.safetensors"),
    "merge expert": ("b", "merge --method average --experts a.safetensors b.safetensors --out out.safetensors"),
}


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "pickle", "text"])
@pytest.mark.parametrize(("name", "line"), INPUTS.values(), ids=INPUTS)
def test_an_input_file_that_is_missing_or_damaged_is_refused_by_name(run, refused, files, name, line, damage):
    run("compress --base base.safetensors --expert a.safetensors --out t.dts.safetensors")
    path = files.folder / f"{name}.safetensors"
    whole = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(whole[:-10])
        case "empty":
            path.write_bytes(b"")
        case "pickle":
            torch.save({"w": torch.ones(2)}, path)
        case "text":
            path.write_text("version https://example.org/spec\nsize 1\n")
    assert f"{name}.safetensors: " in refused(line)


def test_a_model_without_a_single_number_is_no_reason_to_fail(run, files):
    for name in ("base", "a"):
        save_file({"w": torch.empty(0, 3)}, files.folder / f"{name}.safetensors")
    assert run("compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors")[0] == 0
    assert run("inspect a.dts.safetensors")[0] == 0
    assert run("rebuild --base base.safetensors --delta a.dts.safetensors --out m.safetensors")[0] == 0


def test_what_is_inspected_and_is_no_delta_is_called_what_it_is_with_what_can_be_done(refused, files):
    save_file({"base_model.model.q.lora_A.weight": torch.ones(2, 3)}, files.folder / "adapter_model.safetensors")
    assert "is a LoRA adapter, not a task delta; make one of it with dts-mini import" in refused(
        "inspect adapter_model.safetensors"
    )
    torch.save({"w": torch.ones(2)}, files.folder / "m.pt")
    assert "m.pt: is a pickle, not a task delta; give a file that dts-mini compress wrote" in refused("inspect m.pt")
    (files.folder / "folder").mkdir()
    assert "folder: is a folder; name a file in it" in refused("inspect folder")


@pytest.mark.parametrize("line", [INPUTS["rebuild delta"][1], INPUTS["inspect"][1], INPUTS["inspect json"][1]])
def test_an_altered_delta_is_refused_by_name(run, refused, files, line):
    run("compress --base base.safetensors --expert a.safetensors --out t.dts.safetensors")
    path = files.folder / "t.dts.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "t.dts.safetensors: was altered" in refused(line)


@pytest.mark.parametrize("line", [INPUTS["rebuild delta"][1], INPUTS["inspect"][1], INPUTS["inspect json"][1]])
def test_a_delta_of_an_unknown_format_version_is_refused_by_name(run, refused, monkeypatch, line):
    monkeypatch.setattr("dts_mini.core.container.VERSION", 99)
    run("compress --base base.safetensors --expert a.safetensors --out t.dts.safetensors")
    monkeypatch.setattr("dts_mini.core.container.VERSION", 1)
    assert "t.dts.safetensors: has format version 99" in refused(line)


def test_a_plain_model_is_refused_as_a_delta(refused):
    assert "a.safetensors: is a plain safetensors file" in refused("inspect a.safetensors")


def test_a_base_that_the_delta_was_not_made_for_is_refused(run, refused):
    run("compress --base base.safetensors --expert a.safetensors --out t.dts.safetensors")
    complaint = refused("rebuild --base b.safetensors --delta t.dts.safetensors --out out.safetensors")
    assert "not the one that the delta was made for" in complaint


@pytest.mark.parametrize("kind", ["exists", "folder", "nowhere"])
@pytest.mark.parametrize("name", ["compress base", "rebuild base", "merge base"])
def test_an_output_that_exists_or_cannot_be_written_is_refused_before_any_input_is_read(refused, files, kind, name):
    for path in (files.base, files.a, files.b):
        path.unlink()  # a complaint about these would come later
    out, message = {
        "exists": ("out.safetensors", "out.safetensors: exists already; pass --overwrite"),
        "folder": ("sub", "sub: is a folder"),
        "nowhere": ("none/out.safetensors", "the folder none does not exist"),
    }[kind]
    (files.folder / "sub").mkdir()
    if kind == "exists":
        (files.folder / out).write_bytes(b"old")
    assert message in refused(INPUTS[name][1].replace("out.safetensors", out))


def test_a_merge_uses_no_names_so_that_none_clash(run, files, experts):
    for folder in ("runs/a/checkpoint-500", "runs/b/checkpoint-500", "bert-v1.5", "bert-v1.7"):
        (files.folder / folder).mkdir(parents=True)
        source = files.a if folder in ("runs/a/checkpoint-500", "bert-v1.5") else files.b
        (files.folder / folder / "model.safetensors").write_bytes(source.read_bytes())
    for number, pair in enumerate(("runs/a/checkpoint-500 runs/b/checkpoint-500", "bert-v1.5 bert-v1.7")):
        assert run(f"merge --method average --experts {pair} --out {number}.safetensors")[0] == 0
        assert equal(f"{number}.safetensors", average(experts))


def test_messages_of_a_merge_name_the_experts_path(refused, files):
    rewrite(files.b, lambda s: s["embedding"].fill_(float("nan")))
    for method in ("average", "ties --base base.safetensors"):
        line = f"merge --method {method} --experts a.safetensors b.safetensors --out m.safetensors"
        assert "expert b.safetensors, tensor 'embedding'" in refused(line)


@pytest.mark.parametrize(
    "line",
    [
        "compress --base base.safetensors --expert a.safetensors --out base.safetensors",
        "compress --base base.safetensors --expert a.safetensors --out ./a.safetensors",
        "compress --base base.safetensors --expert link.safetensors --out a.safetensors",
        "rebuild --base base.safetensors --delta t.dts.safetensors --out base.safetensors",
        "rebuild --base base.safetensors --delta t.dts.safetensors --out t.dts.safetensors",
        "rebuild --base model --delta t.dts.safetensors --out model",
        "rebuild --base model/weights.safetensors --delta t.dts.safetensors --out model",
        "rebuild --base model --delta t.dts.safetensors --out model/weights.safetensors",
        "merge --method average --experts a.safetensors b.safetensors --out b.safetensors",
        "merge --method average --experts model b.safetensors --out model",
        "merge --method ties --base base.safetensors --experts a.safetensors --out base.safetensors",
    ],
)
def test_no_output_takes_the_place_of_an_input_even_where_overwriting_is_allowed(run, files, line):
    run("compress --base base.safetensors --expert a.safetensors --out t.dts.safetensors")
    (files.folder / "link.safetensors").symlink_to("a.safetensors")
    (files.folder / "model").mkdir()
    (files.folder / "model/weights.safetensors").write_bytes(files.base.read_bytes())
    before = {path: path.read_bytes() for path in files.folder.rglob("*") if path.is_file()}
    code, out, err = run(f"{line} --overwrite")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"{line.split()[-1].removeprefix('./')}: is, or holds, what this command reads" in err
    assert {path: path.read_bytes() for path in files.folder.rglob("*") if path.is_file()} == before


def test_a_delta_may_be_written_beside_the_checkpoints(run, files):
    for name, path in (("m", files.base), ("n", files.a)):
        (files.folder / name).mkdir()
        (files.folder / name / "model.safetensors").write_bytes(path.read_bytes())
    assert run("compress --base m --expert n --out n/new.dts.safetensors")[0] == 0


@pytest.mark.parametrize(
    "name", ["m.bin", "m.pt", "m.pth", "m.ckpt", "m.txt", "m.gguf", "m.SAFETENSORS", "m.safetensor"]
)
def test_a_model_is_not_written_as_a_pickle_nor_into_a_folder_of_such_a_name(refused, name):
    line = f"merge --method average --experts a.safetensors b.safetensors --out {name}"
    assert f"{name}: models are written as safetensors" in refused(line)


def test_a_delta_given_as_an_expert_is_called_one(run, refused):
    run("compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors")
    line = "merge --method average --experts a.dts.safetensors b.safetensors --out m.safetensors"
    assert "a.dts.safetensors: is a task delta, no model; rebuild the model first" in refused(line)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_of_tools_are_recognised_and_said(run, files, base, experts, prefix):
    rewrite(files.a, lambda s: [s.update({prefix + name: s.pop(name)}) for name in list(s)])
    code, _, err = run("compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors")
    assert code == 0
    assert f"'{prefix}" in err and "differ by a prefix" in err
    assert Path("a.dts.safetensors").read_bytes() == compress(base, experts[0]).to_bytes()
    assert run("merge --method average --experts b.safetensors a.safetensors --out m.safetensors")[0] == 0
    assert equal("m.safetensors", average([experts[1], experts[0]]))


BUFFERS = {
    "embeddings.position_ids": torch.arange(7).expand(1, -1).contiguous(),
    "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4).tril().bool(),
    "h.0.attn.attention.bias": torch.ones(1, 1, 4, 4).tril(),
    "layers.0.blocks.1.attn.relative_position_index": torch.arange(16).view(4, 4),
    "layers.0.blocks.1.attn_mask": torch.zeros(4, 4, 4),
    "layers.0.rotary_emb.cos_cached": torch.ones(1, 1, 4, 4),
    "bn1.num_batches_tracked": torch.tensor(9),
    "n_averaged": torch.tensor(2),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_that_one_side_does_not_store_are_no_reason_to_refuse(run, files, base, experts, name):
    ids = {name: BUFFERS[name]}
    rewrite(files.a, lambda s: s.update(ids))
    code, _, err = run("compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors")
    assert code == 0
    assert f"stores {name!r}, which the base does not; left out" in err
    assert Path("a.dts.safetensors").read_bytes() == compress(base, experts[0]).to_bytes()
    rewrite(files.base, lambda s: s.update(ids))
    rewrite(files.a, lambda s: s.pop(name))
    code, _, err = run("compress --base base.safetensors --expert a.safetensors --out a2.dts.safetensors")
    assert code == 0
    assert f"lacks {name!r}, which the base stores; taken from there" in err
    assert Path("a2.dts.safetensors").read_bytes() == compress(base | ids, experts[0] | ids).to_bytes()


@pytest.mark.parametrize("shape", [(4,), (1, 4, 4), (1, 2, 4, 4)], ids=str)
def test_a_bias_that_one_side_lacks_is_a_weight_unless_it_is_a_mask(refused, files, shape):
    rewrite(files.a, lambda s: s.update({"layers.0.attention.bias": torch.ones(shape)}))
    line = "compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors"
    assert "has beyond it 'layers.0.attention.bias'" in refused(line)


def test_a_vocabulary_that_grew_and_another_head_are_refused_with_what_to_do(refused, files):
    line = "compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors"
    rewrite(files.a, lambda s: s.update({"classifier.weight": torch.ones(2, 12)}))
    complaint = refused(line)
    assert "expert a.safetensors does not fit the base: it has beyond it 'classifier.weight'" in complaint
    assert "AutoModel" in complaint
    rewrite(files.a, lambda s: (s.pop("classifier.weight"), s.update(embedding=torch.ones(19, 12))))
    assert "base.resize_token_embeddings(19), save it, and compress over that" in refused(line)


def test_a_model_saved_by_torch_is_read_without_being_run(run, files, base, experts):
    torch.save(experts[0], files.folder / "a.pt")
    assert run("compress --base base.safetensors --expert a.pt --out a.dts.safetensors")[0] == 0
    assert Path("a.dts.safetensors").read_bytes() == compress(base, experts[0]).to_bytes()


def test_a_stop_by_hand_ends_in_one_line_and_loses_nothing(run, files, monkeypatch):
    from dts_mini.core import dts

    line, done, real = "compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors", [], dts.part

    def part(*arguments):
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    part.__module__ = real.__module__
    monkeypatch.setattr(dts, "part", part)
    monkeypatch.setattr("dts_mini.streaming.resume.LEAST", 0)  # these tensors are small
    code, out, err = run(line)
    assert (code, out) == (130, "")
    assert err.strip() == "dts-mini compress: stopped; nothing was changed, and what was finished is kept"
    assert len(list(Path("a.dts.safetensors.parts").iterdir())) == 2
    assert run(line)[0] == 0


def test_a_folder_that_transformers_saved_is_rebuilt_into_one_that_its_own_class_opens(run, files):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.BertModel(
        transformers.BertConfig(
            hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50
        )
    ).eval()
    model.save_pretrained("base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    model.save_pretrained("expert", max_shard_size="10kB")
    for name in ("tokenizer.json", "vocab.txt"):
        Path("base", name).write_text("{}")
    assert run("compress --base base --expert expert --out d.dts.safetensors --keep-ratio 1")[0] == 0
    assert run("rebuild --base base --delta d.dts.safetensors --out again")[0] == 0
    assert run("merge --method average --experts expert base --out merged")[0] == 0
    assert {path.name for path in Path("again").iterdir()} == {path.name for path in Path("base").iterdir()}
    for folder in ("again", "merged"):
        found = transformers.AutoModel.from_pretrained(folder)
        assert isinstance(found, transformers.BertModel)
    assert found.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("method", [name for name in MERGES if name != "average"])
def test_a_merge_that_needs_the_pretrained_model_says_so(refused, method):
    line = f"merge --method {method} --experts a.safetensors --out m.safetensors"
    assert f"{method} needs the pretrained model: pass --base" in refused(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "conquer",
        "compress --base base.safetensors --out o",
        "compress --base base.safetensors --expert a.safetensors --out o --groups 3",
        "compress --base base.safetensors --expert a.safetensors --out o --scale max",
        "compress --base base.safetensors --expert a.safetensors --out o --per row",
        "compress --base base.safetensors --expert a.safetensors --out o --keep-ratio half",
        "merge --method magic --experts a.safetensors --out o",
        "merge --method average --experts --out o",
        "evaluate --suite maxi",
    ],
)
def test_a_command_line_that_is_none_says_why_in_one_line_and_exits_with_2(run, capsys, files, line):
    with pytest.raises(SystemExit) as exit_:
        run(line)
    assert exit_.value.code == 2
    complaint = capsys.readouterr().err
    assert "usage: dts-mini" in complaint
    assert complaint.count("\n") == 1
    assert not (files.folder / "o").exists()


# --- as a program ---


def test_python_m_dts_mini_runs_the_command_line_and_hands_on_its_exit_status(files):
    shown = program("--help")
    assert shown.returncode == 0
    for name in ("compress", "rebuild", "inspect", "merge", "evaluate"):
        assert name in shown.stdout
    failed = program("inspect", str(files.folder / "none.safetensors"))
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1


def program(*arguments: str, **settings) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dts_mini", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **settings)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compress", "--help"], ["compress", "--bas", "x"]])
def test_help_version_and_a_mistyped_line_need_no_torch_and_half_a_second_of_processor_at_most(arguments):
    code = f"import sys\nfrom dts_mini.cli import main\ntry:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code += "assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_version_is_the_packages():
    assert program("--version").stdout == f"dts-mini {version('dts_mini')}\n"


@pytest.mark.parametrize(
    ("line", "wanted"), [("dts-mini insp", "inspect"), ("dts-mini compress --keep-r", "--keep-ratio")]
)
def test_a_shell_completes_commands_and_options(line, wanted, tmp_path):
    said = tmp_path / "said"
    asked = {
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(said),
    }
    program(env=os.environ | asked)
    assert wanted in said.read_text()
    assert "dts-mini" in program("completion", "bash").stdout


def test_what_nobody_foresaw_is_one_line_and_a_traceback_where_it_is_asked_for(run, monkeypatch):
    def broken(*arguments, **settings):
        raise ZeroDivisionError("of a sort\nand more")

    monkeypatch.setattr("dts_mini.core.compress.compress", broken)
    line = "compress --base base.safetensors --expert a.safetensors --out o.safetensors"
    code, out, err = run(line)
    assert (code, out) == (1, "")
    assert err.startswith("dts-mini compress: ZeroDivisionError: of a sort and more (dts-mini --traceback compress")
    assert err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        run(f"--traceback {line}")


def test_an_error_of_the_system_names_the_file(refused, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(28, "No space left on device", "o.safetensors")

    monkeypatch.setattr("dts_mini.core.compress.compress", full)
    complaint = refused("compress --base base.safetensors --expert a.safetensors --out o.safetensors")
    assert complaint == "dts-mini compress: o.safetensors: No space left on device\n"


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born without it
import dts_mini.core.compress as module
from dts_mini.cli import main
def compress(*arguments, **settings):
    print("ready", flush=True)
    time.sleep(60)
module.compress = compress
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_in_one_line_with_130(files):
    line = ["compress", "--base", "base.safetensors", "--expert", "a.safetensors", "--out", "o.safetensors"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW, *line], cwd=files.folder, env=environment, stdout=-1, stderr=-1, text=True
    )
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert err == "dts-mini compress: stopped; nothing was changed, and what was finished is kept\n"


def test_a_reader_that_has_enough_is_no_error(run, files):
    run("compress --base base.safetensors --expert a.safetensors --out t.dts.safetensors")
    command = f"{sys.executable} -m dts_mini inspect {files.folder / 't.dts.safetensors'} | true"
    result = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_is_no_error(run, files, closed):
    run("compress --base base.safetensors --expert a.safetensors --out t.dts.safetensors")
    command = f"{sys.executable} -m dts_mini inspect {files.folder / 't.dts.safetensors'} {closed}"
    result = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert bool(result.stdout) == closed.startswith("2")


def test_a_name_that_the_output_has_no_letters_for_is_written_with_others(run, files, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    line = ["compress", "--base", "base.safetensors", "--expert", "a.safetensors", "--out", "日本.dts.safetensors"]
    assert cli.main(line) == 0
    assert written.getvalue().startswith(rb"\u65e5\u672c.dts.safetensors: ")
    assert (files.folder / "日本.dts.safetensors").exists()


EMPTY = {"compress": ("base", "expert", "out"), "rebuild": ("base", "delta", "out"), "import-lora": ("base", "out")}


@pytest.mark.parametrize(("command", "name"), [(command, name) for command in EMPTY for name in EMPTY[command]])
def test_an_empty_path_is_not_the_current_folder(run, capsys, command, name):
    paths = [f"--{other}={'' if other == name else other}" for other in EMPTY[command]]
    with pytest.raises(SystemExit):
        cli.main([command, *paths, *(["folder"] if command == "import-lora" else [])])
    assert capsys.readouterr().err.startswith(f"dts-mini {command}: argument --{name}: is empty: give a path; usage")


def test_a_value_that_begins_with_a_dash_is_asked_for_behind_an_equals_sign(run, capsys, files):
    with pytest.raises(SystemExit):
        run("compress --base base.safetensors --expert -a.safetensors --out o")
    assert "(one that begins with a dash is given as --expert=VALUE); usage" in capsys.readouterr().err
    shutil.copy(files.folder / "a.safetensors", files.folder / "-a.safetensors")
    assert run("compress --base base.safetensors --expert=-a.safetensors --out=-o")[0] == 0
    assert (files.folder / "-o").exists()


@pytest.mark.parametrize("total", ["0", "-5", "nan", "inf"])
def test_what_all_right_is_worth_is_more_than_nothing(refused, total):
    assert "give a number of points above zero" in refused(f"grade . --out graded --total={total}")


@pytest.mark.parametrize("slow", ["streaming.checkpoint.Checkpoint", "core.file.write_pieces"])
@pytest.mark.parametrize("line", [INPUTS[name][1] for name in ("compress base", "rebuild base", "merge base")])
def test_reading_and_writing_count_as_work(run, monkeypatch, line, slow):
    run("compress --base base.safetensors --expert a.safetensors --out t.dts.safetensors")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(cli, "QUIET", 0.05)
    real = pkgutil.resolve_name(f"dts_mini.{slow}")
    monkeypatch.setattr(f"dts_mini.{slow}", lambda *args, **named: (time.sleep(0.2), real(*args, **named))[1])
    code, _, err = run(line)
    assert code == 0
    assert re.search(rf"\r\x1b\[K{line.split()[0]}( \d+/\d+)? \d+ s", err)


def test_work_of_over_two_seconds_says_on_a_terminal_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(cli, "QUIET", 0.01)
    with cli._Progress("compress", 3) as told:
        told("a.weight")
        told("b.\x1b[31mweight")
        time.sleep(0.5)
    shown = capsys.readouterr().err
    assert re.search(r"compress 2/3 \d+ s b\.\[31mweight", shown)
    assert shown.endswith("\r\033[K")
    with cli._Progress("compress", 3):
        pass
    assert capsys.readouterr().err == ""
