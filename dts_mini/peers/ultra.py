"""UltraDelta (arXiv 2505.13563, NeurIPS 2025): rounded, pruned at random, rescaled; without data.

    quantise   each matrix to 2^b even levels between its least and its largest element
    allocate   most is pruned in the third of all elements whose matrices vary least, least in the third that vary most
    prune      of the elements of each level the same share, drawn at random: the distribution stays
    rescale    by 1 / (share kept), then by the least trace norm of all tasks over the task's own

The share kept, and how far the thirds lie apart, are one number here: the paper's 97 % with steps of 1 % are kept
shares of 2, 3 and, so that the mean is 3 %, about 4 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dts_mini.core.container import Count, Rank
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError
from dts_mini.core.parts import Part, Reader, Writer
from dts_mini.core.state import State, exactly
from dts_mini.ours.coding import Decoder, Encoder, code_bits
from dts_mini.peers.bitmap import entropy, read_bits, write_bits
from dts_mini.peers.peer import Frame, Peer, densest, frames, within
from dts_mini.peers.quantised import check_vector_bits, vectors


@dataclass(frozen=True, eq=False)
class Sampled(Part):
    """(level + offset) * step where ``kept`` (n, bool), zero elsewhere.

    ``levels``: int16, of the kept elements, counted from the level that is nearest to zero; ``offset`` and ``step``:
    float32, scalars.
    """

    kept: Tensor
    levels: Tensor
    offset: Tensor
    step: Tensor

    arguments: ClassVar[Any] = tuple[Rank, Count]

    def restore(self) -> Tensor:
        values = (self.levels.float() + self.offset) * self.step
        return torch.zeros(len(self.kept), dtype=torch.float32, device="cpu").masked_scatter(self.kept, values)

    def write(self, writer: Writer) -> list:
        writer.add("values", torch.stack([self.offset, self.step]))
        writer.stream("integers", Encoder).add(self.levels[None])
        return write_bits(self.kept, writer)

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "Sampled":
        offset, step = reader.take("values", 2)
        kept = read_bits(reader, torch.Size(shape).numel(), *arguments)
        return cls(kept, reader.stream("integers", Decoder).take(1, arguments[0])[0], offset, step)

    @property
    def bits(self) -> int:
        return entropy(self.kept) + round(code_bits(self.levels[None], int(self.levels.abs().max()))) + 64


@exactly
def ultra_delta(
    theta_0: State,
    experts: Mapping[str, State],
    budget: int | str | None = None,
    *,
    density: float | None = None,
    bits: int = 4,
    shrink: float = 0.1,
    vector_bits: int | None = None,
    seed: int = 0,
) -> Peer:
    """UltraDelta of all matrices: the share ``density`` of their elements is kept, 0.03 or what a budget chooses.

    With a density there is one size, and a smaller budget is an error. ``bits`` a level, entropy-coded in the file.
    What is kept is multiplied by density^(shrink - 1). With a ``shrink`` of 0, the paper's, the sum stays; the default
    was chosen on validation images and stands in for what the paper's code calls additional factor. ``seed``: of the
    random choice. 1-D tensors, which the paper leaves as theta_0 has them, have ``vector_bits``, None for what
    the budget says (``quantised.vectors``).
    """
    if density is None and budget is None:
        density = 0.03
    if density is not None and not 0 < density <= 1:
        raise DTSError(f"density is {density}: it must lie in (0, 1]")
    if not 1 <= bits <= 8:
        raise DTSError(f"bits is {bits}: it must lie in 1..8")
    if not 0 <= shrink <= 1:
        raise DTSError(f"shrink is {shrink}: it must lie in [0, 1]")
    check_vector_bits(vector_bits)
    made = frames(theta_0, experts)
    settings = {"bits": bits, "shrink": shrink, "seed": seed}
    deltas = {task: _delta(frame, budget, density, settings, vector_bits) for task, frame in made.items()}
    traces = {task: _trace_norm(delta) for task, delta in deltas.items()}
    least = min(traces.values())
    scaled = {t: _scaled(delta, least / traces[t] if traces[t] else 1) for t, delta in deltas.items()}
    return within(Peer(theta_0, scaled), made, budget)


def _delta(
    frame: Frame, budget: int | str | None, density: float | None, settings: Mapping, vector_bits: int | None
) -> TaskDelta:
    found = vectors(frame, vector_bits, budget)
    flat = {name: x.reshape(-1).float().cpu() for name, x in frame.items() if x.dim() > 1}
    levels, orders, g = {}, {}, torch.Generator("cpu").manual_seed(settings["seed"])
    for name, x in flat.items():
        levels[name] = _levels(x, settings["bits"])
        orders[name] = torch.randperm(len(x), generator=g, dtype=torch.int64, device="cpu")

    def at(density: float) -> TaskDelta:
        parts = {}
        for name, share in _shares(flat, density).items() if density else ():
            kept = _drawn(levels[name][0], orders[name], share)
            if kept.any():
                codes, offset, step = levels[name]
                level = torch.tensor(offset, dtype=torch.float32, device="cpu")
                scale = torch.tensor(step * density ** (settings["shrink"] - 1), dtype=torch.float32, device="cpu")
                parts[name] = Sampled(kept, codes[kept], level, scale)
        return frame.delta("UltraDelta", found | parts, {**settings, "density": density})

    if density is not None:
        return at(density)
    return densest(at, frame.budget(budget), sum(map(len, flat.values())), bits=2)


def _levels(x: Tensor, bits: int) -> tuple[Tensor, float, float]:
    """Numbers (n, int16) of the even levels nearest to the elements, 0 being the one nearest to zero; offset and step:
    (number + offset) * step is the level. An offset of 0 would mean that zero is a level, which the paper's are not."""
    low, high = x.min().item(), x.max().item()
    step = (high - low) / (2**bits - 1) or abs(high) or 1.0
    zero = round(-low / step)
    codes = ((x - low) / step).round().to(torch.int16) - zero
    return codes, low / step + zero, step


