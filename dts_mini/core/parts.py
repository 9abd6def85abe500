"""What a delta holds of one tensor, and how that lies in a file.

A method adds its own kinds of ``Part``: a frozen dataclass that says how it is restored, how it is written and how it
is read back. Small pieces are gathered in a few big tensors, since an entry of a safetensors header costs 80 bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dts_mini.core.coding import Decoder, Encoder
from dts_mini.core.errors import FileError


class Part:
    """One tensor's share of a delta. Subclasses are known by their names, which files hold."""

    kinds: ClassVar[dict[str, type["Part"]]] = {}

    def __init_subclass__(cls) -> None:
        Part.kinds[cls.__name__] = cls

    def restore(self) -> Tensor | None:
        """What is added to the base's tensor, its elements in order; None where nothing is, or no difference."""
        return None

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """A (m x r) and B (r x n), float32, whose product is added to the base's matrix; None if it is not of low rank."""
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
    def bits(self) -> int:
        """Information: all that it holds, without a header."""
        return 0


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Unchanged(Part):
    """A tensor that equals the base's."""


@dataclass(frozen=True)
class Tied(Part):
    """A tensor that equals the tensor ``to``, in the base and in the expert."""

    to: str

    def write(self, writer: "Writer") -> list:
        return [self.to]

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Tied":
        return cls(arguments[0])


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
        return Bounds(*torch.tensor(self).mul(1.001).half().tolist())


class Writer:
    """The big tensors of a file, filled from its parts in order."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Tensor]] = {}
        self._encoder, self._rows = Encoder(), 0

    def add(self, name: str, piece: Tensor) -> None:
        self._pieces.setdefault(name, []).append(piece.reshape(-1))

    def add_integers(self, rows: Tensor) -> None:
        """Rows (k x n) of int16, to be entropy-coded."""
        self._encoder.add(rows)
        self._rows += len(rows)

    def tensors(self) -> dict[str, Tensor]:
        coded = {"integers": self._encoder.finish()} if self._rows else {}
        return {name: torch.cat(pieces) for name, pieces in self._pieces.items()} | coded

    @property
    def rows(self) -> int:
        """Entropy-coded rows so far."""
        return self._rows


class Reader:
    """The big tensors of a file, read in the order in which they were filled; ``settings`` are the file's."""

    def __init__(self, tensors: Mapping[str, Tensor], settings: Mapping, rows: int) -> None:
        self.settings = settings
        self._tensors = tensors
        self._place: dict[str, int] = {}
        self._decoder = Decoder(tensors["integers"], rows) if rows else None

    def take(self, name: str, count: int) -> Tensor:
        start = self._place.get(name, 0)
        self._place[name] = start + count
        return self._tensors[name][start : start + count] if count else torch.empty(0)

    def take_integers(self, rows: int, n: int) -> Tensor:
        """int16 (rows x n)."""
        return self._decoder.take(rows, n)


def part_kind(name: str, what: str) -> type[Part]:
    """The kind of part that the file ``what`` names; FileError when nothing that was imported knows it."""
    if name not in Part.kinds:
        raise FileError(f"{what}: holds parts of the kind {name!r}; import the package that wrote it first")
    return Part.kinds[name]
