"""Checkpoints on disk: read a tensor at a time, from one file or from shards, and written the same way."""

import json
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dts_mini.core import file
from dts_mini.core.errors import FileError, StateError
from dts_mini.core.file import DTYPES, save_tensors
from dts_mini.core.state import check_same_layout, digest, fingerprint, outline
from dts_mini.streaming import checkpoint
from dts_mini.streaming.checkpoint import open_checkpoint, save_checkpoint


def halves(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """The names of a state dict in two shards, as transformers names them."""
    names = sorted(state)
    middle = len(names) // 2
    return {f"model-{i:05}-of-00002.safetensors": part for i, part in ((1, names[:middle]), (2, names[middle:]))}


@pytest.fixture
def sharded(base, tmp_path) -> Path:
    return save_checkpoint(base, tmp_path / "model", halves(base), metadata={"format": "pt"})


def same(found, wanted: dict[str, Tensor]) -> bool:
    return set(found) == set(wanted) and all(
        found[n].dtype == wanted[n].dtype and torch.equal(found[n], wanted[n]) for n in wanted
    )


@pytest.mark.parametrize("form", ["folder", "index", "file"])
def test_a_checkpoint_is_the_state_dict_that_was_saved(form, base, sharded, tmp_path):
    path = {
        "folder": sharded,
        "index": sharded / "model.safetensors.index.json",
        "file": save_tensors(base, tmp_path / "whole.safetensors"),
    }[form]
    opened = open_checkpoint(path)
    assert same(opened, base)
    assert len(opened) == len(base)
    assert fingerprint(opened) == fingerprint(base)
    assert "nothing" not in opened
    with pytest.raises(KeyError):
        opened["nothing"]


def test_shards_and_their_index_are_those_that_transformers_writes(base, sharded):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in base.values())
    for name, shard in index["weight_map"].items():
        with file.opened(sharded / shard) as handle:
            assert handle.metadata() == {"format": "pt"}
            assert torch.equal(handle.get_tensor(name), base[name])
    assert index["weight_map"].keys() == base.keys()


def test_opening_reads_headers_alone_and_each_tensor_when_it_is_asked_for(base, sharded, monkeypatch):
    opened, reads, read = open_checkpoint(sharded), [], np.fromfile
    monkeypatch.setattr(np, "fromfile", lambda *args: reads.append(args) or read(*args))
    monkeypatch.setattr(checkpoint, "opened", None)  # however many tensors a header lists, it is parsed once
    for name, tensor in outline(opened).items():
        assert tensor.is_meta
        assert (tensor.shape, tensor.dtype) == (base[name].shape, base[name].dtype)
    check_same_layout(opened, base, "expert")
    assert reads == []
    assert torch.equal(opened["embedding"], base["embedding"])
    assert len(reads) == 1


@given(words=st.lists(st.sampled_from(sorted(DTYPES)), min_size=1, max_size=6), rows=st.integers(0, 3))
def test_a_tensor_is_read_as_the_library_reads_it(tmp_path_factory, words, rows):
    draw = torch.Generator().manual_seed(len(words) + rows)
    bits = lambda word: torch.randint(0, 2, (rows, 3, 8), dtype=torch.uint8, generator=draw).view(DTYPES[word])
    state = {f"{word}{i}": bits(word)[..., 0] for i, word in enumerate(words)} | {"scalar": torch.tensor(3.0)}
    path = tmp_path_factory.mktemp("read") / "model.safetensors"
    safetensors.torch.save_file({name: x.contiguous() for name, x in state.items()}, path, {"format": "pt"})
    found, wanted = open_checkpoint(path), safetensors.torch.load_file(path)
    assert found.keys() == wanted.keys() == outline(found).keys()
    for name, x in wanted.items():
        assert (found[name].dtype, found[name].shape) == (x.dtype, x.shape) and digest(found[name]) == digest(x)


@pytest.mark.parametrize("change", ["replaced", "truncated", "gone"])
def test_a_file_that_is_changed_after_it_was_opened_is_refused_by_name(tmp_path, base, expert, change):
    path = save_tensors(base, tmp_path / "m.safetensors")
    opened = open_checkpoint(path)
    if change == "replaced":
        save_tensors(expert, path, overwrite=True)
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        path.unlink()
    with pytest.raises(FileError, match=r"m\.safetensors: (was changed since|cannot be read)"):
        dict(opened)


def test_a_pickled_checkpoint_is_its_path_however_large_it_is(base, sharded):
    data = pickle.dumps(open_checkpoint(sharded))
    assert len(data) < 500
    assert same(pickle.loads(data), base)


