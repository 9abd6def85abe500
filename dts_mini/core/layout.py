"""What of a changed tensor a method codes by itself: its pieces, and the parts that put pieces together again.

A piece is a matrix without its frozen rows and columns, one matrix of a stack, or a whole tensor of other dimensions.
What did not change costs no codes, and comes back as it was.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from dts_mini.core.codes import read_places, write_places
from dts_mini.core.parts import Part, Reader, Unchanged, Writer
from dts_mini.core.state import State

Convolutions = Literal["flat", "matrix"]
_SQUARES = 1e-15, 1e14  # between them sums of squares fit into float32


@dataclass(frozen=True, eq=False)
class Piece:
    """``shape``: as a method gets it; ``sides`` (m, n): of the whole matrix, if it is one.

    ``index``: which matrix of a stack; ``rows``, ``columns`` (int32): those that changed, where not all did.
    ``wide``: its values are so small or large that their squares do not fit into float32: float64 is for them.
    """

    name: str
    shape: torch.Size
    sides: tuple[int, int] | None = None
    index: int | None = None
    rows: Tensor | None = None
    columns: Tensor | None = None
    wide: bool = False

    @property
    def key(self) -> str:
        """Its own name: the tensor's, with the number of the matrix in a stack."""
        return self.name if self.index is None else f"{self.name}[{self.index}]"

    def difference(self, base: State, expert: State) -> Tensor:
        """expert - base in the piece's shape, in float32 or better."""
        one, other = (state[self.name].detach() for state in (base, expert))
        if self.index is not None:
            one, other = (tensor.reshape(-1, *tensor.shape[-2:])[self.index] for tensor in (one, other))
        x = difference(one, other)
        x = x.double() if self.wide else x
        if self.sides is None:
            return x
        x = x.reshape(self.sides)
        x = x if self.rows is None else x[self.rows.long()]
        return x if self.columns is None else x[:, self.columns.long()].contiguous()

    def placed(self, part: Part) -> Part:
        """The part of the whole matrix, from that of the piece."""
        return (
            part if self.rows is None and self.columns is None else Submatrix(part, self.sides, self.rows, self.columns)
        )

    def within(self, part: Part) -> Part:
        """The piece's part, from the tensor's: what ``joined`` did, undone."""
        if self.index is not None and isinstance(part, Stack):
            part = part.parts[self.index]
        return part.part if isinstance(part, Submatrix) else part


def pieces_of(name: str, x: Tensor, stacked: bool, convolutions: Convolutions, frozen: bool) -> dict[str, Piece]:
    """The pieces of a difference that is not zero; with ``frozen`` its rows and columns of zeros are left out."""
    low, high = x.aminmax()
    wide = x.dtype != torch.float64 and not _SQUARES[0] < max(-low.item(), high.item()) < _SQUARES[1]
    if stacked and x.dim() > 2:
        matrices = list(enumerate(x.reshape(-1, *x.shape[-2:])))
    elif x.dim() == 2 or (x.dim() > 2 and convolutions == "matrix"):
        matrices = [(None, x.reshape(len(x), -1))]
    else:
        return {name: Piece(name, x.shape, wide=wide)}
    pieces = {}
    for index, matrix in matrices:
        changed = [(matrix != 0).any(dim) for dim in (1, 0)] if frozen else []
        places = [None if some.all() else torch.nonzero(some).flatten().int().cpu() for some in changed] or [None, None]
        shape = [n if some is None else len(some) for n, some in zip(matrix.shape, places, strict=True)]
        if all(shape) or index is None:  # a matrix of a stack that did not change has no piece
            piece = Piece(name, torch.Size(shape), tuple(matrix.shape), index, *places, wide)
            pieces[piece.key] = piece
    return pieces


def joined(pieces: list[Piece], parts: Mapping[str, Part], shape: torch.Size) -> Part:
    """The part of a tensor, from those of its pieces; one without a part stays the base's."""
    placed = {piece.index: piece.placed(parts[piece.key]) for piece in pieces if piece.key in parts}
    if pieces[0].index is None:
        return placed.get(None, Unchanged())
    count = shape[:-2].numel()
    parts = tuple(placed.get(i, Unchanged()) for i in range(count))
    return Stack(parts, tuple(shape[-2:])) if placed else Unchanged()


@torch.no_grad()
def difference(base: Tensor, expert: Tensor, block: int = 2**20) -> Tensor:
    """expert - base in float32 or better, with room for one copy and one tensor as it is stored, not for three.

    Where the expert is stored in fewer bits than the base, an element that only was rounded did not change.
    """
    dtype = expert.dtype
    x = expert.to(torch.promote_types(dtype, torch.float32), copy=True).contiguous()
    rounded = is_rounded(base.dtype, dtype)
    for part, other in zip(x.view(-1).split(block), base.reshape(-1).split(block), strict=True):
        if rounded:
            same = only_rounded(other, part, dtype)
            part.sub_(other.to(part)).masked_fill_(same, 0)
        else:
            part.sub_(other.to(part))
    return x


