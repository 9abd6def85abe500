"""What a delta holds of one tensor, and how that lies in a file.

A method adds its own kinds of ``Part``: a frozen dataclass that says how it is restored, how it is written and how it
is read back. Small pieces are gathered in a few big tensors, since an entry of a safetensors header costs 80 bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from dts_mini.core.errors import FileError


class Content:
    """A frozen dataclass whose fields may be tensors: equal by what it holds, bit for bit."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(_same(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))

    def __hash__(self) -> int:  # tensors have no hash of their content: what is equal shares this one
        return hash(type(self))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return torch.equal(*(x.contiguous().reshape(-1).view(torch.uint8) for x in (one, other)))
    return type(one) is type(other) and one == other


class Part(Content):
    """One tensor's share of a delta. Subclasses are known by their names, which files hold."""

    kinds: ClassVar[dict[str, type["Part"]]] = {}

    def __init_subclass__(cls) -> None:
        Part.kinds[cls.__name__] = cls

    def restore(self) -> Tensor | None:
        """What is added to the base's tensor, its elements in order; None where nothing is, or no difference."""
        return None

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """A (m x r) and B (r x n), float32, whose product is added to the base's matrix; None if there are none."""
        return None

    def write(self, writer: "Writer") -> list:
        """Puts its tensors into the writer; returns what reading needs beside the shape, for the table."""
        return []

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Part":
        """The part that ``write`` wrote."""
        return cls()

    @property
    def rank(self) -> int:
        """Components, of a part that has factors; 0 of others."""
        return 0

    @property
    def paper_bits(self) -> int | None:
        """Bits as the paper's code counts them; None of parts that its method does not make."""
        return None

    @property
    def bits(self) -> int:
        """Information: all that it holds, without a header."""
        return 0


@dataclass(frozen=True, eq=False)
class Kept(Part):
    """A 0-D difference, or an integer tensor of the expert, kept as it is."""

    value: Tensor

    def restore(self) -> Tensor | None:
        return self.value if self.value.is_floating_point() else None

    def write(self, writer: "Writer") -> list:
        writer.add("kept", self.value.reshape(-1).view(torch.uint8))
        return [str(self.value.dtype).removeprefix("torch.")]

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Kept":
        dtype = getattr(torch, arguments[0])
        held = reader.take("kept", torch.Size(shape).numel() * dtype.itemsize)
        return cls(held.clone().view(dtype).reshape(shape))

    @property
    def bits(self) -> int:
        return 8 * self.value.nbytes

    @property
    def paper_bits(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Exact(Part):
    """A floating tensor of the expert as it is: the statistics of a norm layer, or what a caller wants kept."""

    value: Tensor

    def write(self, writer: "Writer") -> list:
        writer.add("kept", self.value.contiguous().reshape(-1).view(torch.uint8))
        return [str(self.value.dtype).removeprefix("torch.")]

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Exact":
        return cls(Kept.read(reader, shape, *arguments).value)

    @property
    def bits(self) -> int:
        return 8 * self.value.nbytes

    @property
    def paper_bits(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Factors(Part):
    """A tensor of two or more dimensions as a matrix: scale * left (m x r) right (r x n), both kept as they are.

    It holds what others made, a LoRA adapter's for example; both factors have one floating dtype.
    """

    left: Tensor
    right: Tensor
    scale: float = 1.0

    def factors(self) -> tuple[Tensor, Tensor]:
        """scale * left (m x r) and right (r x n), float32."""
        return self.left.float() * self.scale, self.right.float()

    def restore(self) -> Tensor:
        a, b = self.factors()
        return a @ b

    def write(self, writer: "Writer") -> list:
        for side in (self.left, self.right):
            writer.add("kept", side.contiguous().reshape(-1).view(torch.uint8))
        return [self.rank, str(self.left.dtype).removeprefix("torch."), self.scale]

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Factors":
        rank, name, scale = arguments
        dtype, sides = getattr(torch, name), ((shape[0], rank), (rank, torch.Size(shape[1:]).numel()))
        take = lambda m, n: reader.take("kept", m * n * dtype.itemsize).clone().view(dtype).view(m, n)
        return cls(*(take(*side) for side in sides), scale)

    @property
    def rank(self) -> int:
        return self.right.shape[0]

    @property
    def bits(self) -> int:
        return 8 * (self.left.nbytes + self.right.nbytes) + 64


@dataclass(frozen=True, eq=False)
class Unchanged(Part):
    """A tensor that equals the base's."""

    @property
    def paper_bits(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Tied(Part):
    """A tensor that equals the tensor ``to``, in the base and in the expert."""

    to: str

    def write(self, writer: "Writer") -> list:
        return [self.to]

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Tied":
        return cls(arguments[0])

    @property
    def paper_bits(self) -> int:
        return 0


class Bounds(NamedTuple):
    """Errors of one matrix M in the Frobenius norm, as shares of ||M||.

    ``truncation``: of the rank alone, exact (Eckart and Young, 1936). ``coding``: an upper bound of what the stored
    factors add to it. ``error``: what was measured; it lies below truncation + coding.
    """

    truncation: float
    coding: float
    error: float

    def stored(self) -> "Bounds":
        """As a file holds them, in half precision, rounded up: bounds stay bounds."""
        return Bounds(*torch.tensor(self, dtype=torch.float32, device="cpu").mul(1.001).half().tolist())


class Stream(Protocol):
    """What several parts put together into one tensor of a file: a method's entropy code, for example."""

    rows: int

    def finish(self) -> Tensor:
        """Its bytes (uint8)."""


class Writer:
    """The big tensors of a file, filled from its parts in order."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Tensor]] = {}
        self._streams: dict[str, Stream] = {}

    def add(self, name: str, piece: Tensor) -> None:
        self._pieces.setdefault(name, []).append(piece.reshape(-1))

    def stream(self, name: str, make: Callable[[], Stream]) -> Any:
        """The stream of this name, made where there is none yet."""
        if name not in self._streams:
            self._streams[name] = make()
        return self._streams[name]

    def tensors(self) -> dict[str, Tensor]:
        """All of them, by name."""
        joined = {name: torch.cat(pieces) for name, pieces in self._pieces.items()}
        return joined | {name: stream.finish() for name, stream in self._streams.items()}

    @property
    def rows(self) -> int:
        """Rows in streams so far, which are told to those who read them."""
        return sum(stream.rows for stream in self._streams.values())


class Reader:
    """The big tensors of a file, read in the order in which they were filled; ``settings`` are the file's."""

    def __init__(self, tensors: Mapping[str, Tensor], settings: Mapping, rows: int) -> None:
        self.settings, self.rows = settings, rows
        self._tensors = tensors
        self._place: dict[str, int] = {}
        self._streams: dict[str, Any] = {}

    def take(self, name: str, count: int) -> Tensor:
        start = self._place.get(name, 0)
        self._place[name] = start + count
        return (
            self._tensors[name][start : start + count] if count else torch.empty(0, dtype=torch.float32, device="cpu")
        )

    def stream(self, name: str, open_: Callable[[Tensor, int], Any]) -> Any:
        """The stream of this name, opened by ``open_(bytes, rows)`` where it is read from for the first time."""
        if name not in self._streams:
            self._streams[name] = open_(self._tensors[name], self.rows)
        return self._streams[name]


def part_kind(name: str, what: str) -> type[Part]:
    """The kind of part that the file ``what`` names; FileError when nothing that was imported knows it."""
    if name not in Part.kinds:
        raise FileError(f"{what}: holds parts of the kind {name!r}; import the package that wrote it first")
    return Part.kinds[name]
