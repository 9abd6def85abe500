"""The method of the paper, tensor by tensor: DTS (arXiv 2512.01461), with the improvements that keep its format.

A matrix becomes a ``LowRank``, any other tensor a ``Flat``; both hold ``Coded`` rows, whose elements take few values.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from dts_mini.core.budget import largest, water_fill
from dts_mini.core.codes import GROUPS, Coded, width
from dts_mini.core.container import Count, Rank
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError
from dts_mini.core.frame import Frame
from dts_mini.core.layout import Convolutions
from dts_mini.core.parts import Bounds, Part, Reader, Writer
from dts_mini.core.svd import Algorithm, bounds, decompose, frobenius, refit


@dataclass(frozen=True)
class Settings:
    """How a remainder is compressed; the defaults are the paper's. Those from ``levels`` on keep its format."""

    keep_ratio: float = 0.1  # share of the components of each matrix that is kept, in (0, 1]
    groups: Literal[2, 4, 8] = 4
    scale: Literal["rms", "mean"] = "rms"
    per: Literal["matrix", "vector"] = "matrix"  # what is partitioned into groups at once
    algorithm: Algorithm = "auto"  # of the SVD
    levels: Literal["halves", "lloyd-max"] = "halves"  # groups of equal counts, or of least squared error
    refit: bool = False  # the singular values are fitted to the coded vectors
    block: int = (
        0  # residual correction: so many components at a time, each block of what the ones before left; 0: none
    )
    weight: float = 0.5  # of a budget: from 0, squared errors of all matrices count alike, to 1, relative to ||M||
    norm: float = 0.0  # each matrix is multiplied by (||M|| / ||M_hat||)^norm: 1 restores its norm
    convolutions: Convolutions = "flat"  # coded as they are, or as a matrix, out x (in k k)
    sized_by: ClassVar[str] = "keep_ratio"  # what a budget decides instead

    def __post_init__(self) -> None:
        if not 0 < self.keep_ratio <= 1:
            raise DTSError(f"keep_ratio is {self.keep_ratio}: it must lie in (0, 1]")
        allowed = {
            "groups": GROUPS,
            "scale": ("rms", "mean"),
            "per": ("matrix", "vector"),
            "algorithm": ("auto", "exact", "gram", "randomised", "full"),
            "levels": ("halves", "lloyd-max"),
            "refit": (False, True),
            "convolutions": ("flat", "matrix"),
        }
        for field, values in allowed.items():
            if getattr(self, field) not in values:
                raise DTSError(f"{field} is {getattr(self, field)!r}: choose one of {', '.join(map(str, values))}")
        if self.block < 0 or (self.block and self.per != "vector"):
            raise DTSError(f"block is {self.block}: it must be 0, or more with per='vector'")
        if not 0 <= self.weight <= 1:
            raise DTSError(f"weight is {self.weight}: it must lie in [0, 1]")
        if not 0 <= self.norm <= 1:
            raise DTSError(f"norm is {self.norm}: it must lie in [0, 1]")

    def coded(self, x: Tensor) -> Coded:
        """Rows (k x n), thresholded and scaled."""
        return Coded.of(x.contiguous(), self.groups, self.scale, self.per, self.levels)


@dataclass(frozen=True, eq=False)
class LowRank(Part):
    """A matrix, or a tensor of more dimensions as one, out x rest: U_hat^T (r x m), s (r), V_hat^T (r x n)."""

    arguments: ClassVar[Any] = tuple[Rank, Count, Count]
    of_matrix: ClassVar[bool] = True
    left: Coded
    s: Tensor
    right: Coded

    def factors(self) -> tuple[Tensor, Tensor]:
        """U_hat diag(s) (m x r) and V_hat^T (r x n), whose product is the tensor."""
        return (self.left.restore() * self.s[:, None]).T, self.right.restore()

    def restore(self) -> Tensor:
        u, vh = self.factors()
        return u @ vh

    def write(self, writer: Writer) -> list:
        writer.add("values", self.s)
        return [len(self.s), self.left.write(writer), self.right.write(writer)]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "LowRank":
        rank, *zeros = arguments
        sides = reader.sides(shape, rank)
        s = reader.take("values", rank)
        left, right = (Coded.read(reader, (rank, side), n) for side, n in zip(sides, zeros, strict=True))
        return cls(left, s, right)

    @property
    def rank(self) -> int:
        return len(self.s)

    @property
    def bits(self) -> int:
        return self.left.bits + self.right.bits + 8 * self.s.nbytes

    @property
    def paper_bits(self) -> int:
        return 3 * (self.left.elements + self.right.elements) + 32 * self.rank


@dataclass(frozen=True, eq=False)
class Flat(Part):
    """A 1-D or more than 2-D tensor: thresholded and scaled as one row, without a decomposition."""

    arguments: ClassVar[Any] = tuple[Count]
    coded: Coded

    def restore(self) -> Tensor:
        return self.coded.restore()

    def write(self, writer: Writer) -> list:
        return [self.coded.write(writer)]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Flat":
        return cls(Coded.read(reader, (1, math.prod(shape)), *arguments))

    @property
    def bits(self) -> int:
        return self.coded.bits

    @property
    def paper_bits(self) -> int:
        return 3 * self.coded.elements


