"""Signs and one scale a tensor: BitDelta (arXiv 2402.10193) and T-Switch (arXiv 2412.00054)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from dts_mini.core.codes import pack, unpack
from dts_mini.core.container import Count
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Part, Reader, Writer
from dts_mini.core.state import State, exactly
from dts_mini.peers.bitmap import entropy, read_bits, write_bits
from dts_mini.peers.peer import Frame, Half, Peer, Ranked, densest, frames, within

HALF, THEIRS = 0.5, 0.4  # the largest density that T-Switch takes where a budget chooses; the authors' own


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


@exactly
def bitdelta(theta_0: State, experts: Mapping[str, State], budget: int | str | None = None) -> Peer:
    """BitDelta: of each matrix its signs, times the mean magnitude, which is the best scale for them. One size.

    Zero counts as positive. The paper then distils the scales on data; this is the data-free start. 1-D tensors, which
    it leaves in full precision, are kept in half.
    """
    made = frames(theta_0, experts)
    deltas = {}
    for task, frame in made.items():
        parts = {name: Half.of(x) if x.dim() == 1 else _signs(x) for name, x in frame.items()}
        deltas[task] = frame.delta("BitDelta", parts, {})
    return within(Peer(theta_0, deltas), made, budget)


def _signs(x: Tensor) -> Signs:
    return Signs((x.reshape(-1) >= 0).cpu(), x.abs().mean().float().cpu())


@dataclass(frozen=True, eq=False)
class Switch(Part):
    """``active`` (n, bool) is the activation switch, ``positive`` (bool, of the active) the polarity switch,
    ``scale`` (float32, a scalar) the knob."""

    arguments: ClassVar[Any] = tuple[Count, Count]
    active: Tensor
    positive: Tensor
    scale: Tensor

    def restore(self) -> Tensor:
        result = torch.zeros(len(self.active), dtype=torch.float32, device="cpu")
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


@dataclass(frozen=True, eq=False)
class SharedKnob(Switch):
    """A switch whose scale the file holds once, for all tensors."""

    def write(self, writer: Writer) -> list:
        writer.add("codes", pack(self.positive.to(torch.uint8), 1))
        return write_bits(self.active, writer)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "SharedKnob":
        codes, count = reader.take("codes", -(-arguments[0] // 8)), arguments[0]
        active = read_bits(reader, torch.Size(shape).numel(), *arguments)
        scale = torch.tensor(reader.setting("scale", float), dtype=torch.float32, device="cpu")
        return cls(active, unpack(codes, count, 1).bool(), reader.finite(scale))

    @property
    def bits(self) -> int:
        return super().bits - 32


@exactly
def t_switch(
    theta_0: State,
    experts: Mapping[str, State],
    budget: int | str | None = None,
    *,
    density: float | None = None,
    per: Literal["vector", "tensor"] = "vector",
) -> Peer:
    """T-Switch: the share ``density`` of a task vector's elements that is largest in magnitude, over all tensors, 1-D
    ones too; each becomes its sign times the root mean square of those that stay.

    ``per="tensor"``, as in the authors' public code: the share is taken of each tensor's positive elements and of its
    negative ones, and each tensor has a scale. A budget chooses the density, up to a half: with more, the small ones
    under the same scale lead away from the expert. The task is known, so that Auto-Switch has no part.
    """
    if (budget is None) == (density is None):
        raise DTSError("t_switch needs a budget or a density, and one of them alone")
    if density is not None and not 0 < density <= 1:
        raise DTSError(f"density is {density}: it must lie in (0, 1]")
    if per not in ("vector", "tensor"):
        raise DTSError(f"per is {per!r}: choose vector or tensor")
    switched = _by_vector if per == "vector" else _by_tensor
    made = frames(theta_0, experts)
    return Peer(theta_0, {task: switched(frame, budget, density) for task, frame in made.items()})


def _by_vector(frame: Frame, budget: int | str | None, density: float | None) -> TaskDelta:
    ranked = Ranked.of(frame)

    def at(density: float) -> TaskDelta:
        kept = ranked.largest(density)
        none = torch.empty(0, dtype=torch.float32, device="cpu")
        chosen = torch.cat([none, *(ranked.flat[name][mask] for name, mask in kept.items())])
        scale = chosen.double().square().mean().sqrt().float() if len(chosen) else chosen.sum()
        parts = {name: SharedKnob(mask, ranked.flat[name][mask] > 0, scale) for name, mask in kept.items()}
        return frame.delta("T-Switch", parts, {"density": density, "scale": scale.item()})

    if budget is None:
        return at(density)
    return densest(at, frame.budget(budget), ranked.elements, bits=1, most=HALF)


def _by_tensor(frame: Frame, budget: int | str | None, density: float | None) -> TaskDelta:
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
                active = torch.zeros(len(flat), dtype=torch.bool, device="cpu")
                active[chosen] = True
                parts[name] = Switch(active, flat[active] > 0, flat[active].square().mean().sqrt())
        return frame.delta("T-Switch", parts, {"density": density})

    if budget is None:
        return at(density)
    limit = frame.budget(budget)
    found = densest(at, limit, sum(len(flat) for flat, *_ in sides.values()), bits=1, most=HALF)
    # The signs of all need no places: they come nearer than few do, for fewer bytes than the authors' density.
    if found.settings["density"] < THEIRS and len((whole := at(1.0)).to_bytes()) <= limit:
        return whole
    return found
