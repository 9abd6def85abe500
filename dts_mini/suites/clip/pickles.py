"""Old checkpoints that are pickled modules, read without running a line of what is in them.

The first checkpoints of task arithmetic (arXiv 2212.04089) and of TALL masks (arXiv 2405.07813) are whole modules,
pickled: loading them as usual imports and calls whatever the file names. Here each name stands either for a tensor,
for a plain container, or for an inert placeholder that holds attributes and does nothing; any other name is refused.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from dts_mini.core.errors import FileError

# Classes of these modules may stand in a pickled CLIP; they become placeholders, their code is never looked at.
_MODULES = ("torch.nn.", "open_clip.", "clip.", "src.", "torchvision.transforms.", "torch._C._nn.", "__main__.")
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
        if full.startswith(_MODULES):
            return _Inert
        raise FileError(
            f"{self.what}: asks for {full}, which is no part of a CLIP checkpoint, and was not run; "
            "do not load this file by other means, get it from another source"
        )

    def persistent_load(self, pid: tuple) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise FileError(f"{self.what}: holds a {kind!r} that is no tensor storage; it was not read")
        data = self.storage(key)
        if len(data) != count * dtype.itemsize:
            raise FileError(f"{self.what}: a tensor has {len(data)} bytes for {count} values; copy the file again")
        return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *rest: object) -> Tensor:
    return storage.as_strided(size, stride, offset)


def load_pickle(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file that ``torch.save`` wrote, by name: of a state dict, or of a pickled module.

    Raises FileError for a file that is missing, no such archive (PyTorch before 1.6 wrote another format), damaged, or
    that asks for anything beyond tensors and CLIP's own modules. No code of the file is ever run.
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
            storage = lambda key: archive.read(f"{program.removesuffix('data.pkl')}data/{key}")
            found = _Unpickler(archive.read(program), storage, what).load()
    except FileNotFoundError as error:
        raise FileError(f"{what}: there is no such file; check the path") from error
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError, TypeError, pickle.UnpicklingError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"{what}: is no checkpoint of PyTorch 1.6 or newer, or is damaged ({error}); copy it again"
        ) from error
    tensors = dict(_tensors(found))
    if not tensors:
        raise FileError(f"{what}: holds no tensors; is it a checkpoint?")
    return tensors


def visual(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower of such a checkpoint under open_clip's names: what stands below ``visual.``, in float32."""
    found = {name.split("visual.", 1)[1]: t.float() for name, t in tensors.items() if "visual." in name}
    if not found:
        raise FileError("the checkpoint has no image tower: no tensor of it is called visual.*")
    return found


def _tensors(found: object, prefix: str = ""):
    """Names and tensors of a state dict, or of a module that became a placeholder."""
    if isinstance(found, dict):
        for name, value in found.items():
            if isinstance(value, Tensor):
                yield prefix + str(name), value
            elif isinstance(value, dict | _Inert):
                yield from _tensors(value, f"{prefix}{name}.")
    elif isinstance(found, _Inert):
        held = vars(found)
        for group in ("_parameters", "_buffers"):
            yield from _tensors(held.get(group) or {}, prefix)
        for name, module in (held.get("_modules") or {}).items():
            yield from _tensors(module, f"{prefix}{name}.")
