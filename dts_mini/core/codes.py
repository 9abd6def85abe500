"""Groups and their codes: thresholding and scaling of vectors, and how their few values are packed.

    threshold   rows (k x n) -> codes (k x n)                    which group each element is in
    scale       rows, codes -> scales (k x groups)               the one value of each group
    restore     codes, scales -> rows (k x n)                    the elements, each its group's value
    pack        codes (k x n) -> bytes                           two bits an element for four groups

Thresholding works on the rows of a (k x n) matrix, each row partitioned by itself. One partition for a whole
matrix, as the paper's code makes it, is its one-row view, ``rows(x, per="matrix")``; one for each singular vector
is ``rows(x, per="vector")``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Content, Reader, Writer

GROUPS = (2, 4, 8)


def width(groups: int) -> int:
    """Bits of a group's code: 1, 2 or 3."""
    return groups.bit_length() - 1


def rows(x: Tensor, per: Literal["matrix", "vector"]) -> Tensor:
    """The view of a matrix (vectors x elements) whose rows are partitioned each by itself."""
    return x.reshape(1, -1) if per == "matrix" else x


def threshold(rows: Tensor, groups: int = 4) -> Tensor:
    """Group codes (k x n), uint8, of the elements of each row, from 0 (strongest negative) to groups - 1.

    The positive elements are halved by magnitude, the floor(half) largest being strong; so are the negative ones.
    Two groups are the signs alone; eight halve each of the four once more. Ties go by position. An element that
    is exactly zero belongs to no group: its code is ``groups``, and it is restored as zero.
    """
    if groups not in GROUPS:
        raise DTSError(f"groups is {groups}: choose one of {GROUPS}")
    return torch.stack([_threshold_row(row, groups // 2) for row in rows])


def _threshold_row(row: Tensor, half: int) -> Tensor:
    positive, negative = row > 0, row < 0
    code = torch.full_like(row, half - 1, dtype=torch.uint8) + positive
    for count in _cuts(int(positive.sum()), half)[:-1]:
        code += _largest(row, count)
    for count in _cuts(int(negative.sum()), half)[:-1]:
        code -= _largest(-row, count).byte()
    return code.masked_fill_(~(positive | negative), 2 * half)


def _cuts(count: int, parts: int) -> list[int]:
    """Where the parts end, strongest first, when ``count`` elements are halved again and again, floor first."""
    if parts == 1:
        return [count]
    strong = count // 2
    return _cuts(strong, parts // 2) + [strong + end for end in _cuts(count - strong, parts // 2)]


def _largest(row: Tensor, count: int) -> Tensor:
    """Which elements (n) are the ``count`` largest, the first ones of equal elements. A selection, not a sort."""
    if count == 0:
        return torch.zeros_like(row, dtype=torch.bool)
    limit = row.kthvalue(len(row) - count + 1).values
    above, ties = row > limit, row == limit
    return above | (ties & (ties.cumsum(0, dtype=torch.int32) <= count - above.sum()))


def scale(rows: Tensor, codes: Tensor, groups: int = 4, how: Literal["rms", "mean"] = "rms") -> Tensor:
    """The value (k x groups) of each group of each row, signed; 0 for an empty group.

    ``rms``: sign * ||x_g||_2 / sqrt(|g|), as in the paper: the norm of the row is kept.
    ``mean``: the group's mean, which makes the squared error least.
    """
    if how not in ("rms", "mean"):
        raise DTSError(f"scale is {how!r}: choose rms or mean")
    total = torch.zeros(len(rows), groups + 1, dtype=torch.float64, device=rows.device)
    count = torch.zeros_like(total)
    for part, code in zip(rows.split(2**20, 1), codes.split(2**20, 1), strict=True):  # in float64, which is wide
        x, index = part.double(), code.long()
        total.scatter_add_(1, index, x if how == "mean" else x.square())
        count.scatter_add_(1, index, torch.ones_like(x))
    values = total / count.clamp(min=1)
    if how == "rms":
        values = values.sqrt()
        values[:, : groups // 2] *= -1
    return values[:, :groups].to(rows.dtype)


def restore(codes: Tensor, scales: Tensor) -> Tensor:
    """The elements (k x n) that codes (k x n) and scales (k x groups) stand for; the code ``groups`` is zero."""
    return torch.cat([scales, torch.zeros_like(scales[:, :1])], 1).gather(1, codes.long())


def lloyd_max(rows: Tensor, codes: Tensor, groups: int, rounds: int = 50) -> tuple[Tensor, Tensor]:
    """Codes and values that make the squared error of each row least for so many values (Lloyd 1982, Max 1960).

    It starts at ``codes`` and the means of their groups; each round moves the borders to the midpoints between
    values, and the values to the means of what lies between borders, until no code changes or after ``rounds``.
    """
    zero = codes == groups
    for _ in range(rounds):
        values = scale(rows, codes, groups, "mean")
        empty = (codes[:, :, None] == torch.arange(groups, device=codes.device)).sum(1) == 0
        values = values.masked_fill(empty, -torch.inf).cummax(1).values  # an empty group shares its neighbour's value
        least = values.masked_fill(values.isinf(), torch.inf).amin(1, keepdim=True)
        values = torch.where(values.isinf(), least, values)
        borders = (values[:, 1:] + values[:, :-1]) / 2
        moved = torch.searchsorted(borders, rows.contiguous()).to(torch.uint8).masked_fill_(zero, groups)
        if torch.equal(moved, codes):
            break
        codes = moved
    return codes, scale(rows, codes, groups, "mean")


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (any shape, uint8 below 2**bits) as a byte string: uint8, ceil(numel * bits / 8) long."""
    flat = codes.reshape(-1).cpu().numpy()
    if bits == 2:  # four codes a byte: shift each into its place, ten times faster than through single bits
        packed = np.zeros(-(-len(flat) // 4), dtype=np.uint8)
        for place in range(4):
            part = flat[place::4]
            packed[: len(part)] |= part << np.uint8(2 * place)
        return torch.from_numpy(packed)
    spread = (flat[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return torch.from_numpy(np.packbits(spread, bitorder="little"))


def unpack(packed: Tensor, count: int, bits: int) -> Tensor:
    """The first ``count`` codes (uint8) of a byte string made by ``pack``."""
    data = packed.cpu().numpy()
    if 8 % bits == 0:  # whole codes in a byte: look up what each of the 256 holds, several times faster
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        table = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8(2**bits - 1)
        codes = np.take(table, data, axis=0).reshape(-1)[:count]
    else:
        spread = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
        codes = spread @ (1 << np.arange(bits, dtype=np.uint8))
    return torch.from_numpy(np.ascontiguousarray(codes))


def write_places(writer: Writer, places: Tensor, n: int) -> int:
    """Adds which of n elements are meant (int32, rising), a list or a bit each, whichever is shorter; their number."""
    if 32 * len(places) > n:
        mask = torch.zeros(n, dtype=torch.uint8, device="cpu")
        mask[places.long()] = 1
        writer.add("masks", pack(mask, 1))
    elif len(places):
        writer.add("zeros", places)
    return len(places)


def read_places(reader: Reader, count: int, n: int) -> Tensor:
    """What ``write_places`` added."""
    if 32 * count > n:
        places = torch.nonzero(unpack(reader.packed("masks", n, 1), n, 1)).reshape(-1).to(torch.int32)
        if len(places) != count:
            raise reader.fault(f"marks {len(places):,} of {n:,} elements, not {count:,}")
        return places
    places = reader.take("zeros", count)
    if count and not (places[0] >= 0 and places[-1] < n and (places[1:] > places[:-1]).all()):
        raise reader.fault(f"names places that do not rise within {n:,} elements")
    return places


@dataclass(frozen=True, eq=False)
class Coded(Content):
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
    def of(
        cls,
        x: Tensor,
        groups: int = 4,
        how: Literal["rms", "mean"] = "rms",
        per: Literal["matrix", "vector"] = "matrix",
        levels: Literal["halves", "lloyd-max"] = "halves",
    ) -> "Coded":
        """Thresholds and scales rows (k x n)."""
        part = rows(x, per)
        codes = threshold(part, groups)
        if levels == "lloyd-max":
            codes, _ = lloyd_max(part, codes, groups)
        # A value for each vector is stored in half precision: there are hundreds, and codes err far more.
        dtype = torch.float16 if per == "vector" and len(x) > 1 else torch.float32
        scales = scale(part, codes, groups, how).to(dtype)
        flat = codes.reshape(-1)
        zeros = torch.nonzero(flat == groups).reshape(-1).to(torch.int32)
        packed = pack(flat.masked_fill(flat == groups, 0), width(groups))
        return cls(tuple(x.shape), packed, scales, zeros)

    def restore(self) -> Tensor:
        """The rows (k x n), float32."""
        groups = self.scales.shape[1]
        codes = unpack(self.codes, self.elements, width(groups))
        codes[self.zeros.long()] = groups
        return restore(codes.view(len(self.scales), -1), self.scales.float()).view(self.shape)

    def write(self, writer: Writer) -> int:
        """Adds it to a file; returns what its shape does not tell: how many of its elements are zero."""
        writer.add("codes", self.codes)
        writer.add("values" if self.scales.dtype == torch.float32 else "halves", self.scales)
        return write_places(writer, self.zeros, self.elements)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, int], zeros: int) -> "Coded":
        """The rows (k x n) that ``write`` added."""
        groups, n = reader.setting("groups", Literal[GROUPS]), shape[0] * shape[1]
        codes = reader.packed("codes", n, width(groups))
        vectors = shape[0] if reader.setting("per", Literal["matrix", "vector"]) == "vector" else 1
        scales = reader.take("halves" if vectors > 1 else "values", vectors * groups)
        return cls(shape, codes, scales.view(vectors, groups), read_places(reader, zeros, n))

    @property
    def elements(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def bits(self) -> int:
        """Information: codes, scales and zeros."""
        zeros = min(self.elements, 32 * len(self.zeros))
        return width(self.scales.shape[1]) * self.elements + 8 * self.scales.nbytes + zeros
