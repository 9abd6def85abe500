"""Checkpoints on disk as state dicts: safetensors, in one file or in shards, read and written a tensor at a time.

``open_checkpoint(path)`` is a ``Mapping[str, Tensor]`` like any other state dict, so that what works on one works on
the other; a model larger than the memory goes through, one tensor after the other.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dts_mini.core.errors import FileError
from dts_mini.core.file import DTYPES, check_writable, mark, opened, places, read_json, save_tensors
from dts_mini.core.state import State
from dts_mini.streaming.folder import INDEX, WHOLE, companions, write_folder
from dts_mini.streaming.pickles import SUFFIXES, load_pickle
from dts_mini.streaming.remote import located

# Endings of what is meant to be a file: a folder of such a name would surprise.
_FILES = {
    *SUFFIXES,
    *[
        ".safetensors",
        ".safetensor",
        ".dts",
        ".gguf",
        ".onnx",
        ".h5",
        ".hdf5",
        ".keras",
        ".pb",
        ".tflite",
        ".npz",
        ".npy",
        ".pkl",
        ".pickle",
        ".msgpack",
    ],
    *[".json", ".txt", ".csv", ".zip", ".gz", ".tgz", ".tar", ".model"],
}
_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.(safetensors|bin)$")
_PICKLED = "is a model in pickled shards; open it with its own class, save_pretrained, and pass that folder"


class Checkpoint(Mapping[str, Tensor]):
    """A state dict whose tensors stay on disk: each is read whenever it is asked for, and forgotten after its use.

    ``outline``: meta tensors, from the files' headers. ``shards``: the names that each file holds, by file name.
    ``metadata``: what the first header says of itself. Pickled, it is its path: a worker opens the files anew.
    """

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self.outline: dict[str, Tensor] = {}
        self.shards: dict[str, list[str]] = {}
        self.metadata: dict[str, str] = {}
        self._place: dict[str, tuple[Path, int]] = {}  # the file that holds a tensor, and the byte where it begins
        self._marks: dict[Path, tuple] = {}
        for file in files:
            with opened(file) as handle:
                self.metadata = self.metadata or handle.metadata() or {}
                if "dts" in self.metadata:
                    raise FileError(f"{file}: is a task delta, no model; rebuild the model first (dts-mini rebuild)")
                self.shards[file.name] = list(handle.keys())
                self._marks[file] = mark(file)
            for name, (word, shape, start) in places(file).items():
                if name in self._place:
                    raise FileError(f"{file}: holds tensor {name!r}, and so does {self._place[name][0]}; remove one")
                self._place[name] = file, start
                self.outline[name] = _meta(word, shape, name, file)

    def __getitem__(self, name: str) -> Tensor:
        # Read from where it lies, the file opened anew: a header of 10,000 tensors is not to be parsed for each of
        # them, and what a handle has mapped counts as memory until the handle and its tensors are gone.
        (file, start), like = self._place[name], self.outline[name]
        if not like.numel():
            return torch.empty(like.shape, dtype=like.dtype, device="cpu")
        try:
            with open(file, "rb") as source:
                whole = mark(source.fileno()) == self._marks[file]
                source.seek(start)
                held = np.fromfile(source, np.uint8, like.nbytes) if whole else ()
        except OSError as error:
            raise FileError(f"{file}: cannot be read ({error.strerror}); check the path") from error
        if not whole or len(held) < like.nbytes:
            raise FileError(f"{file}: was changed since it was opened; run it again")
        return torch.from_numpy(held).view(like.dtype).view(like.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.outline)

    def __len__(self) -> int:
        return len(self.outline)

    def __reduce__(self) -> tuple:
        return open_checkpoint, (self.path,)


class Loaded(dict[str, Tensor]):
    """A state dict that a pickle held: in memory, but else as a ``Checkpoint``."""

    def __init__(self, path: Path) -> None:
        super().__init__(load_pickle(path))
        self.path, self.metadata = path, {"format": "pt"}
        self.outline = {name: tensor.to("meta") for name, tensor in self.items()}
        self.shards = {f"{path.stem}.safetensors": list(self)}

    def __reduce__(self) -> tuple:
        return open_checkpoint, (self.path,)


def open_checkpoint(path: str | Path) -> Checkpoint | Loaded:
    """Opens a checkpoint: a ``.safetensors`` file, an index (``.safetensors.index.json``), or a folder with either.

    Or what ``torch.save`` wrote (``.pt``, ``.pth``, ``.bin``, ``.ckpt``), without running any of it, at once into
    memory. Or, where there is no such path, a name on the Hub (``OWNER/NAME``, ``OWNER/NAME@REVISION``): what the
    repository holds, through huggingface_hub's cache. Of safetensors only headers are read. FileError names the file
    that is missing, damaged or short, or the tensor that the index and the shards disagree about; and a folder with an
    adapter in it, which is no model by itself.
    """
    path = located(path).absolute()
    if path.is_dir():
        check_unadapted(path)
    found = _in_folder(path) if path.is_dir() else path
    if _SHARD.search(found.name):
        raise FileError(f"{found}: is one shard of a model in several; pass their folder, {found.parent}, or the index")
    if found.suffix in SUFFIXES:
        return Loaded(found)
    if found.name.endswith(".bin.index.json"):
        raise FileError(f"{found}: {_PICKLED}")
    if not found.name.endswith(INDEX):
        return Checkpoint(path, [found])
    try:
        placed = read_json(found, "readable index of shards")["weight_map"]
        files = [found.parent / Path(name).name for name in sorted(set(placed.values()))]
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{found}: is no readable index of shards ({error!r}); copy it again") from error
    checkpoint = Checkpoint(path, files)
    for name, file in placed.items():
        if name not in checkpoint.shards[Path(file).name]:
            raise FileError(f"{found.parent / file}: lacks tensor {name!r}, which {found.name} promises; copy it again")
    if beyond := [name for name in checkpoint if name not in placed]:
        raise FileError(f"{found}: does not list tensor {beyond[0]!r} of its shards; copy the index again")
    return checkpoint


def save_checkpoint(
    state: State,
    path: str | Path,
    shards: Mapping[str, list[str]],
    *,
    metadata: Mapping[str, str] | None = None,
    beside: Mapping[str, Path] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a state dict as safetensors, one tensor at a time in memory.

    Into one file where ``path`` ends in ``.safetensors``; else into a folder, in files of the names and with the
    tensors of ``shards``, with an index where they are several, and with copies of the files ``beside``. What opens
    there, even after a kill, is the old model or the new one (``streaming.folder``). FileError when ``path`` exists and
    ``overwrite`` is not set, or cannot be written.
    """
    path = check_output(path, overwrite=overwrite)
    if path.suffix == ".safetensors":
        return save_tensors(state, path, metadata=metadata, overwrite=overwrite)
    write = lambda names, file: save_tensors(state, file, names=names, metadata=metadata)
    write_folder(state, path, shards, write, beside or {})
    return path


