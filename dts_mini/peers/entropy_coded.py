"""The task vector itself, rounded and entropy-coded: what DRC is without a decomposition (ours).

    round   every tensor  ->  integers, one step for all of them, small ones to zero
    code    which are not zero, at the entropy of that; their signs; how far they are beyond one

Rounding with a dead zone and an entropy code come within a fraction of a bit of the best that is possible element by
element (Sullivan 1996). What this row lacks beside DRC is the subspace.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dts_mini.core.budget import largest
from dts_mini.core.codes import pack, unpack
from dts_mini.core.container import Count, Rank
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Part, Reader, Writer
from dts_mini.core.state import State, exactly
from dts_mini.ours.coding import PEAK, Decoder, Encoder, code_bits
from dts_mini.peers.bitmap import entropy, read_bits, write_bits
from dts_mini.peers.peer import Frame, Peer, frames

NOTCHES = 512  # steps per halving
_FINEST = 14 * NOTCHES  # integers stay within 16 bits


@dataclass(frozen=True, eq=False)
class SparseIntegers(Part):
    """``integers`` (n), int16, most of them zero, times ``unit``, float32, a scalar."""

    integers: Tensor
    unit: Tensor

    arguments: ClassVar[Any] = tuple[Rank, Count]

    def restore(self) -> Tensor:
        return self.integers.float() * self.unit

    def write(self, writer: Writer) -> list:
        some, beyond, ones = self._split()
        writer.add("values", self.unit)
        writer.add("codes", pack((ones > 0).to(torch.uint8), 1))
        writer.stream("integers", Encoder).add(beyond[None])
        return write_bits(some, writer)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "SparseIntegers":
        n, (count, _) = torch.Size(shape).numel(), arguments
        unit, some = reader.take("values", 1).reshape(()), read_bits(reader, n, *arguments)
        beyond = reader.stream("integers", Decoder).take(1, count)[0]
        ones = int((beyond == 0).sum())
        codes = reader.packed("codes", ones, 1)
        signs = 2 * unpack(codes, ones, 1).to(torch.int16) - 1
        values = (beyond + beyond.sign()).masked_scatter(beyond == 0, signs)
        return cls(torch.zeros(n, dtype=torch.int16, device="cpu").masked_scatter(some, values), unit)

    def _split(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which are not zero (n, bool); of these how far beyond 1, signed (int16); and those of a magnitude of 1."""
        some = self.integers != 0
        values = self.integers[some]
        return some, values - values.sign(), values[values.abs() == 1]

    @property
    def bits(self) -> int:
        some, beyond, ones = self._split()
        peak = int(beyond.abs().max()) if len(beyond) else 0
        return entropy(some) + len(ones) + round(code_bits(beyond[None], peak)) + 32


@exactly
def rounding(
    theta_0: State,
    experts: Mapping[str, State],
    budget: int | str,
    *,
    weight: float = 0.0,
    dead: float = 0.5,
    norm: float = 0.5,
) -> Peer:
    """The task vector rounded with one step, entropy-coded; the budget chooses the step.

    ``weight``: from 0, where all tensors have the same step, to 1, where it is proportional to the root mean square of
    each. ``dead``: magnitudes below so many steps become 0, those below 1 + it 1, and so on. ``norm``: each tensor is
    multiplied by (||x|| / ||x_hat||)^norm. Chosen on validation images; none costs a byte.
    """
    for name, value in {"weight": weight, "norm": norm}.items():
        if not 0 <= value <= 1:
            raise DTSError(f"{name} is {value}: it must lie in [0, 1]")
    if not 0.5 <= dead < 1:
        raise DTSError(f"dead is {dead}: it must lie in [0.5, 1)")
    settings = {"weight": weight, "dead": dead, "norm": norm}
    made = frames(theta_0, experts)
    return Peer(theta_0, {task: _delta(frame, budget, settings) for task, frame in made.items()})


def _delta(frame: Frame, budget: int | str, settings: Mapping) -> TaskDelta:
    flat = {name: x.reshape(-1).float().cpu() for name, x in frame.items()}
    rms = {name: x.double().square().mean().sqrt().item() for name, x in flat.items()}
    peak = max((x.abs().max().item() / rms[name] ** settings["weight"] for name, x in flat.items()), default=1.0)

    def at(notch: int) -> TaskDelta:
        parts = {}
        for name, x in flat.items():
            step = 2 * peak * 2 ** (-notch / NOTCHES) * rms[name] ** settings["weight"]  # at notch 0 all is zero
            part = _part(x, step, settings)
            if part is not None:
                parts[name] = part
        return frame.delta("rounding", parts, settings | {"notch": notch})

    return largest(at, frame.budget(budget), _FINEST, 4 * NOTCHES)


def _part(x: Tensor, step: float, settings: Mapping) -> SparseIntegers | None:
    magnitudes = (x.abs() / step + 1 - settings["dead"]).clamp(max=PEAK).floor()
    integers = (magnitudes * x.sign()).to(torch.int16)
    held = step * torch.linalg.vector_norm(integers.double()).item()
    if not held:
        return None
    unit = step * (torch.linalg.vector_norm(x.double()).item() / held) ** settings["norm"]
    return SparseIntegers(integers, torch.tensor(unit, dtype=torch.float32, device="cpu"))