def rank_of(shape: tuple[int, int], keep_ratio: float) -> int:
    """Components kept of an m x n matrix: floor(keep_ratio * min(m, n)), at least 1."""
    return max(1, math.floor(keep_ratio * min(shape) + 1e-9))  # 0.29 * 100 is 28.999999999999996


def compress(
    frame: Frame, settings: Settings, budget: int | None = None, progress: Callable[[str], object] = str
) -> TaskDelta:
    """A delta of all tensors. With a budget in bytes the ranks are its choice, by ``water_fill``, not ``keep_ratio``'s.

    What a component buys is s_i^2 / ||M||^(2 weight); what it costs are its codes, scales and singular value.
    """
    found: dict[str, tuple[Part, Bounds | None]] = {}

    def delta() -> TaskDelta:
        parts = {name: part for name, (part, _) in found.items()}
        known = {name: bound for name, (_, bound) in found.items() if bound}
        return frame.delta("dts", parts, asdict(settings), known)

    if budget is None:
        ratio = settings.keep_ratio  # of the whole matrix's components, frozen rows and all
        rank = lambda piece: min(rank_of(piece.sides, ratio), *piece.shape) if piece.sides else 0
        for key, result in frame.map(part, {key: (rank(piece), settings) for key, piece in frame.pieces.items()}):
            found[key] = result
            progress(key)
        return delta()

    values, costs = {}, {}
    for key, (result, value) in frame.map(offer, {key: (settings,) for key in frame}):
        found[key] = result
        progress(key)
        if value is not None:
            values[key], costs[key] = value, component_bytes(frame.pieces[key].shape, settings)
    order = water_fill(values, costs)

    def first(count: int) -> TaskDelta:
        ranks = Counter(order[:count])
        found.update(frame.map(part, {n: (1 + ranks[n], settings) for n in values if found[n][0].rank != 1 + ranks[n]}))
        return delta()

    spare, guess = budget - delta().size(), 0
    while guess < len(order) and spare >= costs[order[guess]]:
        spare -= costs[order[guess]]
        guess += 1
    return largest(first, budget, len(order), guess)


def component_bytes(shape: tuple[int, int], settings: Settings) -> float:
    """Bytes of one component of a matrix in a file: codes of both vectors, its singular value, scales of its own."""
    scales = 2 * 2 * settings.groups if settings.per == "vector" else 0  # half precision, U and V
    return sum(shape) * width(settings.groups) / 8 + 4 + scales


@torch.no_grad()
def offer(x: Tensor, settings: Settings) -> tuple[tuple[Part, Bounds | None], Tensor | None]:
    """A tensor with one component, if it is a matrix, and what each component of it buys."""
    made = part(x, 1, settings)
    if x.dim() != 2:
        return made, None
    s = decompose(x, min(x.shape), "full").s
    return made, s.double().square() / frobenius(x) ** (2 * settings.weight)


@torch.no_grad()
def part(x: Tensor, rank: int, settings: Settings) -> tuple[Part, Bounds | None]:
    """What is stored of a tensor: of a matrix so many components, of others all elements as one row; and the bounds."""
    if x.dim() != 2:
        return Flat(settings.coded(x.reshape(1, -1))), None
    exact = decompose(x, rank, settings.algorithm)  # U (m, r), s (r,), V^T (r, n)
    u, s, vh = corrected(x, rank, settings) if settings.block else exact[:3]
    left, right = settings.coded(u.T), settings.coded(vh)  # (r, m) and (r, n), each element one of a few values
    u, vh = left.restore().T.to(x), right.restore().to(x)
    if settings.refit or settings.block:
        s = refit(x, u, vh)
    if settings.norm:
        s = s * (torch.linalg.vector_norm(x) / torch.linalg.vector_norm((u * s) @ vh)) ** settings.norm
    return LowRank(left, s.float().cpu(), right), Bounds(*bounds(x, exact, u, s, vh))


def corrected(x: Tensor, rank: int, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """U, s and V^T of blocks of components, each of what is left when the blocks before it have been coded."""
    residual, blocks = x, []
    while (have := sum(len(s) for _, s, _ in blocks)) < rank:
        u, s, vh, _ = decompose(residual, min(settings.block, rank - have), settings.algorithm)
        if blocks and not s[0] > 1e-6 * blocks[0][1][0]:
            break
        blocks.append((u, s, vh))
        coded_u, coded_vh = settings.coded(u.T).restore().T, settings.coded(vh).restore()
        residual = residual - (coded_u * refit(residual, coded_u, coded_vh)) @ coded_vh
    return tuple(torch.cat(pieces, dim) for pieces, dim in zip(zip(*blocks, strict=True), (1, 0, 0), strict=True))
