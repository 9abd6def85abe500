"""The real suite on the miniature Hub: models, heads, layouts, and what it refuses."""

import minihub
import pytest
import safetensors.torch
import torch

from dts_mini import DTSError, FileError, StateError, compress, rebuild
from dts_mini.core.container import decode
from dts_mini.suites import load_suite
from dts_mini.suites.clip import keys
from dts_mini.suites.clip import suite as module
from dts_mini.suites.clip.suite import ClipSuite
from dts_mini.suites.evaluation import logits
from dts_mini.suites.hub import Hub
from dts_mini.suites.mini.suite import MiniSuite
from dts_mini.suites.suite import ImageSuite, Suite


def replace(cache, repo, file, data):
    """Other bytes under a file's name, as a consistent cache."""
    folder = minihub.folder_of(cache, repo)
    link, blob = folder / "snapshots" / minihub.COMMIT / file, folder / "blobs" / minihub.etag(file, data)
    link.unlink()
    blob.write_bytes(data)
    link.symlink_to(blob)


def test_both_suites_have_every_member_of_the_protocol(clip):
    named = [*Suite.__annotations__, *vars(Suite), *vars(ImageSuite)]
    wanted = {name for name in named if not name.startswith("_")}
    for suite in (clip(), MiniSuite()):
        assert {name for name in wanted if not hasattr(suite, name)} == set()


def test_the_suite_loads_by_name_with_a_number_of_tasks(monkeypatch, tmp_path):
    monkeypatch.setenv("DTS_SUITE", "clip-vit-b-32:14")
    monkeypatch.setenv("DTS_HOME", str(tmp_path))
    monkeypatch.setenv("DTS_PRECISION", "bfloat16")
    suite = load_suite(device="cpu")
    assert (suite.name, len(suite.tasks), suite.precision) == ("clip-vit-b-32:14", 14, "bfloat16")
    assert suite.folder == tmp_path / "clip-vit-b-32" / "P3-14-fused"
    assert len(load_suite("clip-vit-l-14:20", device="cpu").tasks) == 20


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "tasks"), [("clip-vit-b-16", 14), ("clip-vit-l-14", 20)])
def test_longer_lists_of_tasks_and_other_models_are_read_from_their_own_repositories(
    architecture, tasks, tmp_path, offline
):
    config = minihub.CONFIG | {"vision_config": minihub.CONFIG["vision_config"] | {"num_hidden_layers": 1}}
    cache = minihub.write(tmp_path / "hub", minihub.contents(tasks, config, architecture))
    hub = Hub(tmp_path / "pins.json", cache=cache)
    suite = ClipSuite(architecture, tasks=tasks, home=tmp_path, hub=hub, device="cpu")
    assert len(suite.wanted()) == 2 + 2 * tasks + 1  # of the base two files, of DTD the training images too
    for task in suite.tasks:
        found = logits(suite, suite.expert(task), task)
        assert found.shape == (minihub.IMAGES, len(suite.classes(task)))
    assert len(suite.hub.pinned) == 1 + 2 * tasks


@pytest.mark.parametrize("name", ["clip-vit-b-31", "mini:8", "clip-vit-b-32:x", "clip-vit-b-32:9"])
def test_a_suite_that_is_not_there_is_refused(name):
    with pytest.raises(DTSError, match=r"is unknown|tasks is 9: choose one of 8, 14, 20"):
        load_suite(name)


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("dts_mini.suites.clip")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DTSError, match=r"needs huggingface_hub: pip install 'dts_mini\[full\]'"):
        load_suite("clip-vit-b-32")


def test_the_pretrained_tower_is_the_checkpoints(clip, repositories):
    state = clip().pretrained()
    stored = safetensors.torch.load(repositories["openai/clip-vit-base-patch32"]["model.safetensors"])
    assert torch.equal(state["proj"], stored["visual_projection.weight"].T)
    assert torch.equal(
        state["transformer.resblocks.1.attn.in_proj_weight"][:32],
        stored["vision_model.encoder.layers.1.self_attn.q_proj.weight"],
    )