def _shares(flat: Mapping[str, Tensor], density: float) -> dict[str, float]:
    """The share that each matrix keeps: less in the third of all elements that vary least, more in the last third."""
    spread = {name: x.double().var(correction=0).item() for name, x in flat.items()}
    total, seen, shares, rest = sum(map(len, flat.values())), 0, {}, []
    for name in sorted(flat, key=lambda name: (spread[name], name)):
        seen += len(flat[name])
        if 3 * seen <= total:
            shares[name] = density * 2 / 3
        elif 3 * seen <= 2 * total:
            shares[name] = density
        else:
            rest.append(name)
    left = density * total - sum(share * len(flat[name]) for name, share in shares.items())
    share = left / max(sum(len(flat[name]) for name in rest), 1)
    return shares | dict.fromkeys(rest, min(share, 1.0))


def _drawn(levels: Tensor, order: Tensor, share: float) -> Tensor:
    """Which elements (n, bool) are kept: of each level the same share, those that come first in a random order."""
    kept = torch.zeros(len(levels), dtype=torch.bool, device="cpu")
    grouped, start = order[levels[order].argsort(stable=True)], 0
    for count in levels.unique(return_counts=True)[1].tolist():
        kept[grouped[start : start + round(count * share)]] = True
        start += count
    return kept


def _trace_norm(delta: TaskDelta) -> float:
    """The sum of the singular values of all sampled matrices."""
    pairs = ((part, delta.shapes[name]) for name, part in delta.parts.items() if isinstance(part, Sampled))
    return sum(torch.linalg.svdvals(part.restore().view(shape[0], -1)).sum().item() for part, shape in pairs)


def _scaled(delta: TaskDelta, ratio: float) -> TaskDelta:
    parts = {
        name: replace(part, step=part.step * ratio) if isinstance(part, Sampled) else part
        for name, part in delta.parts.items()
    }
    return replace(delta, parts=parts)
