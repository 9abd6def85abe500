"""One task's file but for what a method makes: two state dicts looked at, and their differences, tensor by tensor."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dts_mini.core.budget import in_bytes
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import StateError
from dts_mini.core.parts import Bounds, Kept, Part, Tied, Unchanged
from dts_mini.core.state import State, examine, outline, seals

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Yields the work's result for each job, in order, wherever it computes them; the builtin ``map`` does."""


@dataclass(frozen=True)
class Job:
    """Work on one tensor's difference. ``inputs``: what its result depends on beside the function and ``arguments``."""

    work: Callable[..., Any]
    name: str
    arguments: tuple
    inputs: tuple[str, str]

    @property
    def key(self) -> str:
        """All that the result depends on: of the arguments all that matters is in their ``repr``."""
        return f"{self.work.__module__}.{self.work.__qualname__} {self.inputs} {self.arguments!r}"


class Frame(Mapping[str, Tensor]):
    """A task's delta without the parts that a method makes; as a mapping, the differences that it makes them of.

    A difference, expert - base in float32 or better, is made anew at each look. Integer and 0-D tensors are kept as
    they are, tied ones stay tied, unchanged ones cost nothing. ``shapes``: of the tensors left to the method, in name
    order, so that the order of a state dict does not change a file. ``parts``: those of the other tensors.
    ``model``: bytes of the expert in float32. StateError, naming the tensor, where one is not fit to be compressed.
    """

    def __init__(self, base: State, expert: State, mapper: Mapper = map) -> None:
        self._states, self._mapper = (base, expert), mapper
        self._outline = dict(sorted(outline(expert).items()))
        self._digests: dict[str, tuple[str, str]] = {}
        self.parts: dict[str, Part] = {}
        first: dict[tuple[str, str], str] = {}
        found = mapper(Examination(base, expert), list(self._outline))
        for name, (digests, part) in zip(self._outline, found, strict=True):
            self._digests[name] = digests
            if not isinstance(part, Unchanged) and first.setdefault(digests, name) != name:
                part = Tied(first[digests])
            if part is not None:
                self.parts[name] = part
        self.shapes = {name: tensor.shape for name, tensor in self._outline.items() if name not in self.parts}
        self._prints = seals(self._digests)
        counted = (tensor for name, tensor in self._outline.items() if not isinstance(self.parts.get(name), Tied))
        self.model = 4 * sum(tensor.numel() for tensor in counted)

    def __getitem__(self, name: str) -> Tensor:
        return difference(*self._states, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def map(self, work: Callable[..., Any], arguments: Mapping[str, tuple]) -> Iterator[tuple[str, Any]]:
        """(name, ``work(difference, *arguments[name])``) in order; ``work`` is a function of a module."""
        jobs = [Job(work, name, given, self._digests[name]) for name, given in arguments.items()]
        return zip(arguments, self._mapper(OnDifference(*self._states), jobs), strict=True)

    def delta(
        self, method: str, parts: Mapping[str, Part], settings: Mapping, bounds: Mapping[str, Bounds] | None = None
    ) -> TaskDelta:
        """The task's delta; a tensor without a part stays the base's."""
        known = {name: bound.stored() for name, bound in (bounds or {}).items()}
        every = {name: self.parts.get(name) or parts.get(name, Unchanged()) for name in self._outline}
        shapes = {name: tuple(tensor.shape) for name, tensor in self._outline.items()}
        dtypes = {name: tensor.dtype for name, tensor in self._outline.items()}
        return TaskDelta(every, shapes, dtypes, method, dict(settings), *self._prints, known)

    def budget(self, budget: int | str) -> int:
        """A budget in bytes: a number of them, or a share of the float32 expert, as in "1%"."""
        return in_bytes(budget, self.model)


@dataclass(frozen=True)
class Examination:
    """Of a tensor's name: its digests in base and expert, and its part where no method makes it, else None."""

    base: State
    expert: State

    def __call__(self, name: str) -> tuple[tuple[str, str], Part | None]:
        digests = examine(self.base, self.expert, name)
        return digests, Unchanged() if digests[0] == digests[1] else self._plain_part(name)

    def _plain_part(self, name: str) -> Part | None:
        if not outline(self.expert)[name].is_floating_point():
            return Kept(self.expert[name].detach().cpu().clone())
        x = difference(self.base, self.expert, name)
        low, high = x.aminmax() if x.numel() else (x.new_zeros(()),) * 2
        if low == high == 0:
            return Unchanged()
        if not (low.float().isfinite() and high.float().isfinite()):
            raise StateError(f"tensor {name!r}: expert - base does not fit into float32; check both values")
        return Kept(x.cpu()) if x.dim() == 0 else None


@dataclass(frozen=True)
class OnDifference:
    """Does a job."""

    base: State
    expert: State

    def __call__(self, job: Job) -> Any:
        return job.work(difference(self.base, self.expert, job.name), *job.arguments)


@torch.no_grad()
def difference(base: State, expert: State, name: str, block: int = 2**20) -> Tensor:
    """expert - base in float32 or better, with room for one copy and one tensor as it is stored, not for three."""
    x = expert[name].detach()
    x = x.to(torch.promote_types(x.dtype, torch.float32), copy=True).contiguous()
    for part, other in zip(x.view(-1).split(block), base[name].detach().reshape(-1).split(block), strict=True):
        part.sub_(other.to(part))
    return x
