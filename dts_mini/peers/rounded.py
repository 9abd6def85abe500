"""Truncated SVD whose singular vectors are rounded to few bits: one width for all of them, or fewer for the weaker.

    M (m x n)  ~  sum_i  v_i  L(a_i) L(b_i)^T       a_i (m), b_i (n): codes of w_i bits; v_i: one value a component

A width w has 2^w levels L, those that are best for a Gaussian (Max 1960, Lloyd 1982), and each vector its own scale,
which lies in v_i: elements of singular vectors are close to Gaussian. Which components a file holds, and how wide, is
a knapsack: see ``_offers``. Everything is data-free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from dts_mini.core.budget import largest
from dts_mini.core.codes import pack, unpack
from dts_mini.core.container import Rank
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Part, Reader, Writer
from dts_mini.core.state import State, exactly
from dts_mini.core.svd import Decomposition, ridged
from dts_mini.peers.low_rank import decompositions
from dts_mini.peers.peer import Frame, Peer, frames, prefix
from dts_mini.peers.quantised import check_vector_bits, vectors

# The positive half of the levels, in standard deviations, and the squared error that a Gaussian's rounding leaves.
_LEVELS = {
    1: ((0.7979,), 0.3634),
    2: ((0.4528, 1.510), 0.1175),
    3: ((0.2451, 0.7560, 1.344, 2.152), 0.03454),
    4: ((0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733), 0.009497),
    8: (tuple((k + 0.5) / 128 for k in range(128)), 0.0),  # even steps up to the largest element
}
_TURNS = 10  # of Lloyd's iteration for a vector's scale


@dataclass(frozen=True, eq=False)
class FewBits(Part):
    """Codes of U^T (r x m) and V^T (r x n), uint8; ``widths`` (r): bits of each component's codes.

    ``values`` (r): half precision, at most 1, times ``unit``, float32, a scalar.
    """

    left: Tensor
    right: Tensor
    widths: tuple[int, ...]
    values: Tensor
    unit: Tensor

    arguments: ClassVar[Any] = Annotated[list[tuple[Annotated[int, Meta(ge=1, le=8)], Rank]], Meta(min_length=1)]
    of_matrix: ClassVar[bool] = True

    def factors(self) -> tuple[Tensor, Tensor]:
        """U diag(v) (m x r) and V^T (r x n), float32."""
        left, right = (_restored(side, self.widths) for side in (self.left, self.right))
        return (left * (self.values.float() * self.unit)[:, None]).T, right

    def restore(self) -> Tensor:
        u, vh = self.factors()
        return u @ vh

    def write(self, writer: Writer) -> list:
        writer.add("values", self.unit)
        writer.add("halves", self.values)
        for width, rows in _runs(self.widths):
            writer.add("codes", pack(torch.cat([self.left[rows].flatten(), self.right[rows].flatten()]), width))
        return [[width, rows.stop - rows.start] for width, rows in _runs(self.widths)]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "FewBits":
        if any(width not in _LEVELS for width, _ in arguments):
            raise reader.fault(f"is of widths {[width for width, _ in arguments]}, of which there are no levels")
        m, n = reader.sides(shape, sum(count for _, count in arguments))
        widths = tuple(width for width, count in arguments for _ in range(count))
        unit, values = reader.take("values", 1).reshape(()), reader.take("halves", len(widths))
        left, right = [], []
        for width, count in arguments:
            codes = unpack(reader.packed("codes", count * (m + n), width), count * (m + n), width)
            left.append(codes[: count * m].view(count, m))
            right.append(codes[count * m :].view(count, n))
        return cls(torch.cat(left), torch.cat(right), widths, values, unit)

    @property
    def rank(self) -> int:
        return len(self.widths)

    @property
    def bits(self) -> int:
        return sum(self.widths) * (self.left.shape[1] + self.right.shape[1]) + 16 * self.rank + 32


def _runs(widths: Sequence[int]) -> list[tuple[int, slice]]:
    """Neighbouring components of one width: the width, and where they stand."""
    runs, start = [], 0
    for width, same in groupby(widths):
        stop = start + len(list(same))
        runs.append((width, slice(start, stop)))
        start = stop
    return runs


def _levels(width: int) -> Tensor:
    half = torch.tensor(_LEVELS[width][0], dtype=torch.float32, device="cpu")
    return torch.cat([-half.flip(0), half])


def _restored(codes: Tensor, widths: Sequence[int]) -> Tensor:
    """The levels (r x n) that codes stand for."""
    return torch.cat([_levels(width)[codes[rows].long()] for width, rows in _runs(widths)])


def _rounded(x: Tensor, widths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Codes (r x n) of rows, and the scale (r) of each that is best for them."""
    codes, scales = [], []
    for width, rows in _runs(widths):
        part, levels = x[rows].float().contiguous(), _levels(width)
        edges = (levels[1:] + levels[:-1]) / 2
        if width > max(w for w in _LEVELS if w < 8):
            scale = part.abs().amax(1, keepdim=True)
        else:
            scale = part.square().mean(1, keepdim=True).sqrt()
        scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
        for _ in range(_TURNS):
            code = torch.bucketize(part / scale, edges)
            value = levels[code]
            scale = (part * value).sum(1, keepdim=True) / value.square().sum(1, keepdim=True)
        codes.append(code.to(torch.uint8))
        scales.append(scale[:, 0])
    return torch.cat(codes), torch.cat(scales)


