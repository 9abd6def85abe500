"""Files: exact, recognisably whole, written at once or not at all."""

import errno
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from dts_mini import FileError, TaskDelta, compress, load
from dts_mini.core import container
from dts_mini.core.dts import Settings
from dts_mini.core.file import check_writable, load_tensors, read_bytes, save_tensors, write_bytes

ROOT = Path(__file__).resolve().parents[2]


def same(x, y) -> bool:
    """Whether two values are the same, tensors in dtype, shape and every element."""
    if isinstance(x, Tensor):
        return isinstance(y, Tensor) and x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)
    if isinstance(x, dict):
        return list(x) == list(y) and all(same(x[key], y[key]) for key in x)
    if is_dataclass(x):
        return type(x) is type(y) and all(same(getattr(x, f.name), getattr(y, f.name)) for f in fields(x))
    return x == y


@pytest.fixture
def delta(base, expert) -> TaskDelta:
    """A delta with a part of every kind, exact zeros as a list and as a mask among them."""
    base = {**base, "ids": torch.arange(3), "half": torch.zeros(5, dtype=torch.float16), "same": torch.ones(2)}
    base["list"], base["mask"] = torch.zeros(200), torch.zeros(200)
    expert = {**expert, "ids": torch.arange(1, 4), "half": torch.arange(5.0).half(), "same": torch.ones(2)}
    expert["list"], expert["mask"] = torch.arange(200.0) - 3, (torch.arange(200) % 2).float()
    base["tied"], expert["tied"] = base["embedding"], expert["embedding"]
    return compress(base, expert)


@pytest.fixture
def data(delta) -> bytes:
    return delta.to_bytes()


def refused(data: bytes) -> str:
    """The message of the FileError that these bytes raise, on one line and with the file's name."""
    with pytest.raises(FileError) as raised:
        TaskDelta.from_bytes(data, "svhn.dts.safetensors")
    message = str(raised.value)
    assert message.startswith("svhn.dts.safetensors: ")
    assert "\n" not in message
    return message


# --- whole ---


@pytest.mark.parametrize("settings", [{}, {"groups": 2}, {"groups": 8, "per": "vector", "scale": "mean"}])
def test_loading_gives_back_exactly_what_was_saved(tmp_path, tower, delta, settings):
    deltas = [delta, compress(*tower, **settings)]
    for i, one in enumerate(deltas):
        read = load(one.save(tmp_path / f"{i}.dts.safetensors"))
        assert same(read, one)


def test_the_comparison_of_these_tests_sees_a_single_other_bit(delta):
    other = TaskDelta.from_bytes(delta.to_bytes())
    assert same(delta, other)
    other.parts["conv.weight"].coded.codes[0] ^= 1
    assert not same(delta, other)


def test_the_same_delta_gives_the_same_bytes_also_after_loading(base, expert, delta, data):
    assert delta.to_bytes() == data
    assert TaskDelta.from_bytes(data).to_bytes() == data
    assert compress(base, expert).to_bytes() == compress(base, expert).to_bytes()


def test_a_file_is_a_safetensors_file_of_few_tensors_with_packed_codes(tmp_path, tower):
    delta = compress(*tower)
    tensors = load_tensors(delta.save(tmp_path / "t.dts.safetensors"))
    assert len(tensors) <= 8
    codes = sum(c.elements for part in delta.parts.values() for c in vars(part).values() if hasattr(c, "elements"))
    assert tensors["codes"].nbytes <= codes / 4 + len(delta.parts) * 2, "2 bits a code, a part's last byte filled up"


