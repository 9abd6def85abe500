"""Magnitude pruning: the largest elements of a task vector in half precision, and where they stand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dts_mini.core.container import Count
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Part, Reader, Writer
from dts_mini.core.state import State, exactly
from dts_mini.peers.bitmap import entropy, read_bits, write_bits
from dts_mini.peers.peer import Frame, Peer, Ranked, densest, frames


@dataclass(frozen=True, eq=False)
class Sparse(Part):
    """``values`` (half precision) where ``kept`` (n, bool), in order; zero elsewhere."""

    arguments: ClassVar[Any] = tuple[Count, Count]
    kept: Tensor
    values: Tensor

    def restore(self) -> Tensor:
        blank = torch.zeros(len(self.kept), dtype=torch.float32, device="cpu")
        return blank.masked_scatter(self.kept, self.values.float())

    def write(self, writer: Writer) -> list:
        writer.add("halves", self.values)
        return write_bits(self.kept, writer)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Sparse":
        count, length = arguments
        values = reader.take("halves", count)
        return cls(read_bits(reader, math.prod(shape), count, length), values)

    @property
    def bits(self) -> int:
        return entropy(self.kept) + 16 * len(self.values)


@exactly
def pruned(
    theta_0: State, experts: Mapping[str, State], budget: int | str | None = None, *, density: float | None = None
) -> Peer:
    """The share ``density`` of a task vector's elements that is largest in magnitude, over all tensors, 1-D ones too.

    The trim step of TIES (arXiv 2306.01708), stored. A budget chooses the density.
    """
    if (budget is None) == (density is None):
        raise DTSError("pruned needs a budget or a density, and one of them alone")
    if density is not None and not 0 < density <= 1:
        raise DTSError(f"density is {density}: it must lie in (0, 1]")
    made = frames(theta_0, experts)
    return Peer(theta_0, {task: _pruned(frame, budget, density) for task, frame in made.items()})


def _pruned(frame: Frame, budget: int | str | None, density: float | None) -> TaskDelta:
    ranked = Ranked.of(frame)

    def at(density: float) -> TaskDelta:
        parts = {n: Sparse(mask, ranked.flat[n][mask].half()) for n, mask in ranked.largest(density).items()}
        return frame.delta("pruned", parts, {"density": density})

    if budget is None:
        return at(density)
    return densest(at, frame.budget(budget), ranked.elements, bits=16)
