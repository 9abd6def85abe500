"""Task-vector quantisation, TVQ, and its residual form, RTVQ (arXiv 2503.06921).

Every tensor of one or more dimensions, 1-D ones too, is rounded to 2^b even levels between its least and its
largest value: step = (max - min) / (2^b - 1), code = round(x / step) + z with z = round(-min / step). Zero is one
of the levels, as most elements lie about it; for a tensor of one sign the range reaches to zero.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from dts_mini.core.codes import pack, unpack
from dts_mini.core.container import Count
from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Kept, Part, Reader, Writer
from dts_mini.core.state import State, exactly
from dts_mini.peers.peer import Frame, Half, Peer, Relative, frames, names_of, shared_delta, within

BITS = range(1, 9)


@dataclass(frozen=True, eq=False)
class Quantised(Part):
    """Codes of ``width`` bits (uint8, flat), each standing for (code - zero) * step; ``step``: float32, a scalar."""

    arguments: ClassVar[Any] = tuple[Annotated[int, Meta(ge=1, le=8)], Count]
    codes: Tensor
    width: int
    zero: int
    step: Tensor

    @classmethod
    def of(cls, x: Tensor, width: int) -> "Quantised":
        low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
        step = torch.tensor((high - low) / (2**width - 1) or 1.0, dtype=torch.float32, device="cpu")
        zero = round(-low / step.item())
        codes = ((x.reshape(-1).float().cpu() / step).round() + zero).clamp(0, 2**width - 1)
        return cls(codes.to(torch.uint8), width, zero, step)

    def values(self) -> Tensor:
        """What the codes stand for, flat, float32."""
        return (self.codes.float() - self.zero) * self.step

    def restore(self) -> Tensor:
        return self.values()

    def write(self, writer: Writer) -> list:
        writer.add("values", self.step)
        writer.add("codes", pack(self.codes, self.width))
        return [self.width, self.zero]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Quantised":
        (width, zero), n = arguments, math.prod(shape)
        if zero >= 2**width:
            raise reader.fault(f"has zero at {zero} of {2**width} levels")
        reader.within(2**width)
        codes = unpack(reader.packed("codes", n, width), n, width)
        return cls(codes, width, zero, reader.take("values", 1).reshape(()))

    @property
    def bits(self) -> int:
        return self.width * len(self.codes) + 32 + 8


def vectors(frame: Frame, bits: int | None, budget: int | str | None) -> dict[str, Part]:
    """The 1-D tensors as methods keep them that are about matrices: in half precision (16 bits), quantised at up to 8
    bits, or, with 0, as the base has them.

    None: at 2 to 4 bits, as many as a fiftieth of the budget holds, and at 0 where it holds no 2; at 4 without a
    budget. That was chosen on validation images, on which these tensors buy less than others at small sizes.
    """
    found = {name: x for name, x in frame.items() if x.dim() == 1}
    if bits is None:
        elements = sum(x.numel() for x in found.values())
        bits = 4 if budget is None else min(4, 8 * frame.budget(budget) // (50 * max(1, elements)))
        bits = bits if bits > 1 else 0
    return {name: Half.of(x) if bits == 16 else Quantised.of(x, bits) for name, x in found.items()} if bits else {}


def check_vector_bits(bits: int | None) -> None:
    """DTSError unless ``vectors`` knows the bits."""
    if bits not in (None, 0, 16, *BITS):
        raise DTSError(f"vector_bits is {bits!r}: it must be None, 0 or 16, or lie in {BITS.start}..{BITS.stop - 1}")


@dataclass(frozen=True, eq=False)
class Offset(Relative, Quantised):
    """What a task's tensor adds to the shared one, quantised."""

    over: ClassVar[type[Part]] = Quantised
    restore = Relative.restore

    def join(self, shared: Quantised) -> Part:
        return Kept(shared.values() + self.values())


@exactly
def tvq(theta_0: State, experts: Mapping[str, State], budget: int | str | None = None, *, bits: int = 2) -> Peer:
    """TVQ: task vectors, each tensor at ``bits`` bits an element, 1 to 8. One size."""
    _check(bits)
    made = frames(theta_0, experts)
    deltas = {
        task: frame.delta("TVQ", {name: Quantised.of(x, bits) for name, x in frame.items()}, {"bits": bits})
        for task, frame in made.items()
    }
    return within(Peer(theta_0, deltas), made, budget)


@exactly
def rtvq(
    theta_0: State,
    experts: Mapping[str, State],
    budget: int | str | None = None,
    *,
    base_bits: int = 3,
    bits: int = 2,
) -> Peer:
    """RTVQ: the mean task vector at ``base_bits``, shared, and what each task adds to it, at ``bits``. One size.

    Offsets are taken from the base vector as it is stored, so that they mend its rounding too.
    """
    _check(base_bits)
    _check(bits)
    made = frames(theta_0, experts)
    common = {
        name: Quantised.of(sum(frame[name] for frame in made.values()) / len(made), base_bits)
        for name in names_of(made)
    }
    deltas = {}
    for task, frame in made.items():
        parts = {}
        for name, x in frame.items():
            parts[name] = Offset.of(x - common[name].values().view(x.shape).to(x), bits)
        deltas[task] = frame.delta("RTVQ", parts, {"bits": bits})
    return within(Peer(theta_0, deltas, shared_delta(theta_0, common, "RTVQ", {"bits": base_bits})), made, budget)


def _check(bits: int) -> None:
    if bits not in BITS:
        raise DTSError(f"bits is {bits!r}: it must lie in {BITS.start}..{BITS.stop - 1}")