@given(st.lists(st.sampled_from(sorted(DTYPES)), min_size=1, max_size=6), st.integers(0, 3))
def test_a_file_is_byte_for_byte_the_librarys(tmp_path_factory, words, rows):
    state = {f"t{i}é": torch.ones(rows, 3).to(DTYPES[word]) for i, word in enumerate(words)} | {"0-D": torch.ones(())}
    path = save_tensors(state, tmp_path_factory.mktemp("m") / "m.safetensors", metadata={"format": "pt"})
    assert path.read_bytes() == safetensors.torch.save(state, {"format": "pt"})


def test_a_dtype_that_safetensors_has_no_word_for_is_refused_by_its_tensor(tmp_path):
    with pytest.raises(StateError, match=r"tensor 'w': safetensors cannot hold torch.complex128"):
        save_tensors({"w": torch.ones(2, dtype=torch.complex128)}, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


NAMES = ["", " ", ".", "..", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "dts", "table", "\u202ea", "é", "x" * 3000]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(NAMES), min_size=1, unique=True))
def test_whatever_tensors_are_called_they_are_read_again_or_refused_by_name(tmp_path_factory, names):
    state = {name: torch.full((2,), float(place)) for place, name in enumerate(names)}
    path = tmp_path_factory.mktemp("names") / "x.safetensors"
    assert same(open_checkpoint(save_tensors(state, path)), state)
    assert same(file.load_tensors(path), state)
    with pytest.raises(StateError, match="tensor '__metadata__': safetensors has this name for something else"):
        save_tensors(state | {"__metadata__": torch.ones(2)}, path, overwrite=True)
    assert same(file.load_tensors(path), state)


def test_saving_holds_one_tensor_at_a_time(base, tmp_path):
    alive, most = [], []

    class Watched(dict):
        outline = base

        def __getitem__(self, name: str) -> Tensor:
            found = super().__getitem__(name).clone()
            most.append(sum(reference() is not None for reference in alive))
            alive.append(weakref.ref(found.untyped_storage()))
            return found

    save_tensors(Watched(base), tmp_path / "m.safetensors")
    assert len(most) == len(base)
    assert max(most) == 0, "the one before is gone when the next is read"


# --- what is refused ---


def test_a_missing_shard_is_refused_by_name(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileError, match=r"model-00002-of-00002\.safetensors: there is no such file"):
        open_checkpoint(sharded)


def test_a_truncated_shard_is_refused_by_name_before_any_tensor_is_read(sharded):
    shard = sharded / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(FileError, match=r"model-00001-of-00002\.safetensors: is no readable safetensors file"):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', "\udcff", "[" * 100_000]
)
def test_an_index_that_is_none_is_refused_by_name(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text, errors="surrogateescape")
    with pytest.raises(FileError, match=r"model\.safetensors\.index\.json: is no readable index"):
        open_checkpoint(sharded)


def test_an_index_and_shards_that_disagree_are_refused_with_the_tensor(base, sharded):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first = index["weight_map"].pop("embedding")
    path.write_text(json.dumps(index))
    with pytest.raises(FileError, match=r"does not list tensor 'embedding'"):
        open_checkpoint(sharded)
    index["weight_map"] |= {"embedding": first, "more": first}
    path.write_text(json.dumps(index))
    with pytest.raises(FileError, match=rf"{first}: lacks tensor 'more'"):
        open_checkpoint(sharded)


def test_a_tensor_in_two_shards_is_refused(base, sharded):
    one, two = sorted(sharded.glob("*.safetensors"))
    save_tensors(base, two, overwrite=True)
    with pytest.raises(FileError, match=rf"{two.name}: holds tensor '.*', and so does .*{one.name}"):
        open_checkpoint(sharded)


def test_an_index_cannot_name_files_outside_its_folder(base, sharded):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    save_tensors(base, sharded.parent / "other.safetensors")
    index["weight_map"] = dict.fromkeys(base, "../other.safetensors")
    path.write_text(json.dumps(index))
    with pytest.raises(FileError, match=r"model/other\.safetensors: there is no such file"):
        open_checkpoint(sharded)


