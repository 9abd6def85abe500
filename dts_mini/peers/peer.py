"""What every peer of DTS hands back, and how its bytes are counted: its file, and a share of a common one."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from dts_mini.core.budget import fit, largest
from dts_mini.core.delta import TaskDelta, rebuild
from dts_mini.core.errors import DTSError, StateError
from dts_mini.core.frame import Frame
from dts_mini.core.parts import Part, Reader, Writer
from dts_mini.core.state import State, exactly, fingerprint

DENSITIES = 20_000
"""How many densities a budget chooses among."""


@dataclass(frozen=True)
class Peer:
    """A delta for each task, and what all tasks share, if anything.

    ``base``: what the deltas are added to, theta_0, or zeros where the expert itself is compressed. ``shared``: a
    file that every task needs beside its own.
    """

    base: State
    deltas: dict[str, TaskDelta]
    shared: TaskDelta | None = None

    @exactly
    def rebuild(self, task: str) -> dict[str, Tensor]:
        """The approximate expert of a task; DTSError for one that is not there."""
        if task not in self.deltas:
            raise DTSError(f"task {task!r} is unknown: choose one of {', '.join(self.deltas)}")
        delta = self.deltas[task]
        parts = {
            name: part.join(self._shared(delta, name, part)) if isinstance(part, Relative) else part
            for name, part in delta.parts.items()
        }
        return rebuild(self.base, replace(delta, parts=parts))

    def _shared(self, delta: TaskDelta, name: str, part: "Relative") -> Part:
        """The shared file's part of a tensor; StateError where it is of another model."""
        shared = self.shared
        if shared is None or shared.base != delta.base or shared.shapes.get(name) != delta.shapes[name]:
            raise StateError(f"tensor {name!r}: the shared file is not the one that the delta was made with; pass that")
        if not (isinstance(shared.parts[name], part.over) and part.fits(shared.parts[name])):
            raise StateError(f"tensor {name!r}: the shared file keeps it otherwise than the delta; pass its own")
        return shared.parts[name]

    def bytes_per_task(self) -> dict[str, float]:
        """Bytes that each task takes: see the function of that name."""
        return bytes_per_task(self.deltas, self.shared)


def bytes_per_task(deltas: Mapping[str, TaskDelta], shared: TaskDelta | None = None) -> dict[str, float]:
    """Bytes on disk that each of N tasks takes: its own file, and the N-th part of the file that all share."""
    common = len(shared.to_bytes()) / len(deltas) if shared else 0.0
    return {task: len(delta.to_bytes()) + common for task, delta in deltas.items()}


class Relative(Part):
    """A part that is read against the shared file's part of the same tensor, which is an ``over``."""

    over: ClassVar[type[Part]] = Part

    def fits(self, shared: Part) -> bool:
        """Whether the two go together, their tensors being of one shape."""
        return True

    def join(self, shared: Part) -> Part:
        """The part that both are together."""
        raise NotImplementedError

    def restore(self) -> Tensor:
        raise DTSError("this delta is one half of its tensors: rebuild it through its Peer, with the shared file")


@dataclass(frozen=True, eq=False)
class Half(Part):
    """A difference in half precision, flat."""

    values: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Half":
        return cls(x.reshape(-1).half().cpu())

    def restore(self) -> Tensor:
        return self.values.float()

    def write(self, writer: Writer) -> list:
        writer.add("halves", self.values)
        return []

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Half":
        return cls(reader.take("halves", math.prod(shape)))

    @property
    def bits(self) -> int:
        return 16 * self.values.numel()


def frames(base: State, experts: Mapping[str, State]) -> dict[str, Frame]:
    """A frame for each task; StateError for state dicts that do not fit each other or half precision."""
    if not experts:
        raise DTSError("there are no experts; pass a dict of task names and state dicts")
    made = {task: Frame(base, expert, frozen=False, what=f"expert of {task!r}") for task, expert in experts.items()}
    for task, frame in made.items():
        for name, x in frame.items():
            if x.abs().max() > torch.finfo(torch.float16).max:
                raise StateError(f"expert of {task!r}, tensor {name!r}: the difference is too large for half precision")
    return made


def names_of(made: Mapping[str, Frame]) -> list[str]:
    """The tensors that some task changes."""
    return sorted({name for frame in made.values() for name in frame})


def shared_delta(base: State, parts: Mapping[str, Part], method: str, settings: Mapping | None = None) -> TaskDelta:
    """The file that all tasks share: parts of those tensors that some task changes."""
    shapes, dtypes = {n: tuple(base[n].shape) for n in parts}, {n: base[n].dtype for n in parts}
    return TaskDelta(dict(parts), shapes, dtypes, method, dict(settings or {}), fingerprint(base), "")


@dataclass(frozen=True)
class Ranked:
    """A task vector's tensors, flat, and the order of all their elements together, the largest magnitude first."""

    flat: dict[str, Tensor]
    order: Tensor

    @classmethod
    def of(cls, frame: Frame) -> "Ranked":
        flat = {name: x.reshape(-1).float().cpu() for name, x in frame.items()}
        every = torch.cat([torch.empty(0, dtype=torch.float32, device="cpu"), *(x.abs() for x in flat.values())])
        return cls(flat, every.argsort(descending=True, stable=True))

    @property
    def elements(self) -> int:
        return len(self.order)

    def largest(self, density: float) -> dict[str, Tensor]:
        """Which elements (n, bool) of each tensor are among the share ``density`` of all; no entry where none is."""
        kept = torch.zeros(self.elements, dtype=torch.bool, device="cpu")
        kept[self.order[: int(density * self.elements + 1e-9)]] = True
        masks = zip(self.flat, kept.split([len(x) for x in self.flat.values()]), strict=True)
        return {name: mask for name, mask in masks if mask.any()}


def densest(make: Callable[[float], TaskDelta], budget: int, elements: int, bits: int, most: float = 1.0) -> TaskDelta:
    """The delta of the largest density, in [0, ``most``], whose file is within the budget.

    ``bits``: what each of the ``elements`` takes that stays, beside its place. At a density d they take about
    n (H(d) + bits d) bits together: a first guess.
    """

    def about(step: int) -> int:
        d = step / DENSITIES
        places = -d * math.log2(d) - (1 - d) * math.log2(1 - d) if 0 < d < 1 else 0.0
        return int(elements * (places + bits * d) / 8)

    spare, steps = max(0, budget - len(make(0.0).to_bytes())), int(most * DENSITIES)
    return largest(lambda step: make(step / DENSITIES), budget, steps, fit(about, spare, steps, 0))


def prefix(costs: Iterable[float], spare: float) -> int:
    """How many of the costs, first to last, are within ``spare``."""
    count = 0
    for cost in costs:
        spare -= cost
        if spare < 0:
            break
        count += 1
    return count


def within(peer: Peer, made: Mapping[str, Frame], budget: int | str | None) -> Peer:
    """The peer of a method that has one size; DTSError where a budget is given and a task exceeds it."""
    if budget is not None:
        for task, size in peer.bytes_per_task().items():
            if size > (limit := made[task].budget(budget)):
                raise DTSError(f"a budget of {limit:,} bytes is too small: this method takes {size:,.0f} for {task!r}")
    return peer
