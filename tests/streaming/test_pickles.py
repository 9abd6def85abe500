"""Old checkpoints: what they hold is read, what they would run is not."""

import argparse
import io
import os
import pickle
import struct
import tempfile
import zipfile
from collections import OrderedDict, defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dts_mini import FileError
from dts_mini.core.file import load_tensors
from dts_mini.core.state import as_bytes
from dts_mini.streaming.checkpoint import open_checkpoint
from dts_mini.streaming.pickles import _check, load_pickle
from dts_mini.suites.clip.keys import visual


class ImageEncoder(nn.Module):
    """As the first checkpoints held it: a module around open_clip's model."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.cache = {"train": None}

    def __setstate__(self, state):
        raise AssertionError("code of the pickled class ran")


ImageEncoder.__module__ = "src.modeling"


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    import sys
    import types

    package, module = types.ModuleType("src"), types.ModuleType("src.modeling")
    module.ImageEncoder = ImageEncoder
    monkeypatch.setitem(sys.modules, "src", package)
    monkeypatch.setitem(sys.modules, "src.modeling", module)
    model = nn.ModuleDict({"visual": nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), "text": nn.Embedding(5, 4)})
    torch.save(ImageEncoder(model), tmp_path / "finetuned.pt")
    for name in ("src", "src.modeling"):
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "finetuned.pt", model


def test_a_pickled_module_gives_its_tensors_and_runs_nothing(encoder):
    path, model = encoder
    found, expected = load_pickle(path), {f"model.{n}": t for n, t in model.state_dict().items()}
    assert expected.keys() <= found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    tower = visual(found)
    assert tower.keys() == model["visual"].state_dict().keys()


def test_a_saved_state_dict_is_read_as_torch_reads_it(tmp_path):
    base = torch.randn(4, 6)
    state = {"visual.a": base, "visual.b": base.T[1:3], "n": torch.arange(3), "h": torch.randn(2).half()}
    torch.save(state, tmp_path / "s.pt")
    found = load_pickle(tmp_path / "s.pt")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in state.items())


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("within", ["state", "module"])
def test_a_file_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path, within):
    evil = Evil()
    evil.path = tmp_path / "run"
    if within == "module":
        module = nn.Linear(2, 2)
        module.extra = evil
        torch.save(module, tmp_path / "evil.pt")
    else:
        torch.save({"a": torch.zeros(2), "b": evil}, tmp_path / "evil.pt")
    with pytest.raises(FileError, match=r"evil.pt: asks for .*mkdir, which is no part of a checkpoint"):
        load_pickle(tmp_path / "evil.pt")
    assert not evil.path.exists()


@pytest.mark.parametrize(
    "asked", ["builtins eval", "builtins getattr", "torch hub", "torch._utils _import_dotted_name"]
)
def test_names_beyond_tensors_are_refused(tmp_path, asked):
    module, name = asked.split()
    program = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"."
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", program)
    with pytest.raises(FileError, match=f"asks for {module}.{name}"):
        load_pickle(tmp_path / "x.pt")


def test_a_plain_pickle_is_refused_with_the_reason(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FileError, match=r"is no checkpoint of PyTorch 1.6 or newer"):
        load_pickle(tmp_path / "x.pt")


def test_a_truncated_file_is_an_error(encoder):
    path, _ = encoder
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FileError, match="copy it again"):
        load_pickle(path)


def test_a_missing_file_and_one_without_tensors_are_errors(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        load_pickle(tmp_path / "x.pt")
    torch.save({"epoch": 3}, tmp_path / "y.pt")
    with pytest.raises(FileError, match="holds no tensors"):
        load_pickle(tmp_path / "y.pt")


def test_a_checkpoint_without_an_image_tower_is_an_error():
    with pytest.raises(FileError, match=r"visual\.\*"):
        visual({"text.weight": torch.zeros(2)})


# --- every dtype, and tensors that are no plain ones ---


def savable() -> list[torch.dtype]:
    """Every dtype of which torch.save writes a tensor."""
    found = []
    for dtype in {value for value in vars(torch).values() if isinstance(value, torch.dtype)}:
        with suppress(Exception):
            torch.save(torch.empty(1, dtype=dtype), io.BytesIO())
            found.append(dtype)
    return sorted(found, key=str)


def test_most_dtypes_can_be_saved():
    assert len(savable()) > 20 and torch.int8 in savable() and torch.float8_e5m2 in savable()


@pytest.mark.parametrize("dtype", savable(), ids=str)
@settings(max_examples=10, deadline=None)
@given(
    size=st.lists(st.integers(0, 4), max_size=3),
    start=st.integers(0, 3),
    turned=st.booleans(),
    dressed=st.sampled_from(["plain", "parameter", "attribute"]),
    seed=st.integers(0, 99),
)
def test_tensors_of_every_dtype_are_read_as_torch_reads_them(dtype, size, start, turned, dressed, seed):
    """Whole, or as a turned view somewhere in a storage; as a parameter; with attributes."""
    count = int(np.prod(size)) + start
    raw = torch.randint(0, 2, (max(count, 1) * dtype.itemsize,), generator=torch.manual_seed(seed), dtype=torch.uint8)
    tensor = raw.view(dtype)[start:count].view(size)
    tensor = tensor.permute(list(reversed(range(len(size))))) if turned else tensor
    if dressed == "parameter":
        tensor = nn.Parameter(tensor, requires_grad=dtype.is_floating_point or dtype.is_complex)
    if dressed == "attribute":
        tensor.note = "of a library"
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"w": tensor, "other": torch.ones(2)}, f"{folder}/x.pt")
        found, expected = load_pickle(f"{folder}/x.pt"), torch.load(f"{folder}/x.pt", weights_only=True)
    assert found.keys() == expected.keys()
    assert found["w"].dtype == expected["w"].dtype and found["w"].shape == expected["w"].shape
    assert np.array_equal(as_bytes(found["w"]), as_bytes(expected["w"]))
    assert not found["w"].requires_grad


def test_views_that_are_conjugated_or_negated_keep_their_signs(tmp_path):
    z = torch.complex(torch.arange(1.0, 4), torch.arange(4.0, 7))
    state = {"conj": z.conj(), "neg": z.conj().imag, "both": z.conj().imag.view(1, 3), "plain": z.imag}
    assert state["neg"].is_neg() and state["conj"].is_conj()
    for name, tensor in state.items():
        torch.save({name: tensor}, tmp_path / "x.pt")
        assert torch.equal(load_pickle(tmp_path / "x.pt")[name], tensor)


def odd() -> dict[str, tuple[object, str]]:
    """What torch.save writes among weights that is no plain tensor, and what to do."""
    return {
        "sparse": (torch.eye(3).to_sparse(), r"to_dense\(\)"),
        "compressed": (torch.eye(3).to_sparse_csr(), r"to_dense\(\)"),
        "quantised": (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantised"),
        "by channel": (
            torch.quantize_per_channel(torch.ones(3, 3), torch.ones(3), torch.zeros(3), 0, torch.quint8),
            "quantised",
        ),
        "nested": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        "meta": (torch.empty(2, device="meta"), "meta tensor"),
        "repeated": (torch.ones(3).expand(9, 3), r"repeats 3 values to 27; save its contiguous\(\)"),
        "not yet": (nn.LazyLinear(3).weight, "has no values yet"),
        "of numpy": (np.ones(3, np.float32), "array of numpy"),
        "listed": ([torch.ones(3)], "list of tensors without names"),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("what", odd())
def test_among_weights_what_is_no_plain_tensor_is_refused_by_name_with_the_way_out(tmp_path, what, protocol):
    held, why = odd()[what]
    torch.save({"fc": torch.ones(2), "layer.w": held}, tmp_path / "x.pt", pickle_protocol=protocol)
    with pytest.raises(FileError, match=rf"x\.pt, tensor 'layer\.w': .*{why}"):
        load_pickle(tmp_path / "x.pt")
    torch.save({"model": {"fc": torch.ones(2)}, "optimizer": {"w": held}}, tmp_path / "y.pt", pickle_protocol=protocol)
    assert list(load_pickle(tmp_path / "y.pt")) == ["fc"]


def test_a_program_is_called_one(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"x\.pt: is a program of torch\.jit .*state_dict\(\)"):
        load_pickle(tmp_path / "x.pt")


def test_buffers_that_a_module_does_not_save_are_not_read(tmp_path):
    module = nn.BatchNorm1d(2)
    module.register_buffer("cache", torch.ones(3), persistent=False)
    torch.save(nn.Sequential(module), tmp_path / "x.pt")
    assert load_pickle(tmp_path / "x.pt").keys() == nn.Sequential(module).state_dict().keys()


@pytest.mark.parametrize("state", [{"a.b": 1, "a": {"b": 2}}, {1: 1, "1": 2}])
def test_two_tensors_of_one_name_are_refused(tmp_path, state):
    made = lambda x: {n: made(v) for n, v in x.items()} if isinstance(x, dict) else torch.full((2,), float(x))
    torch.save(made(state), tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"two have this name"):
        load_pickle(tmp_path / "x.pt")


# --- what training scripts save ---


BESIDE = {
    "args": argparse.Namespace(lr=1e-3, out=Path("runs")),
    "best": np.float64(0.9),
    "curve": np.arange(3),
    "counts": defaultdict(list, {"train": [1]}),
    "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    "rng_state": torch.zeros(8, dtype=torch.uint8),
    "epoch": 3,
}


@pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict", "module", "net"])
def test_of_a_training_file_the_weights_are_read(tmp_path, name):
    weights = OrderedDict(w=torch.arange(6.0).view(2, 3))
    torch.save({name: weights} | BESIDE, tmp_path / "x.pt")
    found = load_pickle(tmp_path / "x.pt")
    assert list(found) == ["w"]
    assert torch.equal(found["w"], weights["w"])
    assert list(open_checkpoint(tmp_path / "x.pt")) == ["w"]


@pytest.mark.parametrize("average", ["state_dict_ema", "ema", "ema_state_dict", "swa_model", "average"])
def test_weights_beside_their_average_are_asked_about_and_named_by_their_key(tmp_path, average):
    torch.save({"state_dict": {"w": torch.zeros(2)}, average: {"w": torch.ones(2)}} | BESIDE, tmp_path / "x.pt")
    with pytest.raises(FileError, match=rf"'state_dict', '{average}'; say which"):
        load_pickle(tmp_path / "x.pt")
    assert load_pickle(tmp_path / "x.pt", key=average)["w"].tolist() == [1, 1]
    with pytest.raises(FileError, match="has no weights under 'other'; there are 'state_dict'"):
        load_pickle(tmp_path / "x.pt", key="other")


@pytest.mark.parametrize("name", ["w", "fc.weight"])
def test_weights_at_the_top_beside_their_average_are_asked_about(tmp_path, name):
    torch.save({name: torch.zeros(2), "model_ema": {name: torch.ones(2)}, "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"'model_ema', '' \(beside the others\); say which"):
        load_pickle(tmp_path / "x.pt")
    assert load_pickle(tmp_path / "x.pt", key="")[name].tolist() == [0, 0]
    assert load_pickle(tmp_path / "x.pt", key="model_ema")[name].tolist() == [1, 1]


def test_an_optimiser_beside_weights_at_the_top_is_no_weight(tmp_path):
    torch.save({"fc.weight": torch.ones(2, 2)} | BESIDE, tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"tensor 'curve': is an array of numpy"):
        load_pickle(tmp_path / "x.pt")
    torch.save({"fc.weight": torch.ones(2, 2)} | {n: x for n, x in BESIDE.items() if n != "curve"}, tmp_path / "x.pt")
    assert list(load_pickle(tmp_path / "x.pt")) == ["fc.weight", "rng_state"]


def test_numbers_beside_a_state_dict_are_no_second_set_of_weights(tmp_path):
    beside = {"class_weights": torch.ones(3), "mean": torch.zeros(3), "step": torch.tensor(5)}
    torch.save({"model": {"w": torch.ones(2)}} | beside, tmp_path / "x.pt")
    assert list(load_pickle(tmp_path / "x.pt")) == ["w"]


def test_views_of_one_storage_are_read_once_and_share_it(tmp_path):
    whole = torch.arange(12.0)
    state = {"a": whole[2:6].view(2, 2).T, "b": whole, "row": torch.arange(3.0).expand(1, 3)}
    torch.save(state, tmp_path / "x.pt")
    found = load_pickle(tmp_path / "x.pt")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert found["a"].untyped_storage().data_ptr() == found["b"].untyped_storage().data_ptr()


# --- what somebody made ---


def archive(path, program: bytes, storages: dict[str, bytes] | None = None, how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as file:
        file.writestr("x/data.pkl", program)
        for key, data in (storages or {}).items():
            file.writestr(f"x/data/{key}", data)


def tensor(size: tuple, stride: tuple, offset: int = 0, count: int = 2) -> bytes:
    """The pickle of {"w": a tensor of that size and stride} in a storage of ``count`` floats, written by hand."""
    number = lambda n: b"\x8a\x08" + struct.pack("<q", n)
    numbers = lambda values: b"(" + b"".join(map(number, values)) + b"t"
    text = lambda word: b"X" + struct.pack("<I", len(word)) + word.encode()
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(count) + b"tQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(size) + numbers(stride)
    return b"\x80\x02}" + text("w") + rebuilt + b"\x89}tRs."


def test_a_tensor_written_by_hand_is_read(tmp_path):
    archive(tmp_path / "x.pt", tensor((2,), (1,)), {"0": struct.pack("<ff", 1, 2)})
    assert load_pickle(tmp_path / "x.pt")["w"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("size", "stride", "offset", "count"),
    [
        ((10**12,), (0,), 0, 2),
        ((2,), (-1,), 1, 2),
        ((2,), (10**9,), 0, 2),
        ((3,), (1,), 0, 2),
        ((2,), (1,), 1, 2),
        ((2,), (1,), -1, 2),
        ((2,), (1,), 0, 10**12),
        ((2,), (1, 1), 0, 2),
        ((-2,), (1,), 0, 2),
        ((2**62, 2**62), (1, 1), 0, 2),
    ],
)
def test_sizes_strides_and_offsets_that_a_storage_has_not_are_refused(tmp_path, size, stride, offset, count):
    archive(tmp_path / "x.pt", tensor(size, stride, offset, count), {"0": bytes(8)})
    with pytest.raises(FileError, match=r"x\.pt(: |, tensor 'w': repeats )"):
        load_pickle(tmp_path / "x.pt")


def bombs() -> dict[str, bytes]:
    """Pickles of a few bytes that ask for gigabytes or for ever."""
    twice = b"}" + b"".join(b"q%c0}X\1\0\0\0ah%cs" % (i, i) + b"X\1\0\0\0bh%cs" % i for i in range(60))
    return {
        "a memo of 4 billion": b"\x80\x02}r" + struct.pack("<I", 2**32 - 9) + b".",
        "a text memo": b"\x80\x02}p4000000000\n.",
        "an array of a terabyte": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
        "a string of a terabyte": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
        "dicts that hold each other twice": b"\x80\x02" + twice + b".",
        "a dict in itself": b"\x80\x02}q\0X\1\0\0\0ah\0s.",
        "very deep": b"\x80\x02" + b"}X\1\0\0\0a" * 100_000 + b"}" + b"s" * 100_000 + b".",
        "no end": b"\x80\x02}",
        "nothing on the stack": b"\x80\x02.",
    }


@pytest.mark.parametrize("what", bombs())
def test_a_bomb_is_refused_in_a_moment(tmp_path, what):
    archive(tmp_path / "x.pt", bombs()[what])
    with pytest.raises(FileError, match=r"x\.pt: "):
        load_pickle(tmp_path / "x.pt")


def test_pickles_that_ask_for_memory_are_not_even_begun():
    for what in ("a memo of 4 billion", "a text memo", "an array of a terabyte"):
        with pytest.raises(ValueError, match=r"its pickle|bytes in a bytearray8"):
            _check(bombs()[what])


def test_compressed_entries_and_entries_that_lie_over_each_other_are_refused(tmp_path):
    archive(tmp_path / "x.pt", tensor((2,), (1,)), {"0": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(FileError, match="is compressed, as torch"):
        load_pickle(tmp_path / "x.pt")
    archive(tmp_path / "y.pt", tensor((2,), (1,)), {"0": bytes(8)})
    data = bytearray((tmp_path / "y.pt").read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 10**9, 10**9)
    (tmp_path / "y.pt").write_bytes(data)
    with pytest.raises(FileError, match="says that it holds more than its own bytes"):
        load_pickle(tmp_path / "y.pt")


@pytest.mark.parametrize("seed", range(200))
def test_any_damage_is_a_file_error_or_tensors(tmp_path, seed):
    r = np.random.default_rng(seed)
    torch.save({"state_dict": {"w": torch.ones(3), "v": torch.zeros(2, 2)}} | BESIDE, tmp_path / "x.pt")
    data = bytearray((tmp_path / "x.pt").read_bytes())
    for place in r.integers(0, len(data), r.integers(1, 6)):
        data[place] = r.integers(0, 256)
    (tmp_path / "x.pt").write_bytes(data)
    try:
        found = load_pickle(tmp_path / "x.pt")
        assert all(isinstance(value, torch.Tensor) for value in found.values())
    except FileError as error:
        assert "x.pt" in str(error)


# --- what was taken for another ---


def test_pointers_pickles_and_deltas_are_called_what_they_are(tmp_path):
    from dts_mini import compress, load

    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    for read in (load_tensors, open_checkpoint, load):
        (tmp_path / "m.safetensors").write_bytes(pointer)
        with pytest.raises(FileError, match=r"m\.safetensors: is a Git LFS pointer.*git lfs pull"):
            read(tmp_path / "m.safetensors")
        torch.save({"w": torch.ones(2)}, tmp_path / "m.safetensors")
        with pytest.raises(FileError, match=r"m\.safetensors: is a pickle, not (safetensors|a task delta)"):
            read(tmp_path / "m.safetensors")
    (tmp_path / "m.bin").write_bytes(pointer)
    with pytest.raises(FileError, match=r"m\.bin: is a Git LFS pointer"):
        open_checkpoint(tmp_path / "m.bin")
    compress({"w": torch.zeros(2)}, {"w": torch.ones(2)}).save(tmp_path / "d.dts.safetensors")
    with pytest.raises(FileError, match=r"d\.dts\.safetensors: is a task delta, no model; rebuild"):
        open_checkpoint(tmp_path / "d.dts.safetensors")


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"GGUF\3\0\0\0", "is GGUF, which holds quantised weights"),
        (b"\x89HDF\r\n\x1a\n", "is HDF5"),
        (b"\x93NUMPY\1\0", "NumPy's format"),
        (b"<!DOCTYPE html>", "is a web page, not the file"),
        (b"\n <html>", "is a web page, not the file"),
    ],
)
@pytest.mark.parametrize("name", ["m.safetensors", "m.bin", "m.gguf"])
def test_files_of_other_kinds_are_called_what_they_are(tmp_path, head, word, name):
    (tmp_path / name).write_bytes(head + bytes(100))
    with pytest.raises(FileError, match=rf"{name}: .*{word}"):
        open_checkpoint(tmp_path / name)


def test_a_file_of_an_older_pytorch_is_called_one(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(FileError, match=r"x\.pt: is of PyTorch before 1\.6; open it by torch\.load"):
        load_pickle(tmp_path / "x.pt")
