"""One task's file but for what a method makes: two state dicts looked at, and their differences, piece by piece."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from dts_mini.core.budget import in_bytes
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError, StateError
from dts_mini.core.layout import Convolutions, Piece, difference, joined, pieces_of
from dts_mini.core.parts import Bounds, Exact, Kept, Part, Tied, Unchanged
from dts_mini.core.state import State, check_pair, examine, seals, some

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Yields the work's result for each job, in order, wherever it computes them; the builtin ``map`` does."""


class Frame(Mapping[str, Tensor]):
    """A task's delta without the parts that a method makes; as a mapping, the differences that it makes them of.

    A difference, expert - base in float32 or better, is made anew at each look. Integer and 0-D tensors are kept as
    they are; statistics, the vectors of ``spectral_norm`` and what ``keep`` names exactly as the expert has them; tied
    tensors stay tied, unchanged ones cost nothing. ``stacks`` names tensors that are stacks of matrices; both are
    patterns, as in "*.experts.*". ``pieces``: what is left to the method, in the tensors' name order, so that the order
    of a state dict does not change a file. ``model``: bytes of the expert in float32. StateError, naming the tensor,
    where one is not fit to be compressed.
    """

    def __init__(
        self,
        base: State,
        expert: State,
        mapper: Mapper = map,
        *,
        keep: Sequence[str] = (),
        stacks: Sequence[str] = (),
        convolutions: Convolutions = "flat",
        frozen: bool = True,
        what: str = "expert",
    ) -> None:
        self._states, self._mapper = (base, expert), mapper
        self._outline, vectors = check_pair(base, expert, what)
        chosen = [named(self._outline, patterns, o) for o, patterns in (("keep", keep), ("stacks", stacks))]
        chosen[0] |= vectors
        self._digests: dict[str, tuple[str, str]] = {}
        self.parts: dict[str, Part] = {}
        self.pieces: dict[str, Piece] = {}
        first: dict[tuple, str] = {}
        found = mapper(Look(base, expert, *chosen, convolutions, frozen, what), list(self._outline))
        for name, (digests, part) in zip(self._outline, found, strict=True):
            self._digests[name] = digests
            if not isinstance(part, Kept | Exact | Unchanged):  # of two that are equal, the second is tied to the first
                same = first.setdefault(digests, name)
                part = part if same == name else Tied(same)
            if isinstance(part, Part):
                self.parts[name] = part
            else:
                if clash := [key for key in part if key in self.pieces or (key in self._outline and key != name)]:
                    raise DTSError(f"stacks: a tensor is called {min(clash)!r}, as a matrix of a stack is; rename it")
                self.pieces |= part
        self._prints = seals(self._digests)
        counted = (tensor for name, tensor in self._outline.items() if not isinstance(self.parts.get(name), Tied))
        self.model = 4 * sum(tensor.numel() for tensor in counted)

    def __getitem__(self, key: str) -> Tensor:
        return self.pieces[key].difference(*self._states)

    def __iter__(self) -> Iterator[str]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)

    def map(self, work: Callable[..., Any], arguments: Mapping[str, tuple]) -> Iterator[tuple[str, Any]]:
        """(key, ``work(difference, *arguments[key])``) in order; ``work`` is a function of a module."""
        pieces = {key: self.pieces[key] for key in arguments}
        jobs = [Job(work, piece, arguments[key], self._digests[piece.name]) for key, piece in pieces.items()]
        return zip(arguments, self._mapper(OnDifference(*self._states), jobs), strict=True)

    def delta(
        self, method: str, parts: Mapping[str, Part], settings: Mapping, bounds: Mapping[str, Bounds] | None = None
    ) -> TaskDelta:
        """The task's delta from the parts of its pieces; what has no part stays the base's."""
        pieces: dict[str, list[Piece]] = {}
        for piece in self.pieces.values():
            pieces.setdefault(piece.name, []).append(piece)
        every = self.parts | {
            name: parts.get(name, Unchanged()) if _is_all(own) else joined(own, parts, self._outline[name].shape)
            for name, own in pieces.items()
        }
        every = {name: every[name] for name in self._outline}
        shapes = {name: tuple(tensor.shape) for name, tensor in self._outline.items()}
        dtypes = {name: tensor.dtype for name, tensor in self._outline.items()}
        known = {key: bound.stored() for key, bound in (bounds or {}).items() if key in every}
        return TaskDelta(every, shapes, dtypes, method, dict(settings), *self._prints, known)

    def negative(self, delta: TaskDelta) -> list[str]:
        """Tensors of one dimension that are nowhere negative, in the base nor in the expert, but rebuilt are: counts
        and variances whose names do not tell.
        """
        single = [name for name, piece in self.pieces.items() if len(piece.shape) == 1]
        return [name for name in single if self._turns_negative(name, delta.remainder(name))]

    def _turns_negative(self, name: str, remainder: Tensor | None) -> bool:
        if remainder is None:
            return False
        base, expert = (state[name].detach() for state in self._states)
        least = (base.to(remainder) + remainder).min()
        return bool(least < 0 <= base.min() and expert.min() >= 0)

    def keeping(self, names: Sequence[str]) -> "Frame":
        """The same frame, these tensors kept exactly."""
        kept = copy(self)
        kept.parts = self.parts | {name: Exact(self._states[1][name].detach().cpu().clone()) for name in names}
        kept.pieces = {key: piece for key, piece in self.pieces.items() if piece.name not in names}
        return kept

    def part_of(self, delta: TaskDelta, key: str) -> Part:
        """The part that a delta of this frame has for a piece, in the piece's shape."""
        return self.pieces[key].within(delta.parts[self.pieces[key].name])

    def budget(self, budget: int | str) -> int:
        """A budget in bytes: a number of them, or a share of the float32 expert, as in "1%"."""
        return in_bytes(budget, self.model)

    def advice(self) -> str:
        """What to do where no budget is met: which tensors it cannot make smaller, and the setting that can."""
        flat = [piece.name for piece in self.pieces.values() if piece.sides is None and len(piece.shape) > 2]
        deep = [
            name for name in {p.name for p in self.pieces.values() if p.index is None} if self._outline[name].dim() == 3
        ]
        words = ""
        if flat:
            words += f"; tensors of more than two dimensions are coded flat ({some(flat)}), whatever the budget"
            words += ": pass convolutions='matrix'"
        if deep:
            words += f"; if {some(sorted(deep))} is a stack of matrices, name it in stacks=[...]"
        if kept := [name for name, part in self.parts.items() if isinstance(part, Exact)]:
            words += f"; kept exactly: {some(kept)}"
        return words