def test_an_expert_has_the_bases_projection_and_its_own_weights_in_both_key_layouts(clip):
    suite = clip()
    theta_0 = suite.pretrained()
    for task in ("SUN397", "Cars"):  # stored with and without the prefix vision_model.
        expert = suite.expert(task)
        assert list(expert) == list(theta_0)
        assert torch.equal(expert["proj"], theta_0["proj"])
        assert not torch.equal(expert["conv1.weight"], theta_0["conv1.weight"])


def test_the_layout_of_attention_changes_names_and_files_but_no_answer(clip):
    fused, split = clip(), clip(attention="split")
    assert torch.equal(logits(fused, fused.expert("SVHN"), "SVHN"), logits(split, split.expert("SVHN"), "SVHN"))
    for suite, name in ((fused, "fused"), (split, "split")):
        delta = compress(suite.pretrained(), suite.expert("SVHN"))
        assert decode(delta.to_bytes(), "x")[0]["attention"] == name
        logits(suite, rebuild(suite.pretrained(), delta), "SVHN")
    assert fused.folder != split.folder


def test_the_mini_suites_names_find_the_data_sets_that_they_mirror(clip):
    suite = clip()
    assert suite.task("signs").name == "GTSRB" and suite.task("GTSRB").mirror == "signs"
    with pytest.raises(DTSError, match="task 'sign' is unknown: choose one of SUN397"):
        suite.task("sign")


def test_a_head_has_unit_rows_times_the_temperature_and_is_made_once(clip):
    suite = clip()
    head = suite.head("DTD")
    assert head.shape == (47, 24)
    assert torch.allclose(head.norm(dim=1), suite.model.logit_scale.exp().expand(47), rtol=1e-5)
    assert suite.store.made == {"heads": 1}
    assert torch.equal(clip().head("DTD"), head)


def test_validation_and_test_are_apart(clip):
    suite = clip()
    (validation, labels), (test, _) = (suite.images("MNIST", split) for split in ("validation", "test"))
    assert len(validation) == len(labels) == minihub.IMAGES // 10 and len(test) == minihub.IMAGES
    assert not {bytes(one.numpy().tobytes()) for one in validation} & {bytes(one.numpy().tobytes()) for one in test}
    with pytest.raises(DTSError, match="split 'train' is unknown"):
        suite.images("MNIST", "train")


def test_mixed_precision_stays_close_and_apart(clip):
    exact, mixed = clip(), clip(precision="bfloat16")
    one, other = (logits(suite, suite.expert("MNIST"), "MNIST") for suite in (exact, mixed))
    assert not torch.equal(one, other) and (one - other).abs().max() < 1


def test_logits_are_kept_part_by_part(clip, monkeypatch):
    monkeypatch.setattr("dts_mini.suites.evaluation.PART", 8)
    suite = clip()
    state = suite.pretrained()
    whole = logits(suite, state, "MNIST")
    assert suite.store.made["logits"] == 4
    next((suite.store.folder / "logits").iterdir()).unlink()  # a run that was killed before one of them
    again = clip()
    assert torch.equal(logits(again, state, "MNIST"), whole)
    assert again.store.made["logits"] == 1


def test_a_damaged_entry_of_the_store_is_made_again(clip):
    suite = clip()
    head = suite.head("MNIST")
    (entry,) = (suite.store.folder / "heads").iterdir()
    entry.write_bytes(b"damaged")
    assert torch.equal(clip().head("MNIST"), head)