@exactly
def low_rank_int(
    theta_0: State,
    experts: Mapping[str, State],
    budget: int | str,
    *,
    widths: Sequence[int] = (3,),
    fitted: bool = True,
    weight: float = 0.75,
    norm: float = 0.25,
    vector_bits: int | None = None,
) -> Peer:
    """Low-rank task vectors with factors of few bits, e.g. INT3: what DTS's four groups are to be measured by (ours).

    ``widths``: bits that a component's elements may have, of 1, 2, 3, 4 and 8; with one of them all have it.
    ``fitted``: the right vectors are rounded from those that are best with the left ones as stored, and the values are
    refitted. ``weight``: from 0, where squared errors of all matrices count alike, to 1, where they count relative to
    ||M||. ``norm``: each matrix is multiplied by (||M|| / ||M_hat||)^norm. ``vector_bits``: of 1-D tensors,
    None for what the budget says (``quantised.vectors``). The
    defaults were chosen on validation images; none of them costs a byte.
    """
    if not widths or not set(widths) <= set(_LEVELS):
        raise DTSError(f"widths are {tuple(widths)}: choose among {', '.join(map(str, _LEVELS))}")
    if not 0 <= weight <= 1 or not 0 <= norm <= 1:
        raise DTSError(f"weight is {weight} and norm {norm}: both must lie in [0, 1]")
    check_vector_bits(vector_bits)
    settings = {"widths": sorted(set(widths)), "fitted": fitted, "weight": weight, "norm": norm}
    made = frames(theta_0, experts)
    return Peer(theta_0, {task: _delta(frame, budget, settings, vector_bits) for task, frame in made.items()})


@exactly
def delta_come(theta_0: State, experts: Mapping[str, State], budget: int | str, **settings) -> Peer:
    """Delta-CoMe (arXiv 2406.08903, NeurIPS 2024): 8 bits for the strongest components, then 3, then 2.

    The paper fixes how many components have which width, the same in all layers, and rounds them by GPTQ on
    calibration data. Here the rounding is data-free, and the numbers are the best for the budget: see ``_offers``.
    """
    return low_rank_int(theta_0, experts, budget, **{"widths": (8, 3, 2), "fitted": False, "norm": 0.5} | settings)


