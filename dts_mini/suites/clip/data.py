"""Images of the real suite: read from the files of the Hub, cropped as CLIP crops, kept on disk as bytes.

Each split is decoded once, into one uint8 array (n, 3, h, w) that is mapped into memory, not read: a tower makes
floating numbers of it batch by batch. A run that was killed while decoding goes on with the next image.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import xxhash
from PIL import Image
from torch import Tensor
from torchvision import datasets as torchvision_datasets
from torchvision.transforms import v2

from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import read_bytes, write_json
from dts_mini.suites.clip.names import ClipTask
from dts_mini.suites.hub import Hub, Repo, check_space, split_files
from dts_mini.suites.streams import held_out

_STEP = 256  # images that are decoded at once, and lost at most when a run is killed


def files_of(hub: Hub, task: ClipTask, split: str) -> list[tuple[Repo, str]]:
    """The files of a split (``train`` or ``test``), in order; FileError when the repository has none."""
    name, ending = task.test if split == "test" else "train", ".tar" if task.format == "webdataset" else ".parquet"
    return split_files(hub, Repo(task.repo, "dataset"), name, task.config, ending)


def class_names(hub: Hub, task: ClipTask) -> tuple[str, ...]:
    """The class names in the order of the labels: the task's own, else the data set's; DTSError for a wrong count."""
    names = task.classes
    if not names:
        from datasets import Features
        from pyarrow.parquet import read_schema

        schema = read_schema(hub.fetch(*files_of(hub, task, "test")[0]))
        label = Features.from_arrow_schema(schema).get(task.label)
        names = tuple(name.replace("_", " ") for name in getattr(label, "names", None) or ())
    if len(names) != task.number:
        raise DTSError(
            f"{task.repo}: its column {task.label!r} names {len(names)} classes, {task.name} has {task.number}; "
            "pin the commit that the checkpoints were made with"
        )
    return names


def count(paths: Iterable[Path], task: ClipTask) -> int:
    """How many images the files of a split hold, without decoding one."""
    if task.format == "parquet":
        from pyarrow.parquet import read_metadata

        return sum(read_metadata(path).num_rows for path in paths)
    total = 0
    for path in paths:
        with tarfile.open(path) as archive:
            total += sum(name.endswith(f".{task.image}") for name in archive.getnames())
    return total


def rows_of(paths: Iterable[Path], task: ClipTask, skip: int = 0) -> Iterator[tuple[bytes, int]]:
    """Encoded images and labels of files of the Hub, from row ``skip``; DTSError when a column is missing."""
    from datasets import Image as ImageColumn
    from datasets import load_dataset

    table = load_dataset(task.format, data_files=[str(path) for path in paths], split="train", streaming=True)
    columns = table.column_names or list(next(iter(table)))
    for column in (task.image, task.label):
        if column not in columns:
            raise DTSError(f"{task.repo}: has no column {column!r}, only {', '.join(columns)}")
    for row in table.cast_column(task.image, ImageColumn(decode=False)).skip(skip):
        yield row[task.image]["bytes"], int(row[task.label])


def crop(size: int) -> Callable[[bytes | Image.Image], Tensor]:
    """CLIP's view of an image: RGB, the shorter side ``size`` (bicubic), the middle square; uint8 (3, size, size)."""
    transform = v2.Compose([v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(size), v2.PILToTensor()])

    def view(image: bytes | Image.Image) -> Tensor:
        opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
        return transform(opened.convert("RGB"))

    return view


def chosen(count: int, split: str, task: ClipTask) -> list[int] | None:
    """The rows of ``validation`` within the training split: a seeded draw; None for a split that is taken whole."""
    if split != "validation":
        return None
    return held_out(count, "clip", task.name, "validation")


def prepared(
    folder: Path, task: ClipTask, size: int, count: int,
    rows: Callable[[int], Iterator[tuple[bytes | Image.Image, int]]],
    wanted: list[int] | None = None, progress: Callable[[int], None] = lambda n: None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Pixels uint8 (n, 3, size, size), mapped from ``folder``, and labels int64 (n,).

    ``rows(start)`` gives the split's images and labels from one on; ``wanted`` are the rows to keep (default: all
    ``count``). What an earlier, killed run decoded is not decoded again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels, labels, state = folder / "pixels.npy", folder / "labels.npy", folder / "done.json"
    keep = list(range(count)) if wanted is None else wanted
    done = json.loads(read_bytes(state))["done"] if state.exists() else 0
    if done < len(keep):
        if not done:
            check_space(len(keep) * 3 * size * size, folder)
            _reserved(pixels, np.uint8, (len(keep), 3, size, size))
            _reserved(labels, np.int64, (len(keep),))
        maps, view = (np.load(path, mmap_mode="r+") for path in (pixels, labels)), crop(size)
        images, answers = maps
        with ThreadPoolExecutor() as pool:
            for batch in _batches(rows, keep[done:]):
                encoded, found = zip(*batch, strict=True)
                images[done : done + len(batch)] = torch.stack(list(pool.map(view, encoded))).numpy()
                answers[done : done + len(batch)] = found
                done += len(batch)
                images.flush(), answers.flush()
                write_json({"done": done}, state, overwrite=True)
                progress(len(batch))
        if done < len(keep):
            raise FileError(
                f"{task.repo}: holds {done} of the {len(keep)} images that its files promise; fetch it again"
            )
    found = torch.from_numpy(np.load(labels))
    if found.min() < 0 or found.max() >= task.number:
        raise DTSError(
            f"{task.repo}: has labels from {found.min()} to {found.max()}, {task.name} has {task.number} classes"
        )
    return torch.from_numpy(np.load(pixels, mmap_mode="c")), found


def _reserved(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    """Makes an array on disk, its blocks taken: a disk that fills up under a mapped file kills the process."""
    try:
        np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror}); make room, or choose another --out") from error


def _batches(rows: Callable[[int], Iterator], keep: list[int]) -> Iterator[list]:
    start, batch, wanted = keep[0], [], set(keep)
    for number, row in enumerate(rows(start), start):
        if number in wanted:
            batch.append(row)
        if len(batch) == _STEP or (batch and number == keep[-1]):
            yield batch
            batch = []
        if number == keep[-1]:
            return
    if batch:
        yield batch


def from_torchvision(task: ClipTask, split: str, root: str | Path) -> torch.utils.data.Dataset:
    """The same images from ``torchvision.datasets`` under ``root``, which must hold them, else DTSError."""
    if not task.torchvision:
        raise DTSError(f"{task.name}: torchvision has no data set with the same splits; take it from the Hub")
    make = getattr(torchvision_datasets, task.torchvision)
    which = {"split": split} if task.torchvision in ("SVHN", "GTSRB", "PCAM") else {"train": split == "train"}
    try:
        return make(root, **which)
    except RuntimeError as error:
        raise FileError(
            f"{root}: holds no {task.torchvision} ({error}); put it there, or take it from the Hub"
        ) from error


def leaked(test: Tensor, train: Iterable[bytes], size: int) -> int:
    """How many test images (uint8 pixels) stand in the training split as well, pixel for pixel after cropping."""
    view, seen = crop(size), set()
    for image in train:
        seen.add(xxhash.xxh3_128(view(image).numpy().tobytes()).digest())
    return sum(xxhash.xxh3_128(one.numpy().tobytes()).digest() in seen for one in test)
