"""Checkpoints that ``torch.save`` wrote, read without running a line of what is in them.

Training scripts save state dicts beside their settings; the first checkpoints of task arithmetic (arXiv 2212.04089) and
of TALL masks (arXiv 2405.07813) are whole modules, pickled: loading them as usual imports and calls whatever the file
names. Here each name stands either for a tensor, for a plain container, or for an inert placeholder that holds
attributes and does nothing; any other name is refused.
"""

import io
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from dts_mini.core.errors import FileError
from dts_mini.core.file import mistaken, read_bytes

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
# Classes of these modules may stand in a pickled CLIP, or beside a state dict; they become placeholders, their code is
# never looked at.
_MODULES = ("torch.nn.", "open_clip.", "clip.", "src.", "torchvision.transforms.", "torch._C._nn.", "__main__.")
_BESIDE = (
    "numpy.",
    "argparse.",
    "pathlib.",
    "datetime.",
    "omegaconf.",
    "lightning.",
    "pytorch_lightning.",
    "transformers.",
)
_BESIDE += ("collections.defaultdict", "collections.Counter", "types.SimpleNamespace", "_codecs.encode")
_PLAIN = {
    f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("list", "dict", "int", "float", "str")
}
_NO_WEIGHTS = re.compile("optim|sched|scaler|rng|grad|loss|metric", re.IGNORECASE)
_WEIGHTS = re.compile("state_dict|model|module|net|weight|param|ema|average|shadow|swa", re.IGNORECASE)
_MOST = 1_000_000  # containers and tensors: beyond it a file refers to itself again and again
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}


class _Inert:
    """What a pickled object of an allowed module becomes: its attributes, and nothing that could be called."""

    def __new__(cls, *args: object, **named: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    __setitem__ = append = extend = lambda self, *args: None  # what pickle may call beside


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, storage, what: str) -> None:
        super().__init__(io.BytesIO(data))
        self.storage, self.what = storage, what
        self.held: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return OrderedDict
        if full in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return _tensor
        if full == "torch._utils._rebuild_parameter":
            return lambda data, *rest: data
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype | torch.device):
            return found
        if full in ("builtins.set", "__builtin__.set"):
            return set
        if full.startswith(_MODULES + _BESIDE) or full in _PLAIN:
            return _Inert
        raise FileError(
            f"{self.what}: asks for {full}, which is no part of a checkpoint, and was not run; "
            "do not load this file by other means, get it from another source"
        )

    def persistent_load(self, pid: tuple) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise FileError(f"{self.what}: holds a {kind!r} that is no tensor storage; it was not read")
        if key not in self.held:  # views of one storage share it
            data = self.storage(key)
            self.held[key] = (
                torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype, device="cpu")
            )
        if self.held[key].dtype != dtype or len(self.held[key]) != count:
            raise FileError(f"{self.what}: a tensor has other bytes than {count} values take; copy the file again")
        return self.held[key]


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *rest: object) -> Tensor:
    """A view of a storage; one of more elements than the storage has would be laid out by the first who uses it."""
    found = storage.as_strided(size, stride, offset)
    if found.numel() > max(len(storage), 1):
        raise ValueError(f"a tensor of {found.numel():,} elements in {len(storage):,} values")
    return found


