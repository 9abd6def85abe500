"""Checkpoints larger than the memory: compressed and rebuilt a tensor at a time, from disk, and after a kill."""

import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dts_mini import FileError, StateError, TaskDelta, compress, rebuild, storage
from dts_mini.core import container, dts
from dts_mini.core.delta import Rebuilt
from dts_mini.core.dts import LowRank
from dts_mini.core.file import save_tensors
from dts_mini.core.frame import OnDifference, difference
from dts_mini.core.parts import Tied, Unchanged
from dts_mini.core.state import digest, outline
from dts_mini.streaming import resume
from dts_mini.streaming.checkpoint import open_checkpoint, save_checkpoint
from dts_mini.streaming.resume import _Note, _read, resumable

ROOT = Path(__file__).resolve().parents[2]


class OnDisk(dict):
    """A state dict that hands out fresh tensors, as a checkpoint does, and counts reads and tensors that are alive."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__(state)
        self.outline = {name: tensor.to("meta") for name, tensor in state.items()}
        self.reads, self.alive, self.most = [], [], 0

    def __getitem__(self, name: str) -> Tensor:
        found = super().__getitem__(name).clone()
        self.reads.append(name)
        self.alive = [reference for reference in self.alive if reference() is not None]
        self.alive.append(weakref.ref(found.untyped_storage()))
        self.most = max(self.most, len(self.alive))
        return found


def by_row(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Each tensor in a shard of its own."""
    return {f"model-{i}.safetensors": [name] for i, name in enumerate(state)}


def test_from_shards_as_from_memory_the_same_bytes(base, expert, tmp_path):
    for name, state in (("base", base), ("expert", expert)):
        save_checkpoint(state, tmp_path / name, by_row(state))
    found = compress(open_checkpoint(tmp_path / "base"), open_checkpoint(tmp_path / "expert"))
    assert found.to_bytes() == compress(base, expert).to_bytes()


@pytest.mark.parametrize("settings", [{}, {"budget": "50%"}, {"method": "drc", "budget": "20%"}])
def test_compress_holds_one_tensor_of_a_state_at_a_time(base, expert, settings):
    base, expert = OnDisk(base), OnDisk(expert)
    compress(base, expert, **settings)
    for state in (base, expert):
        assert set(state.reads) == set(state)
        assert state.most == 1


def test_a_tensor_that_did_not_change_is_read_once_and_costs_nothing(base):
    expert = OnDisk({**base, "norm.weight": base["norm.weight"] + 1})
    delta = compress(OnDisk(base), expert)
    assert sorted(set(expert.reads)) == sorted(base)
    assert all(expert.reads.count(name) == 1 for name in base if name != "norm.weight")
    assert {name for name, part in delta.parts.items() if part != Unchanged()} == {"norm.weight"}


def test_an_embedding_of_50000_rows_that_did_not_change_is_never_decomposed(monkeypatch):
    monkeypatch.setattr(dts, "decompose", lambda *args: pytest.fail("decomposed"))
    base = {"embedding": torch.randn(50_000, 8), "norm": torch.ones(8)}
    delta = compress(base, {"embedding": base["embedding"].clone(), "norm": torch.zeros(8)})
    assert storage(delta).information < 50


def test_tensors_tied_in_a_file_are_known_by_their_values_and_cost_nothing(base, expert, tmp_path):
    for name, state in (("base", base), ("expert", expert)):
        save_tensors({**state, "head": state["embedding"]}, tmp_path / f"{name}.safetensors")
    states = [open_checkpoint(tmp_path / f"{name}.safetensors") for name in ("base", "expert")]
    delta, alone = compress(*states), compress(base, expert)
    assert delta.parts["head"] == Tied("embedding")
    assert storage(delta).information == storage(alone).information
    found = Rebuilt(states[0], delta)
    assert torch.equal(found["head"], rebuild(base, alone)["embedding"])


def test_equal_values_in_the_expert_alone_are_no_tie(base, expert):
    base, expert = {**base, "head": -base["embedding"]}, {**expert, "head": expert["embedding"].clone()}
    assert isinstance(compress(base, expert).parts["head"], LowRank)


@pytest.mark.parametrize("where", ["shape", "name", "NaN"])
def test_what_does_not_fit_is_refused_before_the_first_decomposition(base, expert, monkeypatch, where):
    monkeypatch.setattr(dts, "decompose", lambda *args: pytest.fail("decomposed"))
    last = sorted(expert)[-1]
    match where:
        case "shape":
            expert[last] = torch.ones(3, 3)
        case "name":
            expert["zz"] = expert.pop(last)
        case "NaN":
            expert[last] = expert[last] * float("nan")
    expert = OnDisk(expert)
    with pytest.raises(StateError, match=f"'{last}'"):
        compress(OnDisk(base), expert)
    assert where == "NaN" or expert.reads == [], "shapes and names are known without reading"


