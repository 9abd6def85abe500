"""Many experts over one module, by the names of their tasks, within a bound on memory."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from dts_mini.core.container import decode
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import mark, read_bytes
from dts_mini.serving.expert import Base, Expert
from dts_mini.serving.live import check_batch, run

SUFFIX = ".dts.safetensors"


@dataclass
class _Entry:
    """One task: where its file lies, and what of it is in memory. The lock is held while it is read and decoded."""

    path: Path
    mark: tuple | None = None  # of the file when it was read: another one has another
    data: bytes | None = None
    expert: Expert | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Server:
    """Runs a module as any of many experts, whose deltas lie in files; nothing ever writes to the module.

    A task is held as its file's bytes, and decoded when it is asked for: an ``Expert`` takes some fifteen times as
    much. Files and experts in memory never take more than ``memory`` bytes beside the module: the experts that were
    used least recently go first, then the files, which are read again when they are needed. What a request that is
    still running uses stays until it ends, and is not counted.

    A file that is replaced is noticed at the next request for its task, which is then served from the new one, or
    refused. One that is removed is missed when it is to be read again.

    Any number of threads may call it at the same time.
    """

    def __init__(self, module: nn.Module, files: Mapping[str, str | Path] | str | Path, *, memory: int) -> None:
        """``files``: by task name, or a folder of ``TASK.dts.safetensors``. ``memory``: bytes, at least 1.

        Raises FileError and StateError, before anything is served, for a file that cannot be read or was made for
        another base.
        """
        if not isinstance(memory, Real) or not memory >= 1:  # NaN is neither less nor more
            raise DTSError(f"memory is {memory!r}: give a number of bytes, at least 1")
        self.memory = memory
        self.base = Base(module)
        self.base.check_live()
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        for task, path in (files if isinstance(files, Mapping) else in_folder(files)).items():
            self.add(task, path)

    def add(self, task: str, path: str | Path) -> None:
        """Serves a task from a file, instead of its old one if it had any; raises as the constructor does."""
        if not (isinstance(task, str) and isinstance(path, str | PathLike)):
            raise DTSError(f"task {task!r} with {type(path).__name__}: give a name and the path of a delta's file")
        entry = self._read(path)
        with self._lock:
            self._entries[task] = entry
            self._entries.move_to_end(task)
            self._evict()

    def _read(self, path: str | Path) -> _Entry:
        mark = _mark(path)  # before it is read: what is written meanwhile is noticed later
        data = read_bytes(path)
        manifest, table, _ = decode(data, str(path))
        kinds = {name: (kind, rest) for name, kind, _, _, _, *rest in table}
        self.base.check_outline({name: tuple(shape) for name, _, shape, *_ in table}, manifest["base"], str(path))
        roots = {name: rest[0] if kind == "Tied" else name for name, (kind, rest) in kinds.items()}
        changed = {name: root for name, root in roots.items() if kinds[root][0] != "Unchanged"}
        self.base.check_ties(changed, roots.keys(), str(path))
        return _Entry(Path(path), mark, data)

    def remove(self, task: str) -> None:
        """Serves a task no longer; DTSError when it is unknown."""
        self._entry(task)
        with self._lock:
            self._entries.pop(task, None)

    @property
    def tasks(self) -> list[str]:
        with self._lock:
            return sorted(self._entries)

    @property
    def held(self) -> int:
        """Bytes of files and experts in memory."""
        with self._lock:
            return self._held()

    def __call__(self, tasks: str | Sequence[str], *args, **kwargs) -> Any:
        """The module's output as the expert of one task, or with a task for each sample of the batch.

        As ``live.run``, whose conditions on mixed batches hold. DTSError, before any expert is decoded, for an unknown
        task and for a list that has not a task for each sample.
        """
        alone = isinstance(tasks, str)
        if not alone:
            if not (isinstance(tasks, Sequence) and all(isinstance(task, str) for task in tasks)):
                raise DTSError(f"tasks is {tasks!r}: give the name of a task, or a list with one for each sample")
            check_batch(len(tasks), args, kwargs)
        each = dict.fromkeys([tasks] if alone else tasks)
        for task in each:
            self._entry(task)
        experts = {task: self.expert(task) for task in each}
        try:
            return run(experts[tasks] if alone else [experts[task] for task in tasks], *args, **kwargs)
        finally:
            with self._lock:
                self._evict()  # an expert may have laid out matrices that have no side path

    def expert(self, task: str) -> Expert:
        """The decoded expert, from memory or from its file; DTSError for an unknown task."""
        entry = self._entry(task)
        if (mark := _mark(entry.path)) is not None and mark != entry.mark:
            fresh = self._read(entry.path)
            with self._lock:
                if self._entries.get(task) is entry:
                    self._entries[task] = fresh
            return self.expert(task)
        with entry.lock:
            expert, data = entry.expert, entry.data
            if expert is None:
                data = read_bytes(entry.path) if data is None else data
                expert = Expert(self.base, TaskDelta.from_bytes(data, str(entry.path)))
            with self._lock:
                if self._entries.get(task) is entry:  # not replaced meanwhile
                    entry.data, entry.expert = data, expert
                    self._entries.move_to_end(task)
                    self._evict()
        return expert

    def _entry(self, task: str) -> _Entry:
        with self._lock:
            if task not in self._entries:
                known = ", ".join(sorted(self._entries)[:8]) or "none"
                raise DTSError(
                    f"task {task!r} is unknown; served are {known}{', ...' if len(self._entries) > 8 else ''}"
                )
            return self._entries[task]

    def _held(self) -> int:
        return sum(len(e.data or b"") + (e.expert.nbytes if e.expert else 0) for e in self._entries.values())

    def _evict(self) -> None:
        """Experts from the least recently used on, then files, until the bound holds."""
        over = self._held() - self.memory
        for what in ("expert", "data"):
            for entry in self._entries.values():
                if over <= 0:
                    return
                if (held := getattr(entry, what)) is not None:
                    over -= held.nbytes if what == "expert" else len(held)
                    setattr(entry, what, None)


def _mark(path: str | Path) -> tuple | None:
    """What tells a file from one that has taken its place; None for no file."""
    try:
        return mark(path)
    except OSError:
        return None


def in_folder(folder: str | Path) -> dict[str, Path]:
    """The deltas of a folder by task, a file's name without ``.dts.safetensors``; FileError when it has none."""
    found = {path.name.removesuffix(SUFFIX): path for path in sorted(Path(folder).glob(f"*{SUFFIX}"))}
    if not found:
        raise FileError(f"{folder}: holds no file *{SUFFIX}; give the folder that dts-mini compress wrote to")
    return found
