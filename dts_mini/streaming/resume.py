"""Work that a kill does not lose: what is finished is kept in a folder until the whole is."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dts_mini.core import container
from dts_mini.core.errors import FileError
from dts_mini.core.file import read_bytes, write_bytes
from dts_mini.core.frame import Job, Mapper
from dts_mini.core.state import seal


def resumable(folder: str | Path, mapper: Mapper = map) -> Mapper:
    """A ``mapper`` of ``compress`` that keeps every result in ``folder``, and does no work whose result is there.

        delta = compress(base, expert, mapper=resumable("large.parts"))  # after a kill it goes on

    Files are written at once or not at all; one that is damaged is made again. Results are tensors, numbers, strings,
    None, and tuples and dataclasses of this package that hold such.
    """
    folder = Path(folder)

    def kept(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        if not all(isinstance(job, Job) for job in jobs):  # a look at a tensor is not worth a file
            yield from mapper(work, jobs)
            return
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{seal({'job': job.key})}.safetensors" for job in jobs]
        there = [path.exists() for path in paths]
        new = iter(mapper(work, [job for job, done in zip(jobs, there, strict=True) if not done]))
        for job, path, done in zip(jobs, paths, there, strict=True):
            if done:
                try:
                    yield _read(path)
                    continue
                except FileError:
                    result = work(job)
            else:
                result = next(new)
            _write(result, path)
            yield result

    return kept


def _write(result: Any, path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    table = [_lay_out(result, tensors)]
    write_bytes(container.encode({"storage": {}}, table, tensors), path, overwrite=True)


def _read(path: Path) -> Any:
    _, (laid,), tensors = container.decode(read_bytes(path), str(path))
    return _pick_up(laid, tensors)


def _lay_out(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A result as JSON, its tensors put aside under numbers."""
    if isinstance(value, Tensor):
        tensors[number := str(len(tensors))] = value.detach().cpu().contiguous()
        return {"number": number, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, tuple) or is_dataclass(value):
        inner = value if isinstance(value, tuple) else [getattr(value, field.name) for field in fields(value)]
        return [type(value).__module__, type(value).__name__, *(_lay_out(field, tensors) for field in inner)]
    return value


def _pick_up(laid: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(laid, dict):
        dtype = getattr(torch, laid["dtype"])
        return tensors.get(
            laid["number"], torch.empty(laid["shape"], dtype=dtype, device="cpu")
        )  # files hold no empty tensors
    if isinstance(laid, list):
        module, name, *inner = laid
        values = [_pick_up(field, tensors) for field in inner]
        if module == "builtins":
            return tuple(values)
        kind = getattr(sys.modules.get(module), name, None) if module.startswith("dts_mini.") else None
        if not (is_dataclass(kind) or hasattr(kind, "_fields")):
            raise FileError(f"a kept result is of the kind {module}.{name}, which is none of ours; remove the folder")
        return kind(*values)
    return laid
