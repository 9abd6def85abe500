"""A folder is replaced in one step: killed anywhere, it opens as the old model or as the new one, and is swept later."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import open_clip
import pytest
import torch

from dts_mini.core.file import load_tensors, save_tensors
from dts_mini.streaming.checkpoint import open_checkpoint, save_checkpoint
from dts_mini.streaming.folder import companions, pretrained_names

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that dies is a fork")

NAMES = ["a", "b", "c"]
LAYOUTS = {
    "one file": {"model.safetensors": NAMES},
    "one file of another name": {"base.safetensors": NAMES},
    "two shards": {"model-00001-of-00002.safetensors": ["a"], "model-00002-of-00002.safetensors": ["b", "c"]},
    "three shards": {f"model-{i}-of-3.safetensors": [name] for i, name in enumerate(NAMES, 1)},
}


def model(value: float) -> dict:
    return {name: torch.full((4,), value) for name in NAMES}


def values(folder: Path) -> set[float]:
    """Of the model that opens, which is the one that from_pretrained takes: a whole one, before any index."""
    found = dict(open_checkpoint(folder))
    if (folder / "model.safetensors").is_file():
        assert all(torch.equal(x, found[name]) for name, x in load_tensors(folder / "model.safetensors").items())
    return {float(x) for tensor in found.values() for x in tensor}


def saved(folder: Path, layout: str) -> None:
    """The old model; one over shards and their index, which it leaves there, as ``save_pretrained`` does."""
    if layout == "one file over shards":
        save_checkpoint(model(0.0), folder, LAYOUTS["three shards"], overwrite=folder.exists())
        save_tensors(model(1.0), folder / "model.safetensors", overwrite=True)
        return
    save_checkpoint(model(1.0), folder, LAYOUTS[layout], overwrite=folder.exists())


def killed(folder: Path, layout: dict, at: int) -> bool:
    """Saves the new model in a process that dies at its ``at``-th change of a name; whether it came so far."""
    child = os.fork()
    if child == 0:
        calls = [0]

        def dying(real, *arguments, **named):
            calls[0] += 1
            if calls[0] == at:
                os._exit(9)
            return real(*arguments, **named)

        for name in ("replace", "rename", "unlink", "rmdir"):
            setattr(os, name, partial(dying, getattr(os, name)))
        save_checkpoint(model(2.0), folder, layout, overwrite=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("one file", "one file"),
        ("one file of another name", "one file"),
        ("one file", "two shards"),
        ("two shards", "one file"),
        ("two shards", "two shards"),
        ("two shards", "three shards"),
        ("one file over shards", "one file"),
        ("one file over shards", "three shards"),
    ],
)
def test_a_kill_at_any_change_of_a_name_leaves_one_model_and_the_next_run_sweeps(tmp_path, old, new):
    folder, seen = tmp_path / "model", []
    for at in range(1, 200):
        saved(folder, old)
        (folder / "config.json").write_text("{}")
        dead = killed(folder, LAYOUTS[new], at)
        assert len(values(folder)) == 1
        seen.append(values(folder).pop())
        save_checkpoint(model(2.0), folder, LAYOUTS[new], overwrite=True)
        assert values(folder) == {2.0}
        held = {path.name for path in folder.iterdir()} - {"config.json"}
        assert len(held) == len(LAYOUTS[new]) + (len(LAYOUTS[new]) > 1), held
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        if not dead:
            break
    assert not dead
    assert seen == sorted(seen), "the old one until one change, the new one from there"
    assert set(seen) == {1.0, 2.0}


def test_a_kill_while_a_folder_is_made_leaves_none_and_the_next_run_sweeps(tmp_path):
    folder = tmp_path / "model"
    assert killed(folder, LAYOUTS["two shards"], 2)
    assert not folder.exists()
    save_checkpoint(model(2.0), folder, LAYOUTS["two shards"])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert values(folder) == {2.0}


def test_files_of_a_folder_that_is_written_anew_have_the_names_that_were_asked_for(tmp_path):
    for layout in LAYOUTS.values():
        folder = save_checkpoint(model(1.0), tmp_path / str(len(list(tmp_path.iterdir()))), layout)
        assert {path.name for path in folder.glob("*.safetensors")} == set(layout)


def test_a_folder_that_is_its_own_base_can_be_replaced(tmp_path):
    folder = save_checkpoint(model(1.0), tmp_path / "model", LAYOUTS["two shards"])
    held = open_checkpoint(folder)
    save_checkpoint(held, folder, LAYOUTS["three shards"], overwrite=True)
    assert values(folder) == {1.0}


def test_what_a_models_class_reads_comes_along_and_nothing_else(tmp_path):
    source = save_checkpoint(model(1.0), tmp_path / "source", LAYOUTS["two shards"])
    assert companions(source) == {}, "no config.json: no model that a class opens"
    mine = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "vocab.txt",
        "spiece.model",
        "chat_template.jinja",
    ]
    others = [
        "README.md",
        "optimizer.pt",
        "training_args.bin",
        "trainer_state.json",
        "pytorch_model.bin",
        ".gitattributes",
    ]
    for name in mine + others:
        (source / name).write_text(name)
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text("{}")
    (source / "runs").mkdir()
    (source / "runs" / "config.json").write_text("{}")
    (source / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}, {"path": "../runs"}]))
    found = companions(source)
    assert set(found) == {*mine, "modules.json", "1_Pooling/config.json"}
    out = save_checkpoint(model(2.0), tmp_path / "out", LAYOUTS["one file"], beside=found)
    again = save_checkpoint(model(3.0), out, LAYOUTS["two shards"], beside=found, overwrite=True)
    assert {path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file()} == {
        *found,
        *LAYOUTS["two shards"],
        "model.safetensors.index.json",
    }


def test_the_names_of_shards_are_those_of_save_pretrained():
    assert pretrained_names(LAYOUTS["two shards"]) == LAYOUTS["two shards"]
    assert list(pretrained_names({"x.safetensors": ["a"]})) == ["model.safetensors"]


@pytest.mark.parametrize("library", ["diffusion_pytorch_model", "open_clip_model"])
def test_names_of_other_libraries_stay(library, tmp_path):
    """diffusers and open_clip look for names of their own."""
    assert list(pretrained_names({f"{library}.fp16.safetensors": ["a"]})) == [f"{library}.safetensors"]
    shards = {f"{library}{file.removeprefix('model')}": names for file, names in LAYOUTS["two shards"].items()}
    out = tmp_path / "out"
    for number, overwrite in enumerate((False, True), 1):
        save_checkpoint(model(float(number)), out, pretrained_names(shards), overwrite=overwrite)
        assert [path.name for path in out.glob("*.json")] == [f"{library}.safetensors.index.json"]
        assert values(out) == {float(number)}


def test_a_folder_of_open_clip_opens_with_open_clip(tmp_path):
    about = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
    }
    about |= {"text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}}
    source = tmp_path / "source"
    source.mkdir()
    (source / "open_clip_config.json").write_text(json.dumps({"model_cfg": about, "preprocess_cfg": {}}))
    made = open_clip.create_model(f"local-dir:{source}", load_weights=False)
    state = {name: x.contiguous() for name, x in made.state_dict().items()}
    save_tensors(state, source / "open_clip_model.safetensors")
    checkpoint = open_checkpoint(source)
    beside = companions(source)
    out = save_checkpoint(checkpoint, tmp_path / "out", pretrained_names(checkpoint.shards), beside=beside)
    opened = open_clip.create_model(f"local-dir:{out}").state_dict()
    assert all(torch.equal(opened[name], x) for name, x in state.items())


@pytest.mark.skipif(sys.platform == "darwin", reason="forks of a process with threads")
def test_a_damaged_old_model_does_not_hinder_a_new_one(tmp_path):
    folder = save_checkpoint(model(1.0), tmp_path / "model", LAYOUTS["two shards"])
    (folder / "model.safetensors.index.json").write_text("{")
    save_checkpoint(model(2.0), folder, LAYOUTS["two shards"], overwrite=True)
    assert values(folder) == {2.0}
    single = tmp_path / "single"
    single.mkdir()
    save_tensors(model(1.0), single / "model.safetensors")
    save_checkpoint(model(2.0), single, LAYOUTS["two shards"], overwrite=True)
    assert values(single) == {2.0}
