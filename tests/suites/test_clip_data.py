"""Images of the real suite: what is read from the files, what is kept, and what is refused."""

import dataclasses
import errno
import io
import os
import struct
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from dts_mini import DTSError, FileError
from dts_mini.suites.clip import data
from dts_mini.suites.clip.names import BASES, COUNTS, TASKS, expert_repo
from dts_mini.suites.hub import Repo
from dts_mini.suites.streams import VALIDATION

BY_NAME = {task.name: task for task in TASKS}
MNIST = BY_NAME["MNIST"]


def picture(value, size=(40, 36)):
    with io.BytesIO() as file:
        Image.new("RGB", size, (value, value, value)).save(file, "PNG")
        return file.getvalue()


# --- names ---


def test_there_are_twenty_tasks_and_each_expert_and_class_list_is_its_own():
    assert len(TASKS) == max(COUNTS) == 20
    for of in (lambda task: task.name, lambda task: task.expert, lambda task: task.repo):
        assert max(Counter(map(of, TASKS)).values()) == 1
    for task in TASKS:
        assert not task.classes or len(set(task.classes)) == task.number
        assert all("{c}" in template for template in task.templates)
        assert len(set(task.templates)) == len(task.templates)


def test_the_eight_tasks_have_as_many_prompts_as_published():
    expected = {"SUN397": 2, "Cars": 8, "RESISC45": 18, "EuroSAT": 3, "SVHN": 1, "GTSRB": 3, "MNIST": 1, "DTD": 8}
    assert {task.name: len(task.templates) for task in TASKS[:8]} == expected


def test_the_eight_tasks_mirror_the_mini_suites_in_its_order():
    from dts_mini.suites.mini.tasks import TASKS as MINI

    assert [(task.mirror, task.name) for task in TASKS[:8]] == [(task.name, task.mirrors) for task in MINI]


def test_experts_are_named_after_model_and_task():
    assert expert_repo("clip-vit-b-32", BY_NAME["Cars"]) == "tanganke/clip-vit-base-patch32_stanford-cars"
    assert expert_repo("clip-vit-l-14", BY_NAME["PCAM"]) == "tanganke/clip-vit-large-patch14_pcam"
    assert set(BASES) == {"clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14"}


# --- files ---


class Listed:
    """A Hub that only knows names."""

    def __init__(self, *files):
        self.listed = dict.fromkeys(files, 1)

    def files(self, repo):
        return self.listed

    def commit(self, repo):
        return "c0ffee" * 6


@pytest.mark.parametrize(
    ("task", "files", "wanted"),
    [
        ("SUN397", ["data/test-00001-of-00002.parquet", "data/test-00000-of-00002.parquet", "data/train-0.parquet"], 2),
        ("SVHN", ["cropped_digits/test-00000-of-00001.parquet", "full_numbers/test-00000-of-00001.parquet"], 1),
        ("Food101", ["data/validation-00000-of-00003.parquet", "data/train-00000-of-00008.parquet"], 1),
        ("GTSRB", ["data/test-00000-of-00001.parquet", "data/contrast-00000-of-00001.parquet", "README.md"], 1),
        ("FER2013", ["test/0.tar", "train/0.tar", "classnames.txt"], 1),
    ],
)
def test_the_files_of_a_split_are_found_in_order(task, files, wanted):
    found = [file for _, file in data.files_of(Listed(*files), BY_NAME[task], "test")]
    assert found == sorted(found) and len(found) == wanted


def test_a_repository_without_the_split_is_named():
    with pytest.raises(
        FileError, match=r"datasets/ylecun/mnist at c0ffeec0 has no .parquet file of the split 'test' in"
    ):
        data.files_of(Listed("mnist/train-0.parquet"), MNIST, "test")


def test_class_names_come_from_the_data_set_where_the_task_gives_none(clip):
    suite = clip()
    assert suite.task("DTD").classes[:2] == ("class 000", "class 001")  # underscores made spaces
    assert suite.task("MNIST").classes == tuple("0123456789")
    with pytest.raises(DTSError, match=r"names 47 classes, DTD has 46"):
        data.class_names(suite.hub, dataclasses.replace(BY_NAME["DTD"], number=46))


def test_a_missing_column_is_named_with_those_that_are_there(clip):
    suite = clip()
    paths = suite._paths(MNIST, "test")
    with pytest.raises(DTSError, match=r"ylecun/mnist: has no column 'fine_label', only image, label"):
        next(data.rows_of(paths, dataclasses.replace(MNIST, label="fine_label")))


