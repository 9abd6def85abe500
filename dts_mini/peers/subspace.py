"""A subspace shared by all tasks: of each matrix one U and one V for all, and a small core for each task (ours).

    M_n (m x n)  ~  U C_n V^T,    U (m x p),  V (n x q),  C_n = U^T M_n V (p x q)

U holds the leading left singular vectors of the task matrices side by side, V the leading right ones of them one
above the other (the Tucker-2 form of their stack, by its higher-order SVD). Tensors of more than two dimensions
count as matrices, out x rest; 1-D ones are kept in half precision, or
in fewer bits where a caller says so.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dts_mini.core.budget import fit
from dts_mini.core.container import Rank
from dts_mini.core.parts import Part, Reader, Writer
from dts_mini.core.state import State, exactly
from dts_mini.peers.peer import Peer, Relative, frames, names_of, prefix, shared_delta
from dts_mini.peers.quantised import check_vector_bits, vectors


@dataclass(frozen=True, eq=False)
class Subspace(Part):
    """U^T (p x m) and V^T (q x n) in half precision."""

    arguments: ClassVar[Any] = tuple[Rank, Rank]
    left: Tensor
    right: Tensor

    def write(self, writer: Writer) -> list:
        writer.add("halves", self.left)
        writer.add("halves", self.right)
        return [len(self.left), len(self.right)]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Subspace":
        sides = reader.sides(shape)
        if any(r > n for r, n in zip(arguments, sides, strict=True)):
            raise reader.fault(f"has a subspace of {arguments} in {sides}")
        return cls(*(reader.take("halves", r * n).view(r, n) for r, n in zip(arguments, sides, strict=True)))

    @property
    def bits(self) -> int:
        return 16 * (self.left.numel() + self.right.numel())


@dataclass(frozen=True, eq=False)
class Joined(Part):
    """A task's matrix: its core between the shared factors."""

    core: Tensor
    shared: Subspace

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.shared.left.float().T @ self.core, self.shared.right.float()

    def restore(self) -> Tensor:
        u, vh = self.factors()
        return u @ vh


@dataclass(frozen=True, eq=False)
class Core(Relative):
    """C_n (p x q): half precision, times ``unit``, float32, a scalar."""

    arguments: ClassVar[Any] = tuple[Rank, Rank]
    over: ClassVar[type[Part]] = Subspace
    values: Tensor
    unit: Tensor

    @classmethod
    def of(cls, core: Tensor) -> "Core":
        unit = core.abs().max().float()
        return cls((core / (unit if unit > 0 else 1)).half(), unit)

    def fits(self, shared: Subspace) -> bool:
        return tuple(self.values.shape) == (len(shared.left), len(shared.right))

    def join(self, shared: Subspace) -> Part:
        return Joined(self.values.float() * self.unit, shared)

    def write(self, writer: Writer) -> list:
        writer.add("values", self.unit)
        writer.add("halves", self.values)
        return list(self.values.shape)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Core":
        p, q = arguments
        if any(r > n for r, n in zip(arguments, reader.sides(shape), strict=True)):
            raise reader.fault(f"has a core of {arguments}, with shape {shape}")
        return cls(reader.take("halves", p * q).view(p, q), reader.take("values", 1).reshape(()))

    @property
    def bits(self) -> int:
        return 16 * self.values.numel() + 32


@exactly
def subspace(theta_0: State, experts: Mapping[str, State], budget: int | str, *, vector_bits: int | None = 16) -> Peer:
    """One subspace a matrix for all tasks, its size chosen by the budget: own file + shared file / N, of each task.

    Sizes grow one by one, p and q together until the shorter side is full, always of the matrix where that buys most
    energy for its bytes.
    """
    check_vector_bits(vector_bits)
    made = frames(theta_0, experts)
    flat = {task: vectors(frame, vector_bits, budget) for task, frame in made.items()}
    bases, cores, offers = {}, {}, []
    for name in names_of(made):
        if theta_0[name].dim() > 1:
            matrices = torch.stack([frame[name].flatten(1).double().cpu() for frame in made.values()])
            u = _leading(torch.einsum("tij,tkj->ik", matrices, matrices))
            v = _leading(torch.einsum("tij,tik->jk", matrices, matrices))
            bases[name], cores[name] = (u, v), dict(zip(made, u @ matrices @ v.T, strict=True))
            offers += _offers(name, torch.stack([*cores[name].values()]).square())
    order = [(name, cost) for _, name, _, cost in sorted(offers)]

    def at(count: int) -> Peer:
        sizes = Counter(name for name, _ in order[:count])
        sides = {name: (min(size, len(bases[name][0])), min(size, len(bases[name][1]))) for name, size in sizes.items()}
        common = {n: Subspace(bases[n][0][:p].half(), bases[n][1][:q].half()) for n, (p, q) in sorted(sides.items())}
        deltas = {}
        for task, frame in made.items():
            parts = {n: Core.of(cores[n][task][:p, :q]) for n, (p, q) in sides.items() if n in frame}
            deltas[task] = frame.delta("shared subspace", flat[task] | parts, {})
        return Peer(theta_0, deltas, shared_delta(theta_0, common, "shared subspace"))

    def size(count: int) -> int:
        """Bytes of the task that has the least to spare, as if its budget were the first's."""
        peer = at(count)
        return max(round(size + 0.5) - limits[task] + first for task, size in peer.bytes_per_task().items())

    limits = {task: frame.budget(budget) for task, frame in made.items()}
    first = next(iter(limits.values()))
    guess = prefix((cost for _, cost in order), first - size(0))
    return at(fit(size, first, len(order), guess))


def _leading(gram: Tensor) -> Tensor:
    """All eigenvectors of a Gram matrix (n x n) as rows, the strongest first, each one's largest element positive."""
    rows = torch.linalg.eigh(gram).eigenvectors.flip(1).T
    sign = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return rows * sign


def _offers(name: str, energy: Tensor) -> list[tuple[float, str, int, float]]:
    """For each size of one matrix's subspace: what it buys a byte (negative, never falling), name, size, bytes.

    ``energy`` (N x m x n): squares of the full cores. Bytes are those of one task: its core's, and the N-th part of
    the shared ones.
    """
    (tasks, m, n), held, best, offers = energy.shape, 0.0, float("inf"), []
    table = energy.sum(0).cumsum(0).cumsum(1)
    for size in range(1, max(m, n) + 1):
        p, q = min(size, m), min(size, n)
        total, before = table[p - 1, q - 1].item(), (min(size - 1, m), min(size - 1, n))
        cost = 2 * (p * q - before[0] * before[1]) + 2 * ((p - before[0]) * m + (q - before[1]) * n) / tasks
        best, held = min(best, (total - held) / cost), total
        offers.append((-best, name, size, cost))
    return offers
