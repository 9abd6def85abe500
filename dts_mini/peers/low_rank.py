"""Truncated SVD in half precision: what DTS is without thresholding and scaling.

TSV-C (arXiv 2412.00081) keeps, of each matrix of a task vector, the leading singular triples, the same share of
them everywhere. Tensors of more than two dimensions count as matrices, out x rest; 1-D ones are kept in half
precision, or in fewer bits where a caller says so.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from dts_mini.core.budget import largest
from dts_mini.core.container import Rank
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Part, Reader, Writer
from dts_mini.core.state import State, exactly
from dts_mini.core.svd import Decomposition, decompose
from dts_mini.peers.peer import Frame, Peer, frames, prefix
from dts_mini.peers.quantised import check_vector_bits, vectors


@dataclass(frozen=True, eq=False)
class HalfLowRank(Part):
    """U^T (r x m) and V^T (r x n) in half precision, s (r) in float32."""

    arguments: ClassVar[Any] = tuple[Rank]
    of_matrix: ClassVar[bool] = True
    left: Tensor
    s: Tensor
    right: Tensor

    @classmethod
    def of(cls, x: Decomposition) -> "HalfLowRank":
        return cls(x.u.T.half().cpu().contiguous(), x.s.float().cpu(), x.vh.half().cpu().contiguous())

    def factors(self) -> tuple[Tensor, Tensor]:
        """U diag(s) (m x r) and V^T (r x n), float32."""
        return (self.left.float() * self.s[:, None]).T, self.right.float()

    def restore(self) -> Tensor:
        u, vh = self.factors()
        return u @ vh

    def write(self, writer: Writer) -> list:
        writer.add("values", self.s)
        writer.add("halves", self.left)
        writer.add("halves", self.right)
        return [len(self.s)]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "HalfLowRank":
        (rank,) = arguments
        sides, s = reader.sides(shape, rank), reader.take("values", rank)
        left, right = (reader.take("halves", rank * side).view(rank, side) for side in sides)
        return cls(left, s, right)

    @property
    def rank(self) -> int:
        return len(self.s)

    @property
    def bits(self) -> int:
        return 16 * (self.left.numel() + self.right.numel()) + 32 * self.rank


@exactly
def low_rank(
    theta_0: State,
    experts: Mapping[str, State],
    budget: int | str | None = None,
    *,
    share: float | None = None,
    ranks: Literal["even", "water-filling"] = "even",
    weight: float = 0.0,
    vector_bits: int | None = 16,
) -> Peer:
    """Rank-r task vectors in half precision.

    ``share`` of the components of each matrix, in [0, 1], without a budget: 1 / N as TSV-C takes it. With a budget
    components are added until the file is full: ``even`` raises the share of all matrices alike (TSV-C),
    ``water-filling`` takes the component that buys most energy for its bytes (ours). In half precision: factors of
    three bits (``peers.rounded``) are stronger by far, at every size that was measured. ``weight``: from 0, where
    squared errors of all matrices count alike, to 1, where they count relative to ||M||.
    ``vector_bits``: of the elements of 1-D tensors; below 16 they are quantised as TVQ does it (``quantised.vectors``).
    """
    if ranks not in ("even", "water-filling"):
        raise DTSError(f"ranks is {ranks!r}: choose even or water-filling")
    if budget is not None and share is not None:
        raise DTSError("both a budget and a share are given: pass one of them")
    if share is not None and not 0 <= share <= 1:
        raise DTSError(f"share is {share}: it must lie in [0, 1]")
    if not 0 <= weight <= 1:
        raise DTSError(f"weight is {weight}: it must lie in [0, 1]")
    check_vector_bits(vector_bits)
    made = frames(theta_0, experts)
    share = 1 / len(made) if share is None else share
    settings = {"ranks": ranks, "weight": weight}
    return Peer(theta_0, {task: _delta(frame, budget, share, settings, vector_bits) for task, frame in made.items()})


def decompositions(frame: Frame) -> dict[str, Decomposition]:
    """Of all tensors but 1-D ones, as matrices, all components."""
    matrices = {name: x.reshape(len(x), -1) for name, x in frame.items() if x.dim() > 1}
    return {name: decompose(matrix, min(matrix.shape), "full") for name, matrix in matrices.items()}


def _delta(
    frame: Frame, budget: int | str | None, share: float, settings: Mapping, vector_bits: int | None
) -> TaskDelta:
    flat, found = vectors(frame, vector_bits, budget), decompositions(frame)

    def of(kept: Mapping[str, int]) -> TaskDelta:
        parts = {name: HalfLowRank.of(found[name].first(kept[name])) for name in found if kept[name]}
        return frame.delta("low-rank", flat | parts, settings)

    if budget is None:
        return of({name: round(share * len(x.s)) for name, x in found.items()})
    costs = {name: 2 * (len(x.u) + x.vh.shape[1]) + 4 for name, x in found.items()}
    sizes = {name: torch.linalg.vector_norm(x.s).item() ** settings["weight"] for name, x in found.items()}
    even = settings["ranks"] == "even"
    offers = sorted(
        ((number + 1) / len(x.s) if even else -((value / sizes[name]) ** 2) / costs[name], name, number)
        for name, x in found.items()
        for number, value in enumerate(x.s.tolist())
    )
    order, budget = [name for _, name, _ in offers], frame.budget(budget)
    guess = prefix((costs[name] for name in order), budget - len(of(Counter()).to_bytes()))
    return largest(lambda count: of(Counter(order[:count])), budget, len(order), guess)