def test_the_difference_in_blocks_is_the_difference():
    generator = torch.Generator().manual_seed(0)
    expert, base = (torch.randn(7, 11, generator=generator) for _ in range(2))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        wide = torch.promote_types(dtype, torch.float32)
        for e, b in ((expert.to(dtype), base.half()), (expert.to(dtype).T, base.half().T), (expert[0, 0], base[0, 0])):
            for block in (1, 10, 77, 1000):
                found = difference(b, e, block)
                assert torch.equal(found, e.to(wide) - b.to(wide))


def test_rebuilt_is_what_rebuild_gives_a_tensor_at_a_time(base, expert, tmp_path):
    delta, disk = compress(base, expert), OnDisk(base)
    found, wanted = Rebuilt(disk, delta), rebuild(base, delta)
    disk.reads, disk.alive, disk.most = [], [], 0
    for name, tensor in outline(found).items():
        assert (tensor.shape, tensor.dtype) == (wanted[name].shape, wanted[name].dtype)
    save_tensors(found, tmp_path / "found.safetensors")
    assert sorted(disk.reads) == sorted(base)
    assert disk.most == 1
    save_tensors(wanted, tmp_path / "wanted.safetensors")
    assert (tmp_path / "found.safetensors").read_bytes() == (tmp_path / "wanted.safetensors").read_bytes()


def test_rebuilt_refuses_another_base_at_once(base, expert):
    with pytest.raises(StateError, match="not the one that the delta was made for"):
        Rebuilt(expert, compress(base, expert))


# --- resumed ---


@pytest.fixture
def all_kept(monkeypatch) -> None:
    """Results of small tensors are kept as well."""
    monkeypatch.setattr(resume, "LEAST", 0)


def stop_after(count: int):
    """A ``progress`` that stops everything when ``count`` tensors are done."""
    done = []

    def progress(name: str) -> None:
        done.append(name)
        if len(done) == count:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def counted(monkeypatch) -> list[tuple]:
    """A line for each piece of work on a tensor that was done."""
    done, do = [], OnDifference.__call__

    def counting(self, job):
        done.append((job.work.__qualname__, job.piece.key, job.arguments))
        return do(self, job)

    monkeypatch.setattr(OnDifference, "__call__", counting)
    return done


