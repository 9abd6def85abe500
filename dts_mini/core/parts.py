"""What a delta holds of one tensor, and how that lies in a file.

A method adds its own kinds of ``Part``: a frozen dataclass that says how it is restored, how it is written and how it
is read back. Small pieces are gathered in a few big tensors, since an entry of a safetensors header costs 80 bytes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec
import torch
from torch import Tensor

from dts_mini.core.container import WORDS, Rank, Word
from dts_mini.core.errors import FileError
from dts_mini.core.registry import Registry

TENSORS = {"values": torch.float32, "halves": torch.float16, "zeros": torch.int32}
"""The big tensors of a file that hold numbers, with their dtypes; those of all other names hold bytes."""
_FREE, _RATIO = (
    2**27,
    2**10,
)  # elements that take hardly a byte, as those of masks: so many of any file, and a byte of it
_FLOAT32 = torch.finfo(torch.float32).max


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
    """One tensor's share of a delta. Subclasses that can be read are known by their names, which files hold.

    ``arguments``: of what types ``write`` returns what for the table. ``of_matrix``: whether it codes a matrix by
    itself, so that it may be one of several in a tensor.
    """

    kinds: ClassVar[dict[str, type["Part"]]] = Registry()
    arguments: ClassVar[Any] = tuple[()]
    of_matrix: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if cls.read.__func__ is not Part.read.__func__:
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
        """The part that ``write`` wrote, of arguments of those types; FileError where the file does not hold it."""
        raise NotImplementedError

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
class _Value(Part):
    """A tensor that lies in the file as it is."""

    arguments: ClassVar[Any] = tuple[Word]
    value: Tensor

    def write(self, writer: "Writer") -> list:
        return [writer.keep(self.value)]

    @property
    def bits(self) -> int:
        return 8 * self.value.nbytes

    @property
    def paper_bits(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Kept(_Value):
    """A 0-D difference, or an integer tensor of the expert, kept as it is."""

    def restore(self) -> Tensor | None:
        return self.value if self.value.is_floating_point() else None

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Kept":
        value = reader.kept(WORDS[arguments[0]], shape)
        if not value.is_floating_point() and value.dtype == reader.dtype:
            return cls(value)
        if not (value.is_floating_point() and reader.dtype.is_floating_point):
            raise reader.fault(f"keeps {value.dtype} for {reader.dtype}")
        return cls(reader.finite(value))


@dataclass(frozen=True, eq=False)
class Exact(_Value):
    """A floating tensor of the expert as it is: the statistics of a norm layer, or what a caller wants kept."""

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Exact":
        value = reader.kept(WORDS[arguments[0]], shape)  # which may be infinite, as a mask is
        if not (value.is_floating_point() and reader.dtype.is_floating_point):
            raise reader.fault(f"keeps {value.dtype} for {reader.dtype}")
        return cls(value)


@dataclass(frozen=True, eq=False)
class Factors(Part):
    """A tensor of two or more dimensions as a matrix: scale * left (m x r) right (r x n), both kept as they are.

    It holds what others made, a LoRA adapter's for example; both factors have one floating dtype.
    """

    arguments: ClassVar[Any] = tuple[Rank, Word, float]
    of_matrix: ClassVar[bool] = True
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
        word, _ = writer.keep(self.left), writer.keep(self.right)
        return [self.rank, word, self.scale]

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Factors":
        (rank, word, scale), (m, n) = arguments, reader.sides(shape)
        left, right = (reader.kept(WORDS[word], side) for side in ((m, rank), (rank, n)))
        for factor in (left, right, torch.tensor(scale, dtype=torch.float64, device="cpu")):
            if not factor.is_floating_point():
                raise reader.fault(f"has factors of {factor.dtype}")
            reader.finite(factor)
        return cls(left, right, scale)

    @property
    def rank(self) -> int:
        return self.right.shape[0]

    @property
    def bits(self) -> int:
        return 8 * (self.left.nbytes + self.right.nbytes) + 64


@dataclass(frozen=True, eq=False)
class Unchanged(Part):
    """A tensor that equals the base's."""

    @classmethod
    def read(cls, reader: "Reader", shape: tuple[int, ...], *arguments) -> "Unchanged":
        return cls()

    @property
    def paper_bits(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Tied(Part):
    """A tensor that equals the tensor ``to``, in the base and in the expert."""

    arguments: ClassVar[Any] = tuple[str]
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


class Source(Protocol):
    """A stream that is read back: it hands out no more than there is."""

    def close(self) -> None:
        """FileError where something is left over."""


class Writer:
    """The big tensors of a file, filled from its parts in order."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Tensor]] = {}
        self._streams: dict[str, Stream] = {}

    def add(self, name: str, piece: Tensor) -> None:
        self._pieces.setdefault(name, []).append(piece.reshape(-1))

    def keep(self, value: Tensor) -> str:
        """Adds a tensor as it is; the word for its dtype, by which ``Reader.kept`` reads it."""
        self.add("kept", value.contiguous().reshape(-1).view(torch.uint8))
        return str(value.dtype).removeprefix("torch.")

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
    """The big tensors of a file, read in the order in which they were filled; ``settings`` and ``rows`` are the file's.

    A digest can be right and the content wrong, so that nothing is believed: what is handed out was there, counted
    once, of its dtype and finite, and at the end nothing is left over. ``name`` and ``dtype`` are of the tensor that is
    being read. FileError names it and the file, ``what``.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], settings: Mapping, rows: int = 0, what: str = "the delta"
    ) -> None:
        self.settings, self.rows, self.what = settings, rows, what
        self.name, self.dtype = "", torch.float32
        self._tensors = tensors
        self._place = dict.fromkeys(tensors, 0)
        self._streams: dict[str, Source] = {}
        self._room = _FREE + _RATIO * sum(tensor.nbytes for tensor in tensors.values())
        self._most = 1.0
        for name, tensor in tensors.items():
            if tensor.dim() != 1 or tensor.dtype != TENSORS.get(name, torch.uint8):
                raise self.fault(f"has {tensor.dtype} {tuple(tensor.shape)} as {name!r}")

    def fault(self, text: str) -> FileError:
        """The error of a file that is not as it may be."""
        where = f"{self.what}, tensor {self.name!r}" if self.name else self.what
        return FileError(f"{where}: {text}; dts_mini writes no such file, though its digest is right: make it again")

    def part(self, kind: str, shape: tuple[int, ...], arguments: Sequence) -> Part:
        """The part of this kind that comes next."""
        if kind not in Part.kinds:
            raise FileError(f"{self.what}: holds parts of the kind {kind!r}; import the package that wrote it first")
        try:
            arguments = msgspec.convert(list(arguments), Part.kinds[kind].arguments)
        except msgspec.ValidationError as error:
            raise self.fault(f"is a {kind} of wrong counts ({error})") from error
        if 0 in shape and not issubclass(Part.kinds[kind], Kept | Exact | Tied | Unchanged):
            raise self.fault(f"is empty, and a {kind}")
        outer, self._most = self._most, 1.0
        found = Part.kinds[kind].read(self, shape, *arguments)
        if self._most * max(found.rank, 1) > _FLOAT32:
            raise self.fault("holds values whose products are beyond float32")
        self._most = outer
        return found

    def take(self, name: str, count: int) -> Tensor:
        """The next ``count`` numbers, or bytes, of a big tensor."""
        whole = self._tensors.get(name, torch.empty(0, dtype=TENSORS.get(name, torch.uint8), device="cpu"))
        start = self._place.get(name, 0)
        if count > len(whole) - start:
            raise self.fault(f"takes {count:,} of {name!r}, of which {len(whole) - start:,} are left")
        self._place[name] = start + count
        found = whole[start : start + count]
        return self.finite(found) if found.is_floating_point() else found

    def finite(self, values: Tensor) -> Tensor:
        """The same, once it is sure that it holds neither NaN nor infinity."""
        if values.numel():
            self.within(values.abs().max().item())
        return values

    def within(self, most: float) -> None:
        """Notes the largest magnitude of what a part is made of: it restores no more than their product, times its
        rank.
        """
        if not most <= _FLOAT32:
            raise self.fault("holds NaN, infinity, or more than float32 does")
        self._most *= max(most, 1.0)

    def packed(self, name: str, n: int, bits: int) -> Tensor:
        """The bytes of n codes of so many bits, as ``pack`` made them: without a bit beyond the last."""
        found = self.take(name, -(-n * bits // 8))
        if (spare := 8 * len(found) - n * bits) and int(found[-1]) >> (8 - spare):
            raise self.fault(f"has bits in {name!r} that are no codes")
        return found

    def kept(self, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """The next values that are kept as they are."""
        held = self.take("kept", math.prod(shape) * dtype.itemsize)
        if dtype == torch.bool and (held > 1).any():
            raise self.fault("holds booleans that are neither 0 nor 1")
        return held.clone().view(dtype).reshape(shape)

    def sides(self, shape: tuple[int, ...], rank: int = 0) -> tuple[int, int]:
        """The shape as a matrix, out x rest, which may be of that rank."""
        sides = shape[:1] + (math.prod(shape[1:]),)
        if len(shape) < 2 or rank > min(sides):
            raise self.fault(f"is said to be of rank {rank}, with shape {shape}")
        return sides

    def room(self, n: int) -> int:
        """The same n, once it is sure that so many elements that take hardly a byte are not more than the file can
        mean.
        """
        self._room -= n
        if self._room < 0:
            raise self.fault(f"is said to have {n:,} elements, more than files of this size are read for")
        return n

    def setting(self, name: str, kind: Any) -> Any:
        """A setting of the file, of this type."""
        try:
            return msgspec.convert(self.settings.get(name), kind)
        except msgspec.ValidationError as error:
            raise self.fault(f"its setting {name} is {self.settings.get(name)!r}") from error

    def stream(self, name: str, open_: Callable[[Tensor, int, Callable[[str], Exception]], Source]) -> Any:
        """The stream of this name, opened by ``open_(bytes, rows, fault)`` where it is read from for the first time."""
        if name not in self._streams:
            left = len(self._tensors.get(name, ())) - self._place.get(name, 0)
            self._streams[name] = open_(self.take(name, left), self.rows, self.fault)
        return self._streams[name]

    def close(self) -> None:
        """Checks that nothing is left over."""
        for stream in self._streams.values():
            stream.close()
        for name, tensor in self._tensors.items():
            if self._place[name] != len(tensor):
                raise self.fault(f"holds {len(tensor) - self._place[name]:,} of {name!r} that belong to no tensor")
        if self.rows and not self._streams:
            raise self.fault(f"is said to have {self.rows:,} coded rows, and has none")
