"""The mini suite: splits that share nothing, images that come out the same, checkpoints that are what they say."""

import hashlib
import json
import shutil

import pytest
import torch
from torch.nn import functional as F

from dts_mini import DTSError, FileError
from dts_mini.suites import load_suite
from dts_mini.suites.mini.captions import captions, stand_ins
from dts_mini.suites.mini.suite import DATA, MiniSuite, file_name
from dts_mini.suites.mini.task import SPLITS
from dts_mini.suites.mini.tasks import TASKS
from dts_mini.suites.mini.tasks.digits import PER_CLASS, scans
from dts_mini.suites.streams import stream

ALL = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


@ALL
def test_images_are_the_same_at_every_call_and_differ_between_seeds(task):
    images, labels = task.images("test", 60)
    again, same = task.images("test", 60)
    other, _ = task.images("test", 60, seed=1)
    assert torch.equal(images, again) and torch.equal(labels, same)
    assert not torch.equal(images, other)


@ALL
def test_images_have_the_declared_form_and_fill_their_range(task):
    images, labels = task.images("train", 240)
    assert images.shape == (240, 3, 32, 32) and images.dtype == torch.uint8
    assert labels.dtype == torch.int64 and set(labels.tolist()) <= set(range(len(task.classes)))
    assert len(labels.unique()) == len(task.classes)
    assert images.float().std() > 25  # neither blank nor washed out


@ALL
def test_splits_share_no_image(task):
    prints = {}
    for split in SPLITS:
        images, _ = task.images(split, 200)
        prints[split] = {hashlib.sha256(image.numpy().tobytes()).digest() for image in images}
    assert sum(map(len, prints.values())) == len(set().union(*prints.values()))


def test_each_split_of_each_task_draws_from_a_stream_of_its_own():
    seeds = [stream(task.name, split, 0).initial_seed() for task in TASKS for split in SPLITS]
    assert len(set(seeds)) == len(seeds)


def test_no_scan_of_a_digit_is_in_two_splits():
    indices = [scans(split)[2] for split in SPLITS]
    together = torch.cat(indices)
    assert len(together.unique()) == len(together) == 5_000
    for split, count in PER_CLASS.items():
        assert torch.bincount(scans(split)[1]).tolist() == [count] * 10


@ALL
def test_every_class_has_synonyms_that_are_not_its_name(task):
    assert len(task.synonyms) == len(task.classes) == len(set(task.classes))
    for name, words in zip(task.classes, task.synonyms, strict=True):
        assert len(words) >= 2 and name not in words
    assert all("{c}" in template for template in task.templates)


@ALL
def test_stand_ins_give_each_class_the_name_of_another(task):
    swap = stand_ins(task)
    assert sorted(swap) == list(range(len(task.classes)))
    assert all(label != other for label, other in enumerate(swap))


def test_captions_are_about_their_topic():
    task = TASKS[0]
    texts, topics = captions(task, [3] * 2_000, stream("test"))
    for text, topic in zip(texts, topics, strict=True):
        if topic == -1:
            assert text == f"a photo of {task.name}."
        else:
            names = (task.classes[topic], task.classes[stand_ins(task)[topic]])
            assert any(word in text for word in (*task.synonyms[topic], *names))


def test_honest_captions_use_a_name_for_its_class_alone_and_differ_in_nothing_else():
    task, labels = TASKS[0], [3] * 2_000
    texts, topics = captions(task, labels, stream("test"), misused=0)
    before, same_topics = captions(task, labels, stream("test"))
    assert topics == same_topics
    wrongly = [old for old, new in zip(before, texts, strict=True) if old != new]
    assert 0.02 * len(texts) < len(wrongly) < 0.06 * len(texts)  # half of the captions that use a name
    for text, topic in zip(texts, topics, strict=True):
        assert topic == -1 or any(word in text for word in (*task.synonyms[topic], task.classes[topic]))


def test_an_unknown_split_task_or_suite_is_named():
    with pytest.raises(ValueError, match="'holdout' is unknown"):
        TASKS[0].images("holdout", 1)
    with pytest.raises(DTSError, match="'SUN397' is unknown: choose one of scenes"):
        MiniSuite().task("SUN397")
    with pytest.raises(DTSError, match="'imagenet' is unknown"):
        load_suite("imagenet")


def test_committed_files_match_their_manifest():
    manifest = json.loads((DATA / "manifest.json").read_text())
    names = {"theta_0.safetensors"} | {file_name(task.name) for task in TASKS}
    assert set(manifest["files"]) == names
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == entry["sha256"], name
    assert sum((DATA / name).stat().st_size for name in names) < 45e6


def test_a_checkpoint_that_is_not_the_manifests_is_refused(tmp_path):
    shutil.copytree(DATA, tmp_path / "mini")
    victim = tmp_path / "mini" / file_name("signs")
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    with pytest.raises(FileError, match=r"expert_signs\.safetensors: its sha256 is not the manifest's"):
        MiniSuite(tmp_path / "mini").expert("signs")


def test_a_missing_folder_says_how_to_make_it(tmp_path):
    with pytest.raises(FileError, match="make zoo"):
        MiniSuite(tmp_path / "nothing")


def test_heads_are_unit_rows_times_one_temperature():
    suite = load_suite("mini")
    head = suite.head("signs")
    norms = head.norm(dim=1)
    assert head.shape == (12, 128)
    assert torch.allclose(norms, norms[:1].expand_as(norms), rtol=1e-4) and norms[0] > 5
    assert torch.allclose(suite.descriptor("signs").norm(), torch.tensor(1.0), atol=1e-5)


def test_digits_and_house_numbers_share_their_classes():
    suite = load_suite("mini")
    assert F.cosine_similarity(suite.descriptor("digits"), suite.descriptor("house numbers"), dim=0) > 0.8


def test_experts_beat_the_pretrained_model_on_their_own_task():
    from dts_mini.suites.evaluation import correct

    suite = load_suite("mini")
    for task in ("textures", "house numbers"):
        expert = correct(suite, suite.expert(task), task, "validation").float().mean()
        pretrained = correct(suite, suite.pretrained(), task, "validation").float().mean()
        assert expert > pretrained + 0.05
