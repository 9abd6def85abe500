"""The command line: its commands and flags are fixed, its refusals short and clean."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load, load_file, save_file

import dts_mini
from dts_mini import average, compress, rebuild
from dts_mini.cli import main
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


# --- what they refuse ---


SPOILED = {
    "missing key": (lambda s: s.pop("embedding"), "lacks 'embedding'"),
    "extra key": (lambda s: s.update(extra=torch.ones(1)), "has beyond it 'extra'"),
    "other shape": (lambda s: s.update(embedding=torch.ones(3, 3)), "tensor 'embedding' has shape (3, 3)"),
    "NaN": (lambda s: s["embedding"].fill_(float("nan")), "tensor 'embedding': 204 of 204 values are NaN"),
    "infinity": (lambda s: s["norm.weight"][:1].fill_(float("inf")), "tensor 'norm.weight': 1 of 12"),
    "integer model": (lambda s: s.update({n: t.int() for n, t in s.items()}), "holds only integers"),
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


@pytest.mark.parametrize("again", ["a.safetensors", "sub/a.safetensors"])
def test_two_experts_under_one_name_are_refused_by_their_paths(refused, again):
    complaint = refused(f"merge --method average --experts a.safetensors b.safetensors {again} --out m.safetensors")
    assert f"two experts go by one name: a.safetensors and {again};" in complaint


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
def test_a_command_line_that_is_none_prints_the_usage_and_exits_with_2(run, capsys, files, line):
    with pytest.raises(SystemExit) as exit_:
        run(line)
    assert exit_.value.code == 2
    assert "usage: dts-mini" in capsys.readouterr().err
    assert not (files.folder / "o").exists()


# --- as a program ---


def test_python_m_dts_mini_runs_the_command_line_and_hands_on_its_exit_status(files):
    def program(*arguments):
        command = [sys.executable, "-m", "dts_mini", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    shown = program("--help")
    assert shown.returncode == 0
    for name in ("compress", "rebuild", "inspect", "merge", "evaluate"):
        assert name in shown.stdout
    failed = program("inspect", str(files.folder / "none.safetensors"))
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
