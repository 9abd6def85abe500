"""One task vector shared by all tasks and a mask for each: EMR-Merging and TALL masks (arXiv 2405.17461, 2405.07813).

Both treat every tensor of one or more dimensions alike. The shared vector is stored in half precision.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dts_mini.core.container import Count
from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Kept, Part, Reader, Writer
from dts_mini.core.state import State, exactly
from dts_mini.peers.bitmap import entropy, read_bits, write_bits
from dts_mini.peers.peer import Half, Peer, Relative, frames, names_of, shared_delta, within


@dataclass(frozen=True, eq=False)
class Masked(Relative):
    """The shared vector where ``mask`` (n, bool), times ``rescaler``, which the file holds once for all tensors."""

    arguments: ClassVar[Any] = tuple[Count, Count]
    over: ClassVar[type[Part]] = Half
    mask: Tensor
    rescaler: float

    def join(self, shared: Half) -> Part:
        return Kept(shared.restore() * self.mask * self.rescaler)

    def write(self, writer: Writer) -> list:
        return write_bits(self.mask, writer)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Masked":
        rescaler = reader.setting("rescaler", float)
        reader.within(abs(rescaler))
        return cls(read_bits(reader, math.prod(shape), *arguments), rescaler)

    @property
    def bits(self) -> int:
        return entropy(self.mask)


@exactly
def emr(theta_0: State, experts: Mapping[str, State], budget: int | str | None = None) -> Peer:
    """EMR-Merging: elect, mask, rescale. One size.

    Elect: each position takes the sign of the sum over tasks, and the largest magnitude among the values of that
    sign. Mask: where a task has the elected sign. Rescale: sum |tau_n| / sum |mask * elected|, one number a task.
    """
    made = frames(theta_0, experts)
    common = {name: Half.of(elect([frame[name] for frame in made.values()])) for name in names_of(made)}
    deltas = {}
    for task, frame in made.items():
        masks, own, held = {}, 0.0, 0.0
        for name, x in frame.items():
            flat, shared = x.reshape(-1).float().cpu(), common[name].restore()
            masks[name] = flat * shared.sign() > 0
            own += flat.abs().double().sum().item()
            held += shared[masks[name]].abs().double().sum().item()
        rescaler = own / held if held else 1.0
        parts = {name: Masked(mask, rescaler) for name, mask in masks.items()}
        deltas[task] = frame.delta("EMR-Merging", parts, {"rescaler": rescaler})
    return within(Peer(theta_0, deltas, shared_delta(theta_0, common, "EMR-Merging")), made, budget)


def elect(vectors: list[Tensor]) -> Tensor:
    """The unified vector: the sign of the sum, the largest magnitude of that sign."""
    stacked = torch.stack(list(vectors))
    sign = stacked.sum(0).sign()
    return sign * (stacked * sign).clamp(min=0).amax(0)


@exactly
def tall(
    theta_0: State,
    experts: Mapping[str, State],
    budget: int | str | None = None,
    *,
    strictness: float | Mapping[str, float] = 0.4,
) -> Peer:
    """TALL masks: the sum of all task vectors, and for each task where |tau_n| > lambda |sum - tau_n|. One size.

    ``strictness``: lambda, one for all tasks or one for each. The paper takes the best of 0.2 to 0.6 for each task on
    validation images; the default is the middle of them, without data.
    """
    made = frames(theta_0, experts)
    of_task = strictness if isinstance(strictness, Mapping) else dict.fromkeys(made, strictness)
    if of_task.keys() != made.keys() or not all(value >= 0 for value in of_task.values()):
        raise DTSError(f"strictness is {strictness!r}: give a number that is not negative, or one for each task")
    common = {name: Half.of(sum(frame[name] for frame in made.values())) for name in names_of(made)}
    deltas = {}
    for task, frame in made.items():
        parts = {}
        for name, x in frame.items():
            flat = x.reshape(-1).float().cpu()
            parts[name] = Masked(flat.abs() > of_task[task] * (common[name].restore() - flat).abs(), 1.0)
        deltas[task] = frame.delta("TALL masks", parts, {"rescaler": 1.0, "strictness": of_task[task]})
    return within(Peer(theta_0, deltas, shared_delta(theta_0, common, "TALL masks")), made, budget)