def test_an_expert_of_another_size_is_named(clip, cache, repositories):
    repo = "tanganke/clip-vit-base-patch32_mnist"
    state = safetensors.torch.load(repositories[repo]["model.safetensors"])
    name = next(name for name in state if name.endswith("patch_embedding.weight"))
    replace(cache, repo, "model.safetensors", safetensors.torch.save(state | {name: torch.zeros(32, 3, 8, 8)}))
    with pytest.raises(StateError, match=r"'conv1.weight' has shape \(32, 3, 8, 8\) in the expert of MNIST"):
        clip(cache).expert("MNIST")


def test_a_base_whose_safetensors_are_missing_is_read_from_its_old_state_dict(clip, cache, repositories):
    import io

    repo = "openai/clip-vit-base-patch32"
    with io.BytesIO() as file:
        torch.save(safetensors.torch.load(repositories[repo]["model.safetensors"]), file)
        data = file.getvalue()
    snapshot = minihub.folder_of(cache, repo) / "snapshots" / minihub.COMMIT
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(FileError, match=r"has no model.safetensors"):
        clip(cache).pretrained()
    (snapshot / "pytorch_model.bin").symlink_to(snapshot / "none")
    replace(cache, repo, "pytorch_model.bin", data)
    assert all(torch.equal(tensor, clip().pretrained()[name]) for name, tensor in clip(cache).pretrained().items())


def test_a_split_of_dtd_that_leaked_into_training_is_refused(clip, cache, repositories):
    files = repositories["datasets/tanganke/dtd"]
    train, test = (next(file for file in files if f"/{split}-" in file) for split in ("train", "test"))
    assert clip().check() == {
        "DTD": {
            "in training too": 0,
            "test images": minihub.IMAGES,
            "said": "0 of 30 test images stand in the training split.",
        }
    }
    replace(cache, "datasets/tanganke/dtd", train, files[test])
    with pytest.raises(DTSError, match=r"tanganke/dtd: 30 of 30 test images are training images as well"):
        clip(cache, home=cache.parent / "other").check()


def test_an_expert_that_is_too_good_on_dtd_is_refused(clip, monkeypatch):
    monkeypatch.setattr(module, "correct", lambda *args: torch.ones(30))
    with pytest.raises(DTSError, match=r"expert of DTD gets 100.0% of its test images right, which only experts do"):
        clip().check()


def test_checkpoints_of_ones_own_carry_the_name_of_their_family(clip, tmp_path):
    suite = clip()
    for task in suite.tasks:
        (tmp_path / "own" / task).mkdir(parents=True)
        named = {f"model.visual.{name}": tensor for name, tensor in suite.expert(task).items()}
        torch.save(named, tmp_path / "own" / task / "finetuned.pt")
    own = clip(checkpoints=tmp_path / "own", protocol="P1")
    assert own.folder.name == "P1-8-fused" and len(own.wanted()) < len(suite.wanted())
    assert all(torch.equal(tensor, suite.expert("DTD")[name]) for name, tensor in own.expert("DTD").items())
    (tmp_path / "own" / "DTD" / "finetuned.pt").unlink()
    with pytest.raises(FileError, match=r"DTD: has no finetuned.pt"):
        clip(checkpoints=tmp_path / "own", protocol="P1").expert("DTD")
    for options in ({"checkpoints": tmp_path}, {"protocol": "P1"}):
        with pytest.raises(DTSError, match="protocol P3 stands for the Hub's checkpoints"):
            clip(**options)


def test_a_device_that_is_not_there_is_refused(clip):
    with pytest.raises(DTSError, match="device 'nowhere' cannot be used here"):
        module.ClipSuite(device="nowhere")


def test_a_configuration_with_gaps_is_vit_b_32s():
    import open_clip

    with torch.device("meta"):
        ours = open_clip.CLIP(**module.open_clip_config({}))
        theirs = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32"))
    shapes = lambda model: {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert shapes(ours) == shapes(theirs)


def test_split_and_fused_are_the_same_tower(clip):
    suite = clip()
    state = suite.expert("GTSRB")
    assert all(torch.equal(t, state[name]) for name, t in keys.fused(keys.split(state)).items())