def test_the_manifest_records_version_method_settings_layout_fingerprints_ranks_and_counts(tmp_path, tower):
    delta = compress(*tower, keep_ratio=0.3, groups=8, scale="mean", per="vector")
    path = delta.save(tmp_path / "t.dts.safetensors")
    with safe_open(path, "pt") as file:
        manifest = json.loads(file.metadata()["dts"])
    assert manifest["format"] == container.VERSION
    assert manifest["method"] == "dts"
    assert Settings(**manifest["settings"]) == Settings(0.3, 8, "mean", "vector")
    assert manifest["attention"] == "fused"
    assert (manifest["base"], manifest["expert"]) == (delta.base, delta.expert)
    assert manifest["tensors"] == len(delta.parts)
    assert manifest["ranks"] == [5, 38] + [57] * 16  # of 17 x 192, 192 x 128, and 16 matrices with a side of 192
    assert manifest["storage"]["file"] == path.stat().st_size
    assert len(manifest["sha256"]) == 64


# --- not whole ---


def test_a_file_with_any_single_bit_flipped_is_refused(data):
    for i in range(len(data)):
        for bit in range(8) if i < 8 else [i * 5 % 8]:
            refused(data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :])


def test_a_file_truncated_anywhere_is_refused(data):
    for length in [*range(0, len(data), 7), len(data) - 1]:
        refused(data[:length])
    assert "truncated" in refused(data[: len(data) // 2])
    assert "truncated" in refused(data[:-1])


def test_a_file_lengthened_at_the_end_or_within_is_refused(data):
    for tail in (b"\0", b"\n", data[-8:], data, bytes(4096)):
        refused(data + tail)
    for i in range(0, len(data), 11):
        refused(data[:i] + b"\0" + data[i:])


def test_a_file_with_stretches_exchanged_or_zeroed_is_refused(data):
    half = len(data) // 2
    refused(data[half:] + data[:half])
    for i in range(8, len(data) - 16, 101):
        if data[i : i + 8] != data[i + 8 : i + 16]:
            refused(data[:i] + data[i + 8 : i + 16] + data[i : i + 8] + data[i + 16 :])
        if any(data[i : i + 16]):
            refused(data[:i] + bytes(16) + data[i + 16 :])


def test_an_unknown_format_version_is_refused_and_named(delta, monkeypatch):
    monkeypatch.setattr(container, "VERSION", 3)
    newer = delta.to_bytes()
    monkeypatch.undo()
    assert "format version 3, this dts_mini reads 2" in refused(newer)


def test_what_is_no_delta_is_refused_with_a_word_on_what_it_is(base):
    plain = {name: tensor.contiguous() for name, tensor in base.items()}
    assert "plain safetensors file" in refused(safetensors.torch.save(plain))
    assert "plain safetensors file" in refused(safetensors.torch.save(plain, {"format": "pt"}))
    assert "plain safetensors file" in refused(safetensors.torch.save(plain, {"dts": "[]"}))
    assert "cannot be read" in refused(safetensors.torch.save(plain, {"dts": "{"}))
    for nothing in (b"", b"\0" * 7, b"\0" * 64, b"text, not tensors"):
        assert "no safetensors file" in refused(nothing)
    assert "is a pickle, not a task delta" in refused(pickle.dumps({"w": 1}))


def test_a_pickle_is_refused_and_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"w": Trap()}, tmp_path / "model.pt")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Trap()))
    for name in ("model.pt", "model.pkl"):
        with pytest.raises(FileError, match=name):
            load(tmp_path / name)
        with pytest.raises(FileError, match=name):
            load_tensors(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


# --- on disk ---


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    for read in (load, load_tensors, read_bytes):
        with pytest.raises(FileError, match=r"none\.safetensors"):
            read(tmp_path / "none.safetensors")
        with pytest.raises(FileError, match=tmp_path.name):
            read(tmp_path)


def test_an_existing_path_is_refused_unless_overwritten(tmp_path, delta, data):
    path = tmp_path / "t.dts.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(FileError, match=r"t\.dts\.safetensors: exists already"):
        delta.save(path)
    assert path.read_bytes() == b"old"
    assert delta.save(path, overwrite=True) == path
    assert path.read_bytes() == data


def test_paths_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"the folder .*none does not exist"):
        write_bytes(b"", tmp_path / "none" / "t")
    for overwrite in (False, True):
        with pytest.raises(FileError, match="is a folder"):
            check_writable(tmp_path, overwrite=overwrite)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FileError, match="not writable"):
            write_bytes(b"", tmp_path / "t")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failing_write_leaves_the_old_file_and_no_temporary_neighbour(tmp_path, monkeypatch, call, overwrite):
    path = tmp_path / "t"
    if overwrite:
        path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(FileError, match="No space left on device"):
        write_bytes(b"new", path, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == (["t"] if overwrite else [])
    assert not overwrite or path.read_bytes() == b"old"


def test_an_interrupted_write_leaves_nothing_either(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(b"new", tmp_path / "t")
    assert not any(tmp_path.iterdir())


def test_until_it_is_complete_a_file_is_not_at_its_path(tmp_path, monkeypatch):
    seen, path = [], tmp_path / "t"
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(path.exists()))
    write_bytes(b"new", path)
    assert seen == [False]
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


KILLED = """
import os, signal, sys
from dts_mini.core.file import write_bytes
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_bytes(b"half", sys.argv[1], overwrite=True)
"""


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_kill_leaves_beside_a_file_is_swept_by_the_next_run_and_nothing_else_is(tmp_path, overwrite):
    path, others = (
        tmp_path / "t",
        {".t.backup", ".t.backup00.dts-part.bak", ".u.abcdefgh.dts-part", "t.abcdefgh.dts-part"},
    )
    for name in others:
        (tmp_path / name).write_bytes(b"of somebody else")
    if overwrite:
        path.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == len(others) + 1 + overwrite
    write_bytes(b"new", path, overwrite=overwrite)
    assert {p.name for p in tmp_path.iterdir()} == {"t", *others}


def test_what_another_run_is_writing_is_not_swept(tmp_path, monkeypatch):
    path, real = tmp_path / "t", os.fsync

    def meanwhile(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        write_bytes(b"another's", path)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_bytes(b"ours", path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["t"] and path.read_bytes() == b"ours"


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    written = write_bytes(b"", tmp_path / "written")
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_state_dicts_are_saved_and_loaded_exactly_tied_and_strided_ones_too(tmp_path, base):
    state = {**base, "tied": base["embedding"], "strided": base["embedding"].T, "ids": torch.arange(3)}
    state["half"] = torch.randn(3).bfloat16()
    found = load_tensors(save_tensors(state, tmp_path / "m.safetensors"))
    assert same(dict(sorted(found.items())), dict(sorted(state.items())))


def test_a_truncated_state_dict_is_refused_by_name(tmp_path, base):
    path = save_tensors(base, tmp_path / "m.safetensors")
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"m\.safetensors: is no readable safetensors file"):
            load_tensors(path)


def test_a_digest_that_stands_twice_is_no_digest():
    """One may choose the second place so that the file with both blank has that digest: it would guard nothing."""
    data = compress({"w": torch.zeros(4, 4)}, {"w": torch.ones(4, 4)}).to_bytes()
    digest = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["dts"])["sha256"]
    expert = compress({"w": torch.zeros(4, 4)}, {"w": torch.ones(4, 4)}).expert
    blank = data.replace(digest.encode(), b"0" * 64).replace(expert.encode() * 1, b"0" * 32)
    twice = blank.replace(b"0" * 32, b"0" * 64, 1) if blank.count(b"0" * 64) < 2 else blank
    size = int.from_bytes(twice[:8], "little") + len(twice) - len(blank)
    twice = size.to_bytes(8, "little") + twice[8:]
    forged = twice.replace(b"0" * 64, hashlib.sha256(twice).hexdigest().encode())
    assert forged.count(hashlib.sha256(twice).hexdigest().encode()) == 2
    with pytest.raises(FileError, match="has no digest"):
        TaskDelta.from_bytes(forged)
