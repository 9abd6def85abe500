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
from collections.abc import Callable, Iterable, Iterator
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
_BESIDE += (
    "torch.Size",
    "torch.serialization._get_layout",
    "torch.torch_version.",
    "torch.optim.",
    "torch.distributed.",
)
_BESIDE += ("torchao.", "bitsandbytes.")
_PLAIN = {
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("list", "dict", "int", "float", "str", "complex", "bytes", "bytearray", "frozenset", "slice", "range")
} | {"__builtin__.xrange"}
_NO_WEIGHTS = re.compile("optim|sched|scaler|rng|grad|loss|metric", re.IGNORECASE)
_WEIGHTS = re.compile("state_dict|model|module|net|weight|param|ema|average|shadow|swa", re.IGNORECASE)
_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that its files begin with, pickled
_MOST = 1_000_000  # containers and tensors: beyond it a file refers to itself again and again
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,  # beside it the file says the dtype: of 8-bit floats and all that came later
}
_STORAGES |= dict.fromkeys(("QInt8Storage", "QUInt8Storage", "QInt32Storage"), torch.uint8)
_STORAGES |= dict.fromkeys(("QUInt4x2Storage", "QUInt2x4Storage"), torch.uint8)
# Tensors that are no plain ones, by what would rebuild them: why they are not read, and what to save instead.
_ODD = {
    "torch._utils._rebuild_sparse_tensor": "is sparse; save its to_dense()",
    "torch._utils._rebuild_nested_tensor": "is nested, tensors in a tensor; save each under a name of its own",
    "torch._utils._rebuild_qtensor": "holds codes of quantised weights; save the float model, or its dequantize()",
    "torch._utils._rebuild_meta_tensor_no_storage": "is a meta tensor without values; load the weights, then save them",
    "torch._utils._rebuild_wrapper_subclass": "keeps its values in other tensors; save its full_tensor(), dequantize() "
    "or the like",
    "torch.nn.parameter.UninitializedParameter": "has no values yet; run the model once, then save it",
    "torch.nn.parameter.UninitializedBuffer": "has no values yet; run the model once, then save it",
}
_ODD |= {
    f"torch._utils._rebuild_{name}": "lies on a device of its own kind; save its cpu()"
    for name in ("device_tensor_from_cpu_tensor", "device_tensor_from_numpy", "xla_tensor")
}
_ODD |= {
    f"numpy.{name}": "is an array of numpy, no tensor; save torch.from_numpy of it"
    for name in ("core.multiarray._reconstruct", "_core.multiarray._reconstruct")
    + ("core.numeric._frombuffer", "_core.numeric._frombuffer")
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


class _Odd(_Inert):
    """What stands for a tensor that is no plain one: it is refused if it is among the weights, by its name."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __setstate__(self, state: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, storage, what: str) -> None:
        super().__init__(io.BytesIO(data))
        self.storage, self.what = storage, what
        self.held: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        if full in _BUILT:
            return _BUILT[full]
        if full in _ODD:
            return lambda *args: _Odd(_ODD[full])
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and isinstance(
            found := getattr(torch, name, None), torch.dtype | torch.device | torch.qscheme
        ):
            return found
        if full.startswith(_MODULES + _BESIDE) or full in _PLAIN:
            return _Inert
        raise FileError(
            f"{self.what}: asks for {full}, which is no part of a checkpoint, and was not run; "
            "do not load this file by other means, get it from another source, or its weights alone as safetensors"
        )

    def persistent_load(self, pid: tuple) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise FileError(f"{self.what}: holds a {kind!r} that is no tensor storage; it was not read")
        if key not in self.held:  # views of one storage share it
            data, like = self.storage(key), {"dtype": torch.uint8}
            self.held[key] = torch.frombuffer(bytearray(data), **like) if data else torch.empty(0, device="cpu", **like)
        if len(self.held[key]) != count * dtype.itemsize:
            raise FileError(f"{self.what}: a tensor has other bytes than {count} values take; copy the file again")
        return self.held[key].view(dtype)


def _tensor(
    storage: Tensor,
    offset: int,
    size: tuple,
    stride: tuple,
    needs_grad: bool = False,
    hooks: object = None,
    marks: dict | None = None,
) -> Tensor | _Odd:
    """A view of a storage, negated or conjugated where the file marks it so."""
    found = storage.as_strided(size, stride, offset)
    if found.numel() > max(len(storage), 1):  # the first who used it would lay all that out
        return _Odd(f"repeats {len(storage):,} values to {found.numel():,}; save its contiguous()")
    marked = {mark for mark, on in (marks or {}).items() if on}
    if unknown := sorted(map(str, marked - {"conj", "neg"})):
        return _Odd(f"is marked {unknown[0]!r}, which is not known here; save its clone()")
    found = found.conj() if "conj" in marked else found
    return torch._neg_view(found) if "neg" in marked else found


def _tensor_of_bytes(storage: Tensor, offset: int, size: tuple, stride: tuple, *rest: object) -> Tensor | _Odd:
    """The same of a storage of bytes, where the dtype stands beside it."""
    *plain, dtype, marks = rest if len(rest) == 4 else (*rest, None)
    return _tensor(storage.view(dtype), offset, size, stride, *plain, marks)


class _Plain(_Inert):
    """Stands for the class of plain tensors."""


def _of_class(rebuild: Callable, kind: object, args: tuple, state: object) -> object:
    """A tensor with attributes, or of a class of its own."""
    return rebuild(*args) if kind is _Plain else _Odd(_ODD["torch._utils._rebuild_wrapper_subclass"])


# What is built of the parts of a pickle, by the names that torch.save writes.
_BUILT = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch.Tensor": _Plain,
    "torch.nn.parameter.Parameter": _Plain,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *rest: data,
    "torch._tensor._rebuild_from_type_v2": _of_class,
}


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
            (program,) = [name for name in names if name.endswith("/data.pkl")] or [""]
            if not program or f"{program.removesuffix('data.pkl')}constants.pkl" in names:
                raise FileError(f"{what}: is a program of torch.jit or torch.export, or other; save its state_dict()")
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
            tensors = _named(islice(_tensors(_weights(found, what, key)), _MOST + 1), what)
    except FileNotFoundError as error:
        raise FileError(f"{what}: there is no such file; check the path") from error
    except FileError:
        raise
    except Exception as error:  # the file decides what is built of what, so that anything can come of it
        if isinstance(error, zipfile.BadZipFile):
            head = read_bytes(path)[:64]
            if head.startswith(_BEFORE_1_6):
                raise FileError(
                    f"{what}: is of PyTorch before 1.6; open it by torch.load(..., weights_only=True), save it again"
                ) from error
            if (other := mistaken(head)) and "is a pickle" not in other:
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
        if code.name in ("NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4", "INST", "OBJ"):
            raise ValueError(f"its pickle has a {code.name}")
        if code.name in ("PUT", "LONG_BINPUT") and argument > len(program):
            raise ValueError(f"its pickle notes {argument:,} objects in {len(program):,} bytes")


def _named(found: Iterable[tuple[str, "Tensor | _Odd"]], what: str) -> dict[str, Tensor]:
    """Tensors by name; FileError for one that is no plain tensor, or whose name another has."""
    tensors = {}
    for name, tensor in found:
        if isinstance(tensor, _Odd):
            raise FileError(f"{what}, tensor {name!r}: {tensor.why}")
        if name in tensors:
            raise FileError(f"{what}, tensor {name!r}: two have this name; give each a name of its own, and save again")
        tensors[name] = tensor
    return tensors


def _weights(found: object, what: str, key: str | None) -> object:
    """What of a training file is the model: its one group of weights, or that of the key."""
    if not isinstance(found, dict):
        return found
    groups = {str(name): held for name, held in found.items() if isinstance(held, dict | _Inert)}
    groups = {name: held for name, held in groups.items() if next(_tensors(held), (None, held))[0]}
    flat = {str(name): held for name, held in found.items() if isinstance(held, Tensor | _Odd)}
    named = {name: held for name, held in groups.items() if not _NO_WEIGHTS.search(name)}
    if flat:  # beside a state dict there are numbers, in one modules
        named = {name: held for name, held in named.items() if _WEIGHTS.search(name) and "." not in name}
        known = {name for held in named.values() for name, _ in _tensors(held)}
        if any("." in name or name in known for name in flat):  # they are weights themselves
            groups[""] = flat
            named |= {"": flat} if named else {}
    if key is not None:
        if key not in groups:
            raise FileError(f"{what}: has no weights under {key!r}; there are {', '.join(map(repr, groups)) or 'none'}")
        return groups[key]
    if len(named) > 1:
        listed = ", ".join(map(repr, named)) + (" (beside the others)" if "" in named else "")
        raise FileError(
            f"{what}: holds more than one set of weights: {listed}; say which by saving it alone, as in "
            f"save_tensors(load_pickle({Path(what).name!r}, key={next(iter(named))!r}), 'model.safetensors')"
        )
    return next(iter(named.values())) if named else {n: x for n, x in found.items() if not _is_beside(n, x)}


def _is_beside(name: object, held: object) -> bool:
    """Whether something beside weights is what an optimiser or a training keeps."""
    return not isinstance(held, Tensor) and _NO_WEIGHTS.search(str(name)) is not None and "." not in str(name)


def _tensors(found: object, prefix: str = "", room: list[int] | None = None) -> Iterator[tuple[str, "Tensor | _Odd"]]:
    """Names and tensors of a state dict, or of a module that became a placeholder."""
    room = [_MOST] if room is None else room  # a dict that holds another twice, which holds another twice, has no end
    room[0] -= 1
    if room[0] < 0:
        raise ValueError(f"it has more than {_MOST:,} containers")
    if isinstance(found, dict):
        for name, value in found.items():
            if isinstance(value, Tensor | _Odd):
                yield prefix + str(name), value
            elif isinstance(value, dict | _Inert):
                yield from _tensors(value, f"{prefix}{name}.", room)
            elif isinstance(value, list | tuple) and any(isinstance(x, Tensor) and x.dim() for x in value):
                yield prefix + str(name), _Odd("is a list of tensors without names; save each under a name of its own")
    elif isinstance(found, _Inert):
        held = vars(found)
        for group in ("_parameters", "_buffers"):
            own = held.get(group) or {}
            unsaved = held.get("_non_persistent_buffers_set") or ()
            yield from _tensors({name: x for name, x in own.items() if name not in unsaved}, prefix, room)
        for name, module in (held.get("_modules") or {}).items():
            yield from _tensors(module, f"{prefix}{name}.", room)
