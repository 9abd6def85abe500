"""The method of the paper, tensor by tensor: DTS (arXiv 2512.01461), with the improvements that keep its format.

A matrix becomes a ``LowRank``, any other tensor a ``Flat``; both hold ``Coded`` rows, whose elements take few values.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dts_mini.core.budget import fit, water_fill
from dts_mini.core.differences import Differences
from dts_mini.core.errors import DTSError
from dts_mini.core.packing import pack, unpack
from dts_mini.core.parts import Bounds, Part, Reader, Writer
from dts_mini.core.tensor import (
    GROUPS,
    Algorithm,
    bounds,
    decompose,
    frobenius,
    lloyd_max,
    rank_of,
    refit,
    restore,
    rows,
    scale,
    threshold,
)


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

    def __post_init__(self) -> None:
        if not 0 < self.keep_ratio <= 1:
            raise DTSError(f"keep_ratio is {self.keep_ratio}: it must lie in (0, 1]")
        allowed = {
            "groups": GROUPS,
            "scale": ("rms", "mean"),
            "per": ("matrix", "vector"),
            "algorithm": ("auto", "exact", "gram", "randomised"),
            "levels": ("halves", "lloyd-max"),
            "refit": (False, True),
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

    @property
    def bits(self) -> int:
        """Bits of a group code: 1, 2 or 3."""
        return self.groups.bit_length() - 1


@dataclass(frozen=True)
class Coded:
    """Rows (k x n) whose elements are group values: what threshold and scale left of them.

    ``codes``: uint8, packed without a gap. ``scales`` (1 or k, groups). ``zeros``: flat positions (int32) of the
    elements that were exactly zero: two bits have no word for them, so they are kept apart, as a list or as a bit
    for each element, whichever is shorter.
    """

    shape: tuple[int, int]
    codes: Tensor
    scales: Tensor
    zeros: Tensor

    @classmethod
    def of(cls, x: Tensor, settings: Settings) -> "Coded":
        part = rows(x, settings.per)
        codes = threshold(part, settings.groups)
        if settings.levels == "lloyd-max":
            codes, _ = lloyd_max(part, codes, settings.groups)
        # A value for each vector is stored in half precision: there are hundreds, and codes err far more.
        dtype = torch.float16 if settings.per == "vector" and len(x) > 1 else torch.float32
        scales = scale(part, codes, settings.groups, settings.scale).to(dtype)
        flat = codes.reshape(-1)
        zeros = torch.nonzero(flat == settings.groups).reshape(-1).to(torch.int32)
        return cls(tuple(x.shape), pack(flat.masked_fill(flat == settings.groups, 0), settings.bits), scales, zeros)

    def restore(self) -> Tensor:
        """The rows (k x n), float32."""
        groups = self.scales.shape[1]
        codes = unpack(self.codes, self.elements, groups.bit_length() - 1)
        codes[self.zeros.long()] = groups
        return restore(codes.view(len(self.scales), -1), self.scales.float()).view(self.shape)

    def write(self, writer: Writer) -> int:
        """Adds it to a file; returns what its shape does not tell: how many of its elements are zero."""
        writer.add("codes", self.codes)
        writer.add("values" if self.scales.dtype == torch.float32 else "halves", self.scales)
        if self.zeros_as_mask:
            mask = torch.zeros(self.elements, dtype=torch.uint8)
            mask[self.zeros.long()] = 1
            writer.add("masks", pack(mask, 1))
        elif len(self.zeros):
            writer.add("zeros", self.zeros)
        return len(self.zeros)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, int], zeros: int) -> "Coded":
        """The rows (k x n) that ``write`` added."""
        groups, n = reader.settings["groups"], shape[0] * shape[1]
        codes = reader.take("codes", -(-n * (groups.bit_length() - 1) // 8))
        vectors = shape[0] if reader.settings["per"] == "vector" else 1
        scales = reader.take("halves" if vectors > 1 else "values", vectors * groups)
        if 32 * zeros > n:
            where = torch.nonzero(unpack(reader.take("masks", -(-n // 8)), n, 1)).reshape(-1).to(torch.int32)
        else:
            where = reader.take("zeros", zeros).to(torch.int32)
        return cls(shape, codes, scales.view(vectors, groups), where)

    @property
    def elements(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def zeros_as_mask(self) -> bool:
        return 32 * len(self.zeros) > self.elements

    @property
    def bits(self) -> int:
        """Information: codes, scales and zeros."""
        width = self.scales.shape[1].bit_length() - 1
        zeros = self.elements if self.zeros_as_mask else 32 * len(self.zeros)
        return width * self.elements + 8 * self.scales.nbytes + zeros


@dataclass(frozen=True)
class LowRank(Part):
    """A 2-D tensor: U_hat^T (r x m), s (r), V_hat^T (r x n)."""

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
        s = reader.take("values", rank)
        left, right = (Coded.read(reader, (rank, side), n) for side, n in zip(shape, zeros, strict=True))
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


@dataclass(frozen=True)
class Flat(Part):
    """A 1-D or more than 2-D tensor: thresholded and scaled as one row, without a decomposition."""

    coded: Coded

    def restore(self) -> Tensor:
        return self.coded.restore()

    def write(self, writer: Writer) -> list:
        return [self.coded.write(writer)]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Flat":
        return cls(Coded.read(reader, (1, torch.Size(shape).numel()), *arguments))

    @property
    def bits(self) -> int:
        return self.coded.bits

    @property
    def paper_bits(self) -> int:
        return 3 * self.coded.elements


def compress(
    differences: Differences,
    settings: Settings,
    budget: int | None,
    size: Callable[[Mapping[str, Part], Settings], int],
    progress: Callable[[str], None],
) -> tuple[dict[str, Part], dict[str, Bounds], Settings]:
    """Parts and bounds of all tensors. With a budget the ranks are its choice, by ``water_fill``, not ``keep_ratio``'s.

    What a component buys is s_i^2 / ||M||^(2 weight); what it costs are its codes, scales and singular value.
    ``size`` gives the bytes of a file that holds such parts.
    """
    if budget is None:
        rank = lambda shape: rank_of(shape, settings.keep_ratio) if len(shape) == 2 else 0
        jobs, found = {name: (rank(shape), settings) for name, shape in differences.shapes.items()}, {}
        for name, result in differences.each(_part, jobs):
            progress(name)
            found[name] = result
    else:
        found = _within(differences, settings, budget, size, progress)
    parts = {name: part for name, (part, _) in found.items()}
    return parts, {name: bound for name, (_, bound) in found.items() if bound}, settings


def _within(differences, settings, budget, size, progress) -> dict[str, tuple[Part, Bounds | None]]:
    values, costs, found = {}, {}, {}
    for name, (result, value) in differences.each(_offer, {name: (settings,) for name in differences.shapes}):
        progress(name)
        found[name] = result
        if value is not None:
            values[name] = value
            scales = 2 * settings.groups * 2 if settings.per == "vector" else 0
            costs[name] = sum(differences.shapes[name]) * settings.bits / 8 + 4 + scales
    order = water_fill(values, costs)

    def at(count: int) -> dict[str, tuple[Part, Bounds | None]]:
        ranks = Counter(order[:count])
        jobs = {n: (1 + ranks[n], settings) for n in values if found[n][0].rank != 1 + ranks[n]}
        found.update(differences.each(_part, jobs))
        return found

    spare, guess = budget - size({name: part for name, (part, _) in found.items()}, settings), 0
    while guess < len(order) and spare >= costs[order[guess]]:
        spare -= costs[order[guess]]
        guess += 1
    best = fit(lambda count: size({n: part for n, (part, _) in at(count).items()}, settings), budget, len(order), guess)
    return at(best)


@torch.no_grad()
def _offer(x: Tensor, settings: Settings) -> tuple[tuple[Part, Bounds | None], Tensor | None]:
    """A tensor with one component, if it is a matrix, and what each component of it buys."""
    part = _part(x, 1, settings)
    if x.dim() != 2:
        return part, None
    s = decompose(x, min(x.shape), "exact" if min(x.shape) <= 256 else "gram").s
    return part, s.double().square() / frobenius(x) ** (2 * settings.weight)


@torch.no_grad()
def _part(x: Tensor, rank: int, settings: Settings) -> tuple[Part, Bounds | None]:
    if x.dim() != 2:
        return Flat(Coded.of(x.reshape(1, -1), settings)), None
    exact = decompose(x, rank, settings.algorithm)
    u, s, vh = _corrected(x, rank, settings) if settings.block else exact[:3]
    left, right = Coded.of(u.T.contiguous(), settings), Coded.of(vh.contiguous(), settings)
    u, vh = left.restore().T.to(x), right.restore().to(x)
    if settings.refit or settings.block:
        s = refit(x, u, vh)
    if settings.norm:
        s = s * (torch.linalg.vector_norm(x) / torch.linalg.vector_norm((u * s) @ vh)) ** settings.norm
    return LowRank(left, s.float().cpu(), right), Bounds(*bounds(x, exact, u, s, vh))


def _corrected(x: Tensor, rank: int, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """U, s and V^T of blocks of components, each of what is left when the blocks before it have been coded."""
    residual, blocks = x, []
    while (have := sum(len(s) for _, s, _ in blocks)) < rank:
        u, s, vh, _ = decompose(residual, min(settings.block, rank - have), settings.algorithm)
        if blocks and not s[0] > 1e-6 * blocks[0][1][0]:
            break
        blocks.append((u, s, vh))
        coded_u, coded_vh = Coded.of(u.T.contiguous(), settings).restore().T, Coded.of(vh, settings).restore()
        residual = residual - (coded_u * refit(residual, coded_u, coded_vh)) @ coded_vh
    return tuple(torch.cat(pieces, dim) for pieces, dim in zip(zip(*blocks, strict=True), (1, 0, 0), strict=True))