@dataclass(frozen=True)
class Job:
    """Work on one piece of a difference. ``inputs``: the digests of the two tensors."""

    work: Callable[..., Any]
    piece: Piece
    arguments: tuple
    inputs: tuple[str, str]

    @property
    def name(self) -> str:
        """The piece's."""
        return self.piece.key

    @property
    def key(self) -> str:
        """All that the result depends on; of the arguments all that matters is in their ``repr``."""
        place = (self.piece.index, tuple(self.piece.shape), self.piece.sides)
        return f"{self.work.__module__}.{self.work.__qualname__} {self.inputs} {place} {self.arguments!r}"


@dataclass(frozen=True)
class OnDifference:
    """Does a job."""

    base: State
    expert: State

    def __call__(self, job: Job) -> Any:
        return job.work(job.piece.difference(self.base, self.expert), *job.arguments)


@dataclass(frozen=True)
class Look:
    """Of a tensor's name: its digests in base and expert, and its part where no method makes it, else its pieces."""

    base: State
    expert: State
    keep: frozenset[str]
    stacks: frozenset[str]
    convolutions: Convolutions
    frozen: bool
    what: str

    def __call__(self, name: str) -> tuple[tuple[str, str], Part | dict[str, Piece]]:
        kept = name in self.keep
        digests, same, statistic = examine(self.base, self.expert, name, self.what, any_value=kept)
        if same:
            return digests, Unchanged()
        base, expert = (state[name].detach().resolve_neg() for state in (self.base, self.expert))
        if kept or statistic or not expert.is_floating_point():
            return digests, (Exact if expert.is_floating_point() else Kept)(expert.cpu().clone())
        x = difference(base, expert)
        low, high = x.aminmax() if x.numel() else (x.new_zeros(()),) * 2
        if low == high == 0:
            return digests, Unchanged()
        length = torch.linalg.vector_norm(x, dtype=torch.float64).float()  # which singular values reach
        if not length.isfinite():
            raise StateError(f"tensor {name!r}: {self.what} - base does not fit into float32; check both values")
        if x.dim() == 0:
            return digests, Kept(x.cpu())
        return digests, pieces_of(name, x, name in self.stacks, self.convolutions, self.frozen)


def _is_all(pieces: list[Piece]) -> bool:
    """Whether a tensor is one piece, with nothing left out."""
    first = pieces[0]
    return first.index is None and first.rows is None and first.columns is None


def named(names: Iterable[str], patterns: Sequence[str], option: str) -> frozenset[str]:
    """The names that patterns fit, a name being itself whatever signs it holds; DTSError for one that fits none."""
    names, found = list(names), set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        fitting = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise DTSError(f"{option}: no tensor is called {pattern!r}; give names, or patterns as in '*.bias'")
        found.update(fitting)
    return frozenset(found)
