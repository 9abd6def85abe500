"""Work that a kill does not lose: what is finished is kept in a folder until the whole is."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

from dts_mini.core import container
from dts_mini.core.errors import FileError
from dts_mini.core.file import read_bytes, write_bytes
from dts_mini.core.frame import Job, Mapper
from dts_mini.core.state import seal

LEAST = 2**12
"""Elements of a piece from which on its result is kept: a smaller one is made anew as fast as it is read."""

_KEPT = re.compile(
    r"[0-9a-f]{32}\.safetensors|\.[0-9a-f]{32}\.safetensors\..*"
)  # a result, or one that a kill cut short


def resumable(folder: str | Path, mapper: Mapper = map) -> Mapper:
    """A ``mapper`` of ``compress`` that keeps every result in ``folder``, and does no work whose result is there.

        delta = compress(base, expert, mapper=resumable("large.parts"))  # after a kill it goes on

    Files are written at once or not at all, and say of which work they are; one that is damaged, or of other work, is
    made again. Results of pieces of less than 4,096 elements, which take no time, are not kept. Results are tensors,
    numbers, strings, None, and tuples and dataclasses of this package that hold such.
    """
    folder = Path(folder)

    def mapped(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        if not all(isinstance(job, Job) for job in jobs):  # a look at a tensor is not worth a file
            yield from mapper(work, jobs)
            return
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(f"{folder}: cannot be a folder of results ({error.strerror}); name another") from error
        paths = [folder / f"{seal({'job': job.key})}.safetensors" for job in jobs]
        kept = [job.piece.shape.numel() >= LEAST for job in jobs]
        there = [large and path.exists() for large, path in zip(kept, paths, strict=True)]
        new = iter(mapper(work, [job for job, done in zip(jobs, there, strict=True) if not done]))
        for job, path, done, large in zip(jobs, paths, there, kept, strict=True):
            if done:
                try:
                    yield _read(path, job.key)
                    continue
                except FileError:
                    result = work(job)
            else:
                result = next(new)
            if large:
                _write(result, path, job.key)
            yield result

    return mapped


def clear(folder: str | Path) -> None:
    """Removes what ``resumable`` has kept in a folder, and the folder, if nothing else lies there."""
    with suppress(OSError):
        for path in Path(folder).iterdir():
            if _KEPT.fullmatch(path.name):
                path.unlink()
        Path(folder).rmdir()


class _Note(Struct, forbid_unknown_fields=True):
    """What a kept result says of itself: of which work it is."""

    format: int
    job: str
    storage: dict[str, int]
    sha256: str


class _Laid(Struct, forbid_unknown_fields=True):
    """A tensor of a kept result: the name it has in the file, and what it is there or, if it is empty, would be."""

    number: str
    shape: container.Shape
    dtype: container.Word


def _write(result: Any, path: Path, key: str) -> None:
    tensors: dict[str, Tensor] = {}
    table = [_lay_out(result, tensors)]
    write_bytes(container.encode({"job": key, "storage": {}}, table, tensors), path, overwrite=True, flush=False)


def _read(path: Path, key: str) -> Any:
    note, table, tensors = container.decode(read_bytes(path), str(path), _Note)
    if note["job"] != key or len(table) != 1:
        raise FileError(f"{path}: is of other work; it is made again")
    return _pick_up(table[0], tensors, path)


def _lay_out(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A result as JSON, its tensors put aside under numbers."""
    if isinstance(value, Tensor):
        tensors[number := str(len(tensors))] = value.detach().cpu().contiguous()
        return {"number": number, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, tuple) or is_dataclass(value):
        inner = value if isinstance(value, tuple) else [getattr(value, field.name) for field in fields(value)]
        return [type(value).__module__, type(value).__name__, *(_lay_out(field, tensors) for field in inner)]
    return value


def _pick_up(laid: Any, tensors: dict[str, Tensor], path: Path) -> Any:
    if isinstance(laid, dict):
        try:
            what = msgspec.convert(laid, _Laid)
        except msgspec.ValidationError as error:
            raise FileError(f"{path}: holds no tensor where it should ({error}); it is made again") from error
        if 0 in what.shape:  # files hold no empty tensors
            return torch.empty(what.shape, dtype=container.WORDS[what.dtype], device="cpu")
        found = tensors.get(what.number)
        if found is None or (tuple(found.shape), found.dtype) != (what.shape, container.WORDS[what.dtype]):
            raise FileError(f"{path}: holds another tensor than it says; it is made again")
        return found
    if isinstance(laid, list):
        module, name = laid[:2] if len(laid) > 1 and all(isinstance(word, str) for word in laid[:2]) else ("", "")
        values = [_pick_up(field, tensors, path) for field in laid[2:]]
        if module == "builtins":
            return tuple(values)
        kind = getattr(sys.modules.get(module), name, None) if module.startswith("dts_mini.") else None
        names = [field.name for field in fields(kind)] if is_dataclass(kind) else getattr(kind, "_fields", None)
        if names is None or len(names) != len(values):
            raise FileError(
                f"{path}: holds a {module}.{name} of {len(values)} fields, which is none of ours; it is made again"
            )
        return kind(*values)
    return laid