def check_output(path: str | Path, *, overwrite: bool = False) -> Path:
    """The path, once it is sure that a checkpoint may be put there: for a check before long work."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return check_writable(path, overwrite=overwrite)
    if path.suffix.lower() in _FILES and not path.is_dir():
        raise FileError(f"{path}: models are written as safetensors; name a .safetensors file, or a folder")
    if path.is_dir() and not overwrite:
        raise FileError(f"{path}: is a folder that exists already; pass --overwrite (overwrite=True) or name another")
    return path if path.is_dir() else check_writable(path)


def check_unadapted(folder: Path) -> None:
    """FileError for a folder with an adapter of peft, which its own class would open on top of the model."""
    if not (folder / "adapter_config.json").is_file():
        return
    merge = "merge it with peft (merge_and_unload), save that model, and pass its folder"
    if (folder / "config.json").is_file():
        raise FileError(
            f"{folder}: holds an adapter (adapter_config.json) beside a model, and transformers opens both together; "
            f"{merge}; or name the model's file, for the model alone"
        )
    raise FileError(f"{folder}: is an adapter, no model; make a delta of it by dts-mini import-lora, or {merge}")


def _in_folder(folder: Path) -> Path:
    """What its own class would open of a folder, or its only checkpoint; FileError when that is not clear."""
    if (folder / WHOLE).is_file():
        return folder / WHOLE
    found = sorted(folder.glob(f"*{INDEX}")) or sorted(folder.glob("*.safetensors"))
    found = found or sorted(folder.glob("pytorch_model*.bin"))
    if found and all(_SHARD.search(file.name) for file in found):
        if found[0].suffix == ".bin":
            raise FileError(f"{folder}: {_PICKLED}")
        raise FileError(f"{folder}: has shards ({found[0].name}) without their index (*{INDEX}); copy it whole again")
    if len(found) != 1:
        what = f"{len(found)} checkpoints ({', '.join(file.name for file in found[:3])})" if found else "no safetensors"
        raise FileError(f"{folder}: holds {what}; name the file")
    return found[0]


def beside(checkpoint: Checkpoint | Loaded) -> dict[str, Path]:
    """What lies beside a checkpoint that its own class reads: ``folder.companions`` of its folder."""
    return companions(checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent)


def _meta(word: str, shape: tuple[int, ...], name: str, file: Path) -> Tensor:
    """What a header says of a tensor, as a meta tensor."""
    if word not in DTYPES:
        mend = "dequantise the model first" if word[:2] in ("F4", "F6", "F8") else "convert it to float32"
        raise FileError(f"{file}, tensor {name!r}: {word} is not supported; {mend}")
    if math.prod(max(n, 1) for n in shape) >= 2**63:  # of an empty tensor any other side may be said
        raise FileError(f"{file}, tensor {name!r}: has shape {shape}, which no tensor has; copy it again")
    return torch.empty(shape, dtype=DTYPES[word], device="meta")