SETTINGS = {
    "dts": {},
    "dts within a budget": {"budget": "50%", "per": "vector"},
    "drc": {"method": "drc", "budget": "20%"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_was_finished_is_not_done_again(base, expert, tmp_path, counted, all_kept, settings):
    wanted = compress(base, expert, **settings).to_bytes()
    whole = list(counted)
    counted.clear()
    with pytest.raises(KeyboardInterrupt):
        compress(base, expert, mapper=resumable(tmp_path / "parts"), progress=stop_after(4), **settings)
    assert 0 < len(counted) < len(whole)
    assert compress(base, expert, mapper=resumable(tmp_path / "parts"), **settings).to_bytes() == wanted
    assert sorted(map(repr, counted)) == sorted(set(map(repr, whole))), "each once"


@pytest.mark.parametrize("other", ["settings", "expert", "base", "damage", "swapped", "foreign", "forged"])
def test_what_was_finished_of_other_work_or_is_damaged_is_done_again(base, expert, tmp_path, counted, all_kept, other):
    compress(base, expert, mapper=resumable(tmp_path))
    first = len(counted)
    counted.clear()
    settings = {}
    match other:
        case "settings":
            settings = {"groups": 8}
        case "expert":
            expert = {name: tensor + 1 for name, tensor in expert.items()}
        case "base":
            base = {name: tensor - 1 for name, tensor in base.items()}
        case "damage":
            for path in tmp_path.iterdir():
                path.write_bytes(path.read_bytes()[:-1])
        case "swapped":
            paths = sorted(tmp_path.iterdir())
            held = [path.read_bytes() for path in paths]
            for path, data in zip(paths, held[1:] + held[:1], strict=True):
                path.write_bytes(data)
        case "foreign":
            paths = sorted(tmp_path.iterdir())
            compress(base, {name: tensor + 1 for name, tensor in expert.items()}, mapper=resumable(tmp_path / "other"))
            counted.clear()
            for path, alien in zip(paths, sorted((tmp_path / "other").iterdir()), strict=True):
                path.write_bytes(alien.read_bytes())
        case "forged":
            for path in tmp_path.iterdir():
                note, _, tensors = container.decode(path.read_bytes(), "piece", _Note)
                for wrong in (["dts_mini.core.parts", "Kept"], ["os", "system", "true"], {"number": "0"}, [], [[1]]):
                    made = container.encode({"job": note["job"], "storage": {}}, [wrong], tensors)
                    path.write_bytes(made)
                    with pytest.raises(FileError, match=str(path)):
                        _read(path, note["job"])
    found = compress(base, expert, mapper=resumable(tmp_path), **settings)
    assert len(counted) == first
    assert found.to_bytes() == compress(base, expert, **settings).to_bytes()


def test_results_of_tensors_so_small_that_a_file_takes_longer_are_not_kept(tmp_path):
    base = {"large": torch.zeros(80, 64), "small": torch.zeros(9, 9), "bias": torch.zeros(64)}
    expert = {name: torch.randn(x.shape, generator=torch.Generator().manual_seed(len(x))) for name, x in base.items()}
    assert compress(base, expert, mapper=resumable(tmp_path)) == compress(base, expert)
    assert len(list(tmp_path.iterdir())) == 1


KILLED = """
import os, signal, sys
from dts_mini.cli import main
from dts_mini.core import container, dts
from dts_mini.streaming import resume
resume.LEAST = 0
real, done = dts.part, []
def part(*arguments):
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    return real(*arguments)
dts.part, part.__module__ = part, real.__module__
main(sys.argv[1:])
"""


def test_a_killed_command_goes_on_and_leaves_nothing_behind(files, counted, capsys, all_kept):
    from dts_mini.cli import main

    out = files.folder / "a.dts.safetensors"
    line = ["compress", "--base", str(files.base), "--expert", str(files.a), "--out", str(out)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *line], cwd=ROOT, env=os.environ | {"PYTHONPATH": "."})
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(list(out.with_name(f"{out.name}.parts").glob("*.safetensors"))) == 3
    assert main(line) == 0
    goes_on = len(counted)
    wanted = compress(open_checkpoint(files.base), open_checkpoint(files.a))
    assert len(counted) - goes_on == goes_on + 3
    assert out.read_bytes() == wanted.to_bytes()
    assert not out.with_name(f"{out.name}.parts").exists()


def test_what_others_put_into_the_folder_of_finished_pieces_stays(files, capsys, all_kept):
    from dts_mini.cli import main

    out = files.folder / "a.dts.safetensors"
    folder = out.with_name(f"{out.name}.parts")
    line = ["compress", "--base", str(files.base), "--expert", str(files.a), "--out", str(out), "--overwrite"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *line], cwd=ROOT, env=os.environ | {"PYTHONPATH": "."})
    assert killed.returncode == -signal.SIGKILL
    names = ["notes.txt", "model.safetensors", f"{'0' * 31}.safetensors"]
    for name in names:
        (folder / name).write_text("mine")
    (folder / f".{'0' * 32}.safetensors.abcdefgh.dts-part").write_text("cut short")
    assert main(line) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_the_command_line_takes_shards_and_rebuilds_into_a_folder_laid_out_like_the_base(
    base, expert, tmp_path, capsys
):
    from dts_mini.cli import main

    for name, state in (("base", base), ("expert", expert)):
        save_checkpoint(state, tmp_path / name, by_row(state), metadata={"format": "pt"})
    at = lambda name: str(tmp_path / name)
    assert main(["compress", "--base", at("base"), "--expert", at("expert"), "--out", at("d.dts.safetensors")]) == 0
    line = ["rebuild", "--base", at("base"), "--delta", at("d.dts.safetensors"), "--out"]
    assert main([*line, at("again")]) == 0
    assert main([*line, at("again.safetensors")]) == 0
    wanted = rebuild(base, TaskDelta.from_bytes((tmp_path / "d.dts.safetensors").read_bytes()))
    for name in ("again", "again.safetensors"):
        found = open_checkpoint(at(name))
        assert {n: digest(found[n]) for n in found} == {n: digest(t) for n, t in wanted.items()}
        assert found.metadata == {"format": "pt"}
    assert {p.name for p in (tmp_path / "again").iterdir()} == {p.name for p in (tmp_path / "base").iterdir()}
    assert main([*line, at("again")]) == 1
    assert "is a folder that exists already" in capsys.readouterr().err