def test_a_web_data_set_is_read_as_well(tmp_path):
    import tarfile

    task = BY_NAME["FER2013"]
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for number in range(3):
            for ending, content in (("jpg", picture(50 * number)), ("cls", str(number).encode())):
                entry = tarfile.TarInfo(f"{number}.{ending}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    assert data.count([tmp_path / "0.tar"], task) == 3
    assert list(data.rows_of([tmp_path / "0.tar"], task)) == [(picture(50 * n), n) for n in range(3)]


# --- pixels ---


def test_the_crop_is_clips():
    import open_clip

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8))
    reference = open_clip.image_transform(32, is_train=False)(image)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    ours = (data.crop(32)(image).float() / 255 - mean) / std
    assert torch.allclose(ours, reference, atol=1e-6)


def source(count, log=None):
    def rows(start):
        for number in range(start, count):
            if log is not None:
                log.append(number)
            yield picture(number % 256), number % 10

    return rows


def test_images_and_labels_keep_their_order(tmp_path):
    pixels, labels = data.prepared(tmp_path / "x", MNIST, 32, 20, source(20))
    assert pixels.shape == (20, 3, 32, 32) and pixels.dtype == torch.uint8
    assert pixels[:, 0, 0, 0].tolist() == list(range(20))
    assert labels.tolist() == [number % 10 for number in range(20)]


def test_decoding_goes_on_where_a_killed_run_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_STEP", 8)
    done = []

    def killed(count):
        done.append(count)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.prepared(tmp_path / "x", MNIST, 32, 50, source(50), progress=killed)
    again = []
    pixels, _ = data.prepared(tmp_path / "x", MNIST, 32, 50, source(50, again))
    assert again == list(range(24, 50))
    assert pixels[:, 0, 0, 0].tolist() == list(range(50))
    more = []
    data.prepared(tmp_path / "x", MNIST, 32, 50, source(50, more))
    assert not more  # nothing is left to decode


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="macOS cannot reserve blocks")
def test_the_disk_is_taken_before_the_first_image_and_a_full_one_is_named(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        with pytest.raises(FileError, match=r"pixels.npy: cannot be written \(No space left on device\); make room"):
            data.prepared(tmp_path / "x", MNIST, 32, 20, source(20))
    assert len(data.prepared(tmp_path / "x", MNIST, 32, 20, source(20))[0]) == 20


def test_only_the_wanted_rows_are_kept(tmp_path):
    pixels, labels = data.prepared(tmp_path / "x", MNIST, 32, 30, source(30), wanted=[3, 17, 29])
    assert pixels[:, 0, 0, 0].tolist() == [3, 17, 29] and labels.tolist() == [3, 7, 9]


def test_validation_is_a_tenth_of_training_the_same_each_time():
    first, again, other = (data.chosen(400, "validation", BY_NAME[name]) for name in ("MNIST", "MNIST", "DTD"))
    assert first == again != other and len(first) == len(set(first)) == 40
    assert len(data.chosen(10**6, "validation", MNIST)) == VALIDATION
    assert data.chosen(400, "test", MNIST) is None


def test_files_with_fewer_images_than_they_promise_and_wrong_labels_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"ylecun/mnist: holds 5 of the 9 images that its files promise"):
        data.prepared(tmp_path / "x", MNIST, 32, 9, source(5))
    with pytest.raises(DTSError, match=r"has labels from 0 to 9, PCAM has 2 classes"):
        data.prepared(tmp_path / "y", BY_NAME["PCAM"], 32, 20, source(20))


def test_test_images_that_were_trained_on_are_counted():
    view = data.crop(32)
    test = torch.stack([view(picture(value)) for value in (1, 2, 3, 4)])
    assert data.leaked(test, map(picture, (9, 3, 8)), 32) == 1
    assert data.leaked(test, map(picture, (7, 8)), 32) == 0


# --- torchvision ---


def test_torchvision_gives_the_same_interface(tmp_path, clip):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 255, (7, 28, 28), dtype=np.uint8)
    for name, count in (("train", 7), ("t10k", 7)):
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + bytes(range(count)))
    suite = clip(torchvision=tmp_path)
    pixels, labels = suite.images("MNIST", "test")
    assert pixels.shape == (7, 3, 32, 32) and labels.tolist() == list(range(7))
    assert suite.identity("MNIST", "test")["data"] == "torchvision MNIST"
    assert Repo(MNIST.repo, "dataset") not in suite.wanted_files()


def test_a_set_that_torchvision_lacks_or_the_folder_lacks_is_named(tmp_path):
    with pytest.raises(DTSError, match="DTD: torchvision has no data set with the same splits"):
        data.from_torchvision(BY_NAME["DTD"], "test", tmp_path)
    with pytest.raises(FileError, match="holds no MNIST"):
        data.from_torchvision(MNIST, "test", tmp_path)
