"""Names on the Hub wherever a path is taken: from the cache, offline, with a revision; a path of that name wins."""

import json
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import minihub
import pytest
import safetensors.torch
import torch

from dts_mini import FileError, compress, load
from dts_mini.cli import main
from dts_mini.serving.lora import import_lora
from dts_mini.streaming.checkpoint import open_checkpoint
from dts_mini.streaming.remote import located, named

huggingface_hub = pytest.importorskip("huggingface_hub")

from huggingface_hub import constants  # noqa: E402

OTHER = "beef" * 10


@pytest.fixture
def states() -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {name: {"w": torch.randn(12, 8, generator=generator)} for name in ("base", "expert", "older")}


@pytest.fixture
def hub(states, tmp_path, monkeypatch) -> Path:
    """A cache with a base (two revisions), an expert and their delta; offline, in an empty folder."""
    file = {name: safetensors.torch.save(state) for name, state in states.items()}
    delta = compress(states["base"], states["expert"]).to_bytes()
    repos = {
        "some/base": {"model.safetensors": file["base"], "config.json": b"{}", "onnx/model.safetensors": file["older"]},
        "some/expert.v1": {"model.safetensors": file["expert"]},
        "some/delta": {"task.dts.safetensors": delta},
    }
    cache = minihub.write(tmp_path / "cache", repos)
    folder = minihub.folder_of(cache, "some/base")
    (folder / "refs" / "old").write_text(OTHER)
    (folder / "snapshots" / OTHER).mkdir()
    (folder / "snapshots" / OTHER / "model.safetensors").write_bytes(file["older"])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return cache


def run(line: str, capsys) -> tuple[int, str, str]:
    code = main(line.split())
    return code, *capsys.readouterr()


def test_a_name_with_and_without_a_revision_is_opened_from_the_cache(hub, states):
    assert torch.equal(open_checkpoint("some/base")["w"], states["base"]["w"])
    assert torch.equal(open_checkpoint("some/base@main")["w"], states["base"]["w"])
    assert torch.equal(open_checkpoint("some/base@old")["w"], states["older"]["w"])
    assert torch.equal(open_checkpoint(f"some/base@{OTHER}")["w"], states["older"]["w"])
    assert (located("some/base") / "config.json").exists(), "what lies beside the weights comes along"


def test_a_path_of_that_name_wins(hub, states):
    Path("some").mkdir()
    safetensors.torch.save_file(states["older"], "some/base")
    Path("some/expert.v1").mkdir()
    safetensors.torch.save_file(states["older"], "some/expert.v1/model.safetensors")
    assert located("some/base") == Path("some/base")
    assert torch.equal(open_checkpoint("some/expert.v1")["w"], states["older"]["w"])


@pytest.mark.parametrize(
    "path", ["a", "a/b/c", "/a/b", "./a", "../a", "~/a", "a/b.safetensors", "a/b.pt", "a/", "a/b@", "@c"]
)
def test_what_is_no_name_is_a_path(path):
    assert named(path) is None
    assert located(path) == Path(path)


def test_every_command_takes_names(hub, states, capsys):
    assert run("compress --base some/base --expert some/expert.v1 --out a.dts.safetensors", capsys)[::2] == (0, "")
    assert load("a.dts.safetensors") == compress(states["base"], states["expert"])
    assert run("inspect some/delta", capsys)[0] == 0
    assert run("rebuild --base some/base --delta some/delta@main --out again.safetensors", capsys)[::2] == (0, "")
    assert run("merge --method average --experts some/expert.v1 some/base@old --out m.safetensors", capsys)[0] == 0
    merged = safetensors.torch.load_file("m.safetensors")["w"]
    assert torch.allclose(merged, (states["expert"]["w"] + states["older"]["w"]) / 2)


def test_an_adapter_in_a_pickle_is_called_one_though_weights_are_fetched_as_safetensors(hub, tmp_path, monkeypatch):
    """What is fetched is as little as can be, but enough to say what is wrong."""
    held = {"adapter_config.json": json.dumps({"peft_type": "LORA", "target_modules": ["q"]}), "adapter_model.bin": "x"}

    def download(repo, *, allow_patterns, **_) -> str:
        for name, text in held.items():
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / "fetched").mkdir(exist_ok=True)
                (tmp_path / "fetched" / name).write_text(text)
        return str(tmp_path / "fetched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(FileError, match=r"adapter_model\.bin: is a pickle; load the adapter with peft"):
        import_lora(located("some/adapter"), {"q.weight": torch.ones(2, 2)}, torch.nn.Linear(2, 2))


def test_what_is_neither_path_nor_name_is_refused_in_one_line_that_says_both(hub, capsys):
    for line, complaint in (
        ("inspect some/none", "some/none: there is no such path here; as a name on the Hub, some/none: the Hub cannot"),
        ("rebuild --base some/base@new --delta some/delta --out x.safetensors", "some/base@new: there is no such path"),
        ("inspect some/base", "some/base: holds no *.dts.safetensors"),
    ):
        code, out, err = run(line, capsys)
        assert (code, out) == (1, "")
        assert complaint in err
        assert err.count("\n") == 1


def test_without_the_library_a_path_needs_none_and_a_name_says_which_extra(hub, states, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    safetensors.torch.save_file(states["base"], "here.safetensors")
    assert list(open_checkpoint("here.safetensors")) == ["w"]
    with pytest.raises(ImportError, match=r"needs huggingface_hub: pip install 'dts_mini\[hub\]'"):
        open_checkpoint("some/base")


def test_what_is_not_in_the_cache_is_fetched_once_where_there_is_a_network(states, tmp_path):
    files = {"model.safetensors": safetensors.torch.save(states["base"]), "config.json": json.dumps({}).encode()}
    code = "import sys; from dts_mini.streaming.checkpoint import open_checkpoint; print(*open_checkpoint(sys.argv[1]))"
    with minihub.serve({"some/base": files}) as server:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        there = plain | {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        for offline in ({}, {"HF_HUB_OFFLINE": "1"}):
            asked = len(server.asked)
            found = subprocess.run(
                [sys.executable, "-c", code, "some/base"], env=there | offline, cwd=Path(__file__).parents[2],
                capture_output=True, text=True,
            )  # fmt: skip
            assert found.stdout == "w\n", found.stderr
            assert bool(len(server.asked) - asked) == (not offline)


def test_a_repository_of_another_format_is_refused_by_name(hub):
    (minihub.folder_of(hub, "some/base") / "snapshots" / minihub.COMMIT / "model.safetensors").unlink()
    with pytest.raises(FileError, match=r"some.*holds no safetensors"):
        open_checkpoint("some/base")