def load_pickle(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file that ``torch.save`` wrote, by name: of a state dict, or of a pickled module.

    Of a training file they are those of its state dict; where there are several, as weights beside their moving
    average, ``key`` says which. Raises FileError where it does not, and for a file that is missing, no such archive
    (PyTorch before 1.6 wrote another format), damaged, or that asks for anything beyond tensors, CLIP's own modules,
    and what training scripts save beside weights. No code of the file is ever run.
    """
    what = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            (program,) = [name for name in names if name.endswith("/data.pkl")]
            if (
                f"{program.removesuffix('data.pkl')}byteorder" in names
                and archive.read(f"{program.removesuffix('data.pkl')}byteorder") != b"little"
            ):
                raise FileError(f"{what}: was written on a big-endian machine; convert it to safetensors there")
            if squeezed := [
                entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED
            ]:
                raise FileError(f"{what}: {squeezed[0]} is compressed, as torch.save never does; save it again")
            if sum(entry.file_size for entry in archive.infolist()) > Path(path).stat().st_size:
                raise FileError(f"{what}: says that it holds more than its own bytes; copy it again")
            storage = lambda key: archive.read(f"{program.removesuffix('data.pkl')}data/{key}")
            text = archive.read(program)
            _check(text)
            found = _Unpickler(text, storage, what).load()
            tensors = dict(islice(_tensors(_weights(found, what, key)), _MOST + 1))
    except FileNotFoundError as error:
        raise FileError(f"{what}: there is no such file; check the path") from error
    except FileError:
        raise
    except Exception as error:  # the file decides what is built of what, so that anything can come of it
        if isinstance(error, zipfile.BadZipFile) and (other := mistaken(read_bytes(path)[:64])) and "LFS" in other:
            raise FileError(f"{what}: {other}") from error
        raise FileError(
            f"{what}: is no checkpoint of PyTorch 1.6 or newer, or is damaged ({error}); copy it again"
        ) from error
    if not tensors:
        raise FileError(f"{what}: holds no tensors; is it a checkpoint?")
    return tensors


def _check(program: bytes) -> None:
    """ValueError for a pickle that asks for memory which it does not fill, as no ``torch.save`` does."""
    for code, argument, _ in pickletools.genops(program):
        if code.name in ("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4", "INST", "OBJ"):
            raise ValueError(f"its pickle has a {code.name}")
        if code.name in ("PUT", "LONG_BINPUT") and argument > len(program):
            raise ValueError(f"its pickle notes {argument:,} objects in {len(program):,} bytes")


def _weights(found: object, what: str, key: str | None) -> object:
    """What of a training file is the model: its one group of weights, or that of the key."""
    if not isinstance(found, dict):
        return found
    groups = {str(name): held for name, held in found.items() if isinstance(held, dict | _Inert)}
    groups = {name: held for name, held in groups.items() if next(_tensors(held), None) is not None}
    if key is not None and key not in groups:
        raise FileError(f"{what}: has no weights under {key!r}; there are {', '.join(map(repr, groups)) or 'none'}")
    if key is not None:
        return groups[key]
    named = {name: held for name, held in groups.items() if not _NO_WEIGHTS.search(name)}
    if any(
        isinstance(held, Tensor) for held in found.values()
    ):  # beside a state dict there are numbers, in one modules
        named = {name: held for name, held in named.items() if _WEIGHTS.search(name) and "." not in name}
    if len(named) > 1:
        listed = ", ".join(map(repr, named))
        raise FileError(
            f"{what}: holds more than one set of weights: {listed}; say which by saving it alone, as in "
            f"save_tensors(load_pickle({Path(what).name!r}, key={next(iter(named))!r}), 'model.safetensors')"
        )
    return next(iter(named.values())) if named else found


def _tensors(found: object, prefix: str = "", room: list[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a state dict, or of a module that became a placeholder."""
    room = [_MOST] if room is None else room  # a dict that holds another twice, which holds another twice, has no end
    room[0] -= 1
    if room[0] < 0:
        raise ValueError(f"it has more than {_MOST:,} containers")
    if isinstance(found, dict):
        for name, value in found.items():
            if isinstance(value, Tensor):
                yield prefix + str(name), value
            elif isinstance(value, dict | _Inert):
                yield from _tensors(value, f"{prefix}{name}.", room)
    elif isinstance(found, _Inert):
        held = vars(found)
        for group in ("_parameters", "_buffers"):
            yield from _tensors(held.get(group) or {}, prefix, room)
        for name, module in (held.get("_modules") or {}).items():
            yield from _tensors(module, f"{prefix}{name}.", room)
