"""Signs and one scale a tensor: BitDelta (arXiv 2402.10193) and T-Switch (arXiv 2412.00054)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dts_mini.core.codes import pack, unpack
from dts_mini.core.container import Count
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Part, Reader, Writer
from dts_mini.core.state import State
from dts_mini.peers.bitmap import entropy, read_bits, write_bits
from dts_mini.peers.peer import Frame, Half, Peer, densest, frames, within


@dataclass(frozen=True, eq=False)
class Signs(Part):
    """+scale where ``positive`` (n, bool), -scale elsewhere; ``scale``: float32, a scalar."""

    positive: Tensor
    scale: Tensor

    def restore(self) -> Tensor:
        return torch.where(self.positive, self.scale, -self.scale)

    def write(self, writer: Writer) -> list:
        writer.add("values", self.scale)
        writer.add("codes", pack(self.positive.to(torch.uint8), 1))
        return []

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Signs":
        n = math.prod(shape)
        positive = unpack(reader.packed("codes", n, 1), n, 1).bool()
        return cls(positive, reader.take("values", 1).reshape(()))

    @property
    def bits(self) -> int:
        return len(self.positive) + 32


@torch.no_grad()
def bitdelta(theta_0: State, experts: Mapping[str, State], budget: int | str | None = None) -> Peer:
    """BitDelta: of each matrix its signs, times the mean magnitude, which is the best scale for them. One size.

    The paper then distils the scales on data; this is the data-free start. 1-D tensors, which it leaves in full
    precision, are kept in half.
    """
    made = frames(theta_0, experts)
    deltas = {}
    for task, frame in made.items():
        parts = {name: Half.of(x) if x.dim() == 1 else _signs(x) for name, x in frame.items()}
        deltas[task] = frame.delta("BitDelta", parts, {})
    return within(Peer(theta_0, deltas), made, budget)


def _signs(x: Tensor) -> Signs:
    return Signs((x.reshape(-1) > 0).cpu(), x.abs().mean().float().cpu())


@dataclass(frozen=True, eq=False)
class Switch(Part):
    """``active`` (n, bool) is the activation switch, ``positive`` (bool, of the active) the polarity switch,
    ``scale`` (float32, a scalar) the knob."""

    arguments: ClassVar[Any] = tuple[Count, Count]
    active: Tensor
    positive: Tensor
    scale: Tensor

    def restore(self) -> Tensor:
        result = torch.zeros(len(self.active))
        result[self.active] = torch.where(self.positive, self.scale, -self.scale)
        return result

    def write(self, writer: Writer) -> list:
        writer.add("values", self.scale)
        writer.add("codes", pack(self.positive.to(torch.uint8), 1))
        return write_bits(self.active, writer)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Switch":
        count, length = arguments
        scale, codes = reader.take("values", 1).reshape(()), reader.packed("codes", count, 1)
        active = read_bits(reader, math.prod(shape), count, length)
        return cls(active, unpack(codes, count, 1).bool(), scale)

    @property
    def bits(self) -> int:
        return entropy(self.active) + len(self.positive) + 32


@torch.no_grad()
def t_switch(
    theta_0: State, experts: Mapping[str, State], budget: int | str | None = None, *, density: float | None = None
) -> Peer:
    """T-Switch: of each tensor, 1-D ones too, the share ``density`` of its positive elements and of its negative ones
    that is largest in magnitude; each becomes its sign times the root mean square of those that stay.

    A budget chooses the density, one for all tensors. The task is known, so that Auto-Switch has no part.
    """
    if (budget is None) == (density is None):
        raise DTSError("t_switch needs a budget or a density, and one of them alone")
    if density is not None and not 0 < density <= 1:
        raise DTSError(f"density is {density}: it must lie in (0, 1]")
    made = frames(theta_0, experts)
    return Peer(theta_0, {task: _switched(frame, budget, density) for task, frame in made.items()})


def _switched(frame: Frame, budget: int | str | None, density: float | None) -> TaskDelta:
    sides = {}
    for name, x in frame.items():
        flat = x.reshape(-1).float().cpu()
        order = flat.abs().argsort(descending=True, stable=True)
        sides[name] = flat, order[flat[order] > 0], order[flat[order] < 0]

    def at(density: float) -> TaskDelta:
        parts = {}
        for name, (flat, above, below) in sides.items():
            kept = [side[: int(density * len(side) + 1e-9)] for side in (above, below)]
            if len(chosen := torch.cat(kept)):
                active = torch.zeros(len(flat), dtype=torch.bool)
                active[chosen] = True
                parts[name] = Switch(active, flat[active] > 0, flat[active].square().mean().sqrt())
        return frame.delta("T-Switch", parts, {"density": density})

    if budget is None:
        return at(density)
    return densest(at, frame.budget(budget), sum(len(flat) for flat, *_ in sides.values()), bits=1)