def is_rounded(base: torch.dtype, expert: torch.dtype) -> bool:
    """Whether an expert of one dtype is stored in fewer bits than a base of the other, and so was rounded.

    >>> is_rounded(torch.float32, torch.bfloat16), is_rounded(torch.bfloat16, torch.float32)
    (True, False)
    """
    return torch.promote_types(base, expert) != expert


def only_rounded(base: Tensor, expert: Tensor, dtype: torch.dtype) -> Tensor:
    """Which elements (bool) of an expert that is stored in ``dtype`` are the base's, rounded: training left them alone.

    ``expert``: its values, in float32 or better.
    """
    return expert == base.to(dtype).to(expert)


@dataclass(frozen=True, eq=False)
class Submatrix(Part):
    """A matrix (m x n) of which some rows and columns alone changed: ``part`` is theirs, ``rows`` and ``columns``
    (int32) say where they stand, None where all did.
    """

    arguments: ClassVar[Any] = Annotated[list[str | int | float], Meta(min_length=3)]
    part: Part
    sides: tuple[int, int]
    rows: Tensor | None
    columns: Tensor | None

    def restore(self) -> Tensor:
        rows, columns = self._places()
        x = torch.zeros(self.sides, dtype=torch.float32, device="cpu")
        x[rows[:, None], columns] = self.part.restore().reshape(len(rows), len(columns))
        return x

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """A (m x r) and B (r x n), zero in the rows and columns that did not change."""
        if (found := self.part.factors()) is None:
            return None
        (a, b), (rows, columns) = found, self._places()
        left, right = a.new_zeros(self.sides[0], a.shape[1]), b.new_zeros(b.shape[0], self.sides[1])
        left[rows], right[:, columns] = a, b
        return left, right

    def _places(self) -> tuple[Tensor, Tensor]:
        every = (
            torch.arange(n, device="cpu") if some is None else some.long()
            for n, some in zip(self.sides, (self.rows, self.columns), strict=True)
        )
        return tuple(every)

    def write(self, writer: Writer) -> list:
        counts = [
            -1 if some is None else write_places(writer, some, n)
            for n, some in zip(self.sides, (self.rows, self.columns), strict=True)
        ]
        return [type(self.part).__name__, *counts, *self.part.write(writer)]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Submatrix":
        (kind, *counts), sides = arguments[:3], reader.sides(shape)
        if not all(type(n) is int and -1 <= n <= side for n, side in zip(counts, sides, strict=True)):
            raise reader.fault(f"is said to have changed in {counts} of {sides} rows and columns")
        places = [None if n < 0 else read_places(reader, n, side) for n, side in zip(counts, sides, strict=True)]
        inner = tuple(side if n < 0 else n for n, side in zip(counts, sides, strict=True))
        return cls(_of_matrix(reader, inner, kind, arguments[3:]), sides, *places)

    @property
    def rank(self) -> int:
        return self.part.rank

    @property
    def bits(self) -> int:
        places = zip(self.sides, (self.rows, self.columns), strict=True)
        return self.part.bits + sum(min(n, 32 * len(some)) for n, some in places if some is not None)

    @property
    def paper_bits(self) -> int | None:
        """As of the whole matrix: the paper's code leaves nothing out."""
        return None if self.part.paper_bits is None else self.rank * (3 * sum(self.sides) + 32)


@dataclass(frozen=True, eq=False)
class Stack(Part):
    """Matrices (each m x n) that lie in one tensor, as mixtures of experts store them, each by itself."""

    arguments: ClassVar[Any] = tuple[Annotated[list[str | int | float], Meta(min_length=1)], ...]
    parts: tuple[Part, ...]
    sides: tuple[int, int]

    def restore(self) -> Tensor:
        blank = torch.zeros(torch.Size(self.sides).numel(), dtype=torch.float32, device="cpu")
        return torch.cat([blank if (x := part.restore()) is None else x.flatten() for part in self.parts])

    def write(self, writer: Writer) -> list:
        return [[type(part).__name__, *part.write(writer)] for part in self.parts]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Stack":
        sides = shape[-2:]
        if len(shape) < 3 or len(arguments) != math.prod(shape[:-2]):
            raise reader.fault(f"is said to hold {len(arguments):,} matrices, with shape {shape}")
        parts = (_of_matrix(reader, sides, kind, more, Submatrix, Unchanged) for kind, *more in arguments)
        return cls(tuple(parts), sides)

    @property
    def bits(self) -> int:
        return sum(part.bits for part in self.parts)

    @property
    def paper_bits(self) -> int | None:
        counts = [part.paper_bits for part in self.parts]
        return None if None in counts else sum(counts)


def _of_matrix(reader: Reader, sides: tuple[int, int], kind: str, arguments: Sequence, *more: type[Part]) -> Part:
    """The part of one matrix, which a method made, or one of the kinds ``more``."""
    known = Part.kinds.get(kind, Part)
    if not known.of_matrix and known not in more:
        raise reader.fault(f"holds a matrix as {kind!r}")
    return reader.part(kind, sides, arguments)
