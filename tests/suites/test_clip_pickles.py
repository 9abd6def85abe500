"""Old checkpoints: what they hold is read, what they would run is not."""

import os
import pickle
import zipfile

import minihub
import open_clip
import pytest
import torch
from torch import nn

from dts_mini import FileError
from dts_mini.suites.clip.pickles import load_pickle, visual
from dts_mini.suites.clip.suite import open_clip_config


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
    model = open_clip.CLIP(**open_clip_config(minihub.CONFIG) | {"quick_gelu": True})
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
    assert tower.keys() == model.visual.state_dict().keys()


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
    with pytest.raises(FileError, match=r"evil.pt: asks for .*mkdir, which is no part of a CLIP checkpoint"):
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