@exactly
def delta_mix(theta_0: State, experts: Mapping[str, State], budget: int | str, **settings) -> Peer:
    """DeltaMix, also PrinMix (arXiv 2506.11087): the widths by a 0/1 linear program that minimises the error in the
    space of the SVD; the target of the second factor corrected for the rounding of the first.

    The paper rounds by GPTQ on calibration data and solves a program for each matrix; here the rounding is data-free,
    and one program is solved for all matrices: see ``_offers``.
    """
    return low_rank_int(theta_0, experts, budget, **{"widths": (1, 2, 3, 4, 8), "norm": 0.5} | settings)


def _delta(frame: Frame, budget: int | str, settings: Mapping, vector_bits: int | None) -> TaskDelta:
    flat, found = vectors(frame, vector_bits, budget), decompositions(frame)
    offers = sorted(
        offer
        for name, x in found.items()
        for offer in _offers(name, x, torch.linalg.vector_norm(frame[name]).item() ** settings["weight"], settings)
    )

    def at(count: int) -> TaskDelta:
        held: dict[str, dict[int, int]] = {}
        for _, name, component, width, _ in offers[:count]:
            held.setdefault(name, {})[component] = width
        parts = {
            name: _part(found[name], tuple(widths[i] for i in sorted(widths)), settings)
            for name, widths in held.items()
        }
        return frame.delta("low-rank, few bits", flat | parts, settings)

    limit = frame.budget(budget)
    guess = prefix((cost for *_, cost in offers), limit - len(at(0).to_bytes()))
    return largest(at, limit, len(offers), guess)


def _offers(name: str, x: Decomposition, size: float, settings: Mapping) -> list[tuple[float, str, int, int, float]]:
    """What one more step in width of each component buys a byte (negative), its matrix, number, new width, and bytes.

    Of a component's energy s^2, both vectors rounded with a squared error D, (1 - D)^2 is kept. The steps are those of
    the upper hull of kept energy over bits, so that what a byte buys falls from step to step, and a prefix of all
    offers, sorted, solves DeltaMix's 0/1 linear program (a multiple-choice knapsack) for what the prefix costs.
    """
    steps, held = [], 0
    kept = {0: 0.0} | {width: (1 - _LEVELS[width][1]) ** 2 for width in settings["widths"]}
    sides = len(x.u) + x.vh.shape[1]
    while held < max(kept):
        cost = lambda width, held=held: (width - held) * sides / 8 + (0 if held else 2)
        best = max((w for w in kept if w > held), key=lambda w, held=held: (kept[w] - kept[held]) / cost(w))
        steps.append((best, kept[best] - kept[held], cost(best)))
        held = best
    return [
        (-((s / size) ** 2) * gain / cost, name, number, width, cost)
        for number, s in enumerate(x.s.tolist())
        for width, gain, cost in steps
    ]


def _part(x: Decomposition, widths: tuple[int, ...], settings: Mapping) -> FewBits:
    """The leading components of a matrix (all of it decomposed), rounded."""
    rank = len(widths)
    u, s, vh = (side.cpu() for side in (x.u, x.s, x.vh))
    left, scale = _rounded(u[:, :rank].T, widths)
    a = _restored(left, widths).to(s)
    inner = (a @ u) * s  # A M = inner V^T
    if settings["fitted"]:
        target = torch.linalg.solve(ridged(a @ a.T), inner.double()).to(s) @ vh
        right, _ = _rounded(target, widths)
    else:
        right, other = _rounded(vh[:rank], widths)
        values = s[:rank].double() * scale * other
    b = _restored(right, widths).to(s)
    gram = (a @ a.T).double() * (b @ b.T).double()
    if settings["fitted"]:
        values = torch.linalg.solve(ridged(gram), (inner * (b @ vh.T)).sum(1).double())
    held = (values @ gram @ values).clamp(min=0).sqrt()
    if held > 0:
        values = values * (torch.linalg.vector_norm(s.double()) / held) ** settings["norm"]
    unit = values.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return FewBits(left, right, widths, (values / unit).half(), unit.float())