def test_a_folder_without_one_checkpoint_is_refused(base, tmp_path):
    with pytest.raises(FileError, match="holds no safetensors"):
        open_checkpoint(tmp_path)
    for name in ("a", "b"):
        save_tensors(base, tmp_path / f"{name}.safetensors")
    with pytest.raises(FileError, match=r"holds 2 checkpoints \(a\.safetensors, b\.safetensors\); name the file"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("word", "shape", "message"),
    [
        ("F32", [0, 2**63 - 1, 9], "which no tensor has"),
        ("F32", [0, 2**64 - 1], "which no tensor has"),
        ("F4", [0], "F4 is not supported; dequantise the model first"),
        ("F8_E8M0", [0], "F8_E8M0 is not supported; dequantise the model first"),
    ],
)
def test_a_header_that_says_what_no_tensor_here_can_be_is_refused_by_name(tmp_path, word, shape, message):
    header = json.dumps({"w": {"dtype": word, "shape": shape, "data_offsets": [0, 0]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(FileError, match=rf"m\.safetensors, tensor 'w': .*{message}"):
        open_checkpoint(tmp_path / "m.safetensors")


def test_a_folder_with_an_adapter_is_no_model_by_itself_and_the_models_file_is(base, expert, tmp_path):
    """transformers opens both together: the model alone would be another one, without a word."""
    (tmp_path / "adapter_config.json").write_text("{}")
    save_tensors({"base_model.model.w.lora_A.weight": torch.ones(2, 3)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(
        FileError, match="is an adapter, no model; make a delta of it by dts-mini import-lora, or merge"
    ):
        open_checkpoint(tmp_path)
    for name, text in (("config.json", "{}"), ("model.safetensors.index.json", "{}")):
        (tmp_path / name).write_text(text)
        save_tensors(base, tmp_path / "model.safetensors", overwrite=True)
        with pytest.raises(
            FileError, match=r"holds an adapter \(adapter_config\.json\) beside a model.*together; merge"
        ):
            open_checkpoint(tmp_path)
    assert same(open_checkpoint(tmp_path / "model.safetensors"), base)


def test_of_a_model_saved_over_shards_the_one_is_opened_that_its_class_opens(base, expert, sharded):
    for path in (
        sharded / "model.safetensors",
        sharded / "other.safetensors",
    ):  # as the Hub has consolidated.safetensors
        save_tensors(expert, path)
        assert same(open_checkpoint(sharded), expert)
    for path in sharded.glob("model-*"):
        path.unlink()
    assert same(open_checkpoint(sharded), expert)


@pytest.mark.parametrize("there", [1, 2])
def test_shards_without_their_index_are_no_model_however_many_there_are(base, sharded, there):
    (sharded / "model.safetensors.index.json").unlink()
    for path in sorted(sharded.glob("*.safetensors"))[there:]:
        path.unlink()
    with pytest.raises(FileError, match=r"has shards \(model-00001-of-00002\.safetensors\) without their index"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "pytorch_model-00002-of-00003.bin"])
def test_one_shard_of_several_is_no_model_and_their_folder_is_named(base, tmp_path, name):
    (tmp_path / name).write_bytes(safetensors.torch.save(base))
    with pytest.raises(FileError, match=f"{name}: is one shard of a model in several; pass their folder, {tmp_path}"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("there", [1, 2])
def test_a_model_in_pickled_shards_is_called_one_by_whatever_path(base, tmp_path, there):
    for number, held in enumerate([list(base)[:2], list(base)[2:]][:there], 1):
        torch.save({name: base[name] for name in held}, tmp_path / f"pytorch_model-{number:05}-of-00002.bin")
    (index := tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    for path in (tmp_path, index):
        with pytest.raises(FileError, match="in pickled shards; open it with its own class, save_pretrained"):
            open_checkpoint(path)


def test_a_folder_is_written_over_only_when_asked_and_its_other_files_stay(base, expert, sharded):
    (sharded / "config.json").write_text("{}")
    with pytest.raises(FileError, match="is a folder that exists already"):
        save_checkpoint(expert, sharded, halves(expert))
    assert same(open_checkpoint(sharded), base)
    save_checkpoint(expert, sharded, halves(expert), overwrite=True)
    assert same(open_checkpoint(sharded), expert)
    assert (sharded / "config.json").read_text() == "{}"
    assert [path.name for path in sharded.parent.iterdir()] == ["model"], "no leftovers"


def test_writing_that_fails_midway_leaves_no_folder(base, tmp_path):
    class Broken(dict):
        def __getitem__(self, name: str) -> Tensor:
            if name == "norm.weight":
                raise FileError("gone")
            return super().__getitem__(name)

    state = Broken(base)
    state.outline = base
    with pytest.raises(FileError, match="gone"):
        save_checkpoint(state, tmp_path / "model", halves(base))
    assert list(tmp_path.iterdir()) == []
