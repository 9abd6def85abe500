"""Entropy coding of small signed integers: rows in, bytes out, close to the rows' own entropy.

Each row names one of 256 models by a byte: how often an integer is 0, and how fast larger ones become rare, as in a
geometric (a rounded Laplace) or in a Gaussian tail. A range coder (constriction, arXiv 2201.01741) then spends on
each integer about the binary logarithm of its probability. Probabilities are made of products, sums and quotients
in one order, which every machine rounds alike: a file decodes wherever it was written.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import constriction
import numpy as np
import torch
from torch import Tensor

from dts_mini.core.errors import DTSError, FileError

PEAK = 32_767  # the largest integer, either sign
# Most rows hold integers of one digit: for them a model says apart how often there is a zero, and how the others fall.
_ZERO = (0.006, 0.025, 0.06, 0.12, 0.2, 0.3, 0.4, 0.51, 0.62, 0.74, 0.86, 0.95)
_GEOMETRIC = (0.02, 0.1, 0.2, 0.32, 0.45, 0.6, 0.75, 0.9)  # p(k + 1) / p(k)
_GAUSSIAN = (0.3, 0.5, 0.68, 0.82, 0.91, 0.96, 0.985, 0.997)  # p(k) falls as their k^2-th power
# For rows of large integers a zero is a number like others; their scales, 4 to 10,000, are a quarter apart.
_SCALES = tuple(itertools.accumulate([1.287] * 31, lambda scale, step: scale * step, initial=4.0))
# From one weight to the next a tail falls by a factor, and that factor by another.
_FALLS = (*((ratio, 1.0) for ratio in _GEOMETRIC), *((g * g * g, g * g) for g in _GAUSSIAN))
_WIDE = (
    *((1 - 1 / scale, 1.0) for scale in _SCALES),
    *((1 - 0.5 / (scale * scale), 1 - 1 / (scale * scale)) for scale in _SCALES),
)
_FLOOR = 1e-7  # beside the largest weight: no integer up to the peak is impossible


class Encoder:
    """Gathers rows of integers, in order, and turns them into bytes at the end."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self.rows = 0

    def add(self, rows: Tensor) -> None:
        """``rows``: int16 (k x n)."""
        self._blocks.append(rows)
        self.rows += len(rows)

    def finish(self) -> Tensor:
        """uint8: the peak (2 bytes), a model a row, the range coder's words. The same rows give the same bytes."""
        peak = max((int(block.abs().max()) for block in self._blocks if block.numel()), default=1)
        peak = max(peak, 1)
        coder, models = constriction.stream.queue.RangeEncoder(), []
        for block, chosen in zip(self._blocks, _chosen(self._blocks, peak), strict=True):
            models.append(chosen.to(torch.uint8))
            for row, model in zip((block.int() + peak).numpy(), chosen.tolist(), strict=True):
                coder.encode(row, _model(model, peak))
        words = torch.from_numpy(coder.get_compressed().astype("<u4").view(np.uint8))
        return torch.cat([torch.tensor([peak % 256, peak // 256], dtype=torch.uint8, device="cpu"), *models, words])


class Decoder:
    """Gives the rows back, in the order in which they were added; ``rows`` is how many there are in all.

    ``fault`` makes the error of bytes that no ``Encoder`` wrote. The range coder itself would give any number of
    integers from any words, and end the process where memory is short: it is asked for what words of their number can
    hold, and what it gave is coded again, which must give these words.
    """

    def __init__(self, data: Tensor, rows: int, fault: Callable[[str], Exception] = FileError) -> None:
        self._fault, self._left, self._seen = fault, rows, 1
        if len(data) < 2 + rows or (len(data) - 2 - rows) % 4:
            raise fault(f"has {rows:,} coded rows in {len(data):,} bytes")
        self._peak = int(data[0]) + 256 * int(data[1])
        if not 1 <= self._peak <= PEAK:
            raise fault(f"has integers up to {self._peak:,}")
        self._models = iter(data[2 : 2 + rows].tolist())
        self._words = words = data[2 + rows :].numpy().view("<u4").astype(np.uint32)
        least = -math.log2(max(_ZERO))  # bits of the cheapest integer, about 0.07
        self._room = 1.01 * (32 * len(words) + 64) / least
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self._again = constriction.stream.queue.RangeEncoder()

    def take(self, rows: int, n: int) -> Tensor:
        """int16 (rows x n), of at least one row."""
        self._left, self._room = self._left - rows, self._room - rows * n
        if self._left < 0 or self._room < 0:
            raise self._fault(f"takes {rows:,} more rows of {n:,} integers, which are not there")
        taken = []
        for model in itertools.islice(self._models, rows):
            model = _model(model, self._peak)
            try:
                taken.append(self._coder.decode(model, n))
            except AssertionError as error:  # so the coder says that these words are none of its own
                raise self._fault("has words that are no code") from error
            self._again.encode(taken[-1], model)
        integers = np.stack(taken) - self._peak
        self._seen = max(self._seen, int(np.abs(integers).max(initial=0)))
        return torch.from_numpy(integers).to(torch.int16)

    def close(self) -> None:
        """The error of ``fault`` where rows or words are left over or missing, or the peak is none."""
        whole = np.array_equal(self._again.get_compressed(), self._words)
        if self._left or self._seen != self._peak or not whole:
            raise self._fault("has coded rows that belong to no tensor, or none as large as is said")


def code_bits(rows: Tensor, peak: int) -> float:
    """Bits that rows (k x n) of integers up to ``peak`` take, their models' bytes included, within a few words."""
    return _cheapest(rows, peak)[0].sum().item() + 8 * len(rows) if rows.numel() else 0.0


def _cheapest(rows: Tensor, peak: int) -> tuple[Tensor, Tensor]:
    """The bits that each row takes under the model that suits it best, and that model."""
    if peak > PEAK:
        raise DTSError(f"an integer of {peak} is beyond {PEAK}: take a larger step, that is, a smaller budget")
    peak = max(peak, 1)
    magnitudes = rows.abs().long()
    counts = torch.zeros(len(rows), peak + 1, dtype=torch.float64, device="cpu")
    counts.scatter_add_(1, magnitudes, torch.ones_like(magnitudes, dtype=torch.float64))
    bits, model = (counts @ _costs(peak)).min(1)
    return bits, model


def _chosen(blocks: Sequence[Tensor], peak: int) -> list[Tensor]:
    """The cheapest model of each row, block by block: those of one width together, for there may be 10,000 blocks."""
    chosen: dict[int, Tensor] = {}
    alike: dict[int, list[int]] = {}
    for place, block in enumerate(blocks):
        alike.setdefault(block.shape[1], []).append(place)
    for places in alike.values():
        sizes = [len(blocks[place]) for place in places]
        rows = torch.cat([blocks[place] for place in places])
        most = max(1, 2**22 // (peak + rows.shape[1] + 1))  # rows at a time: what is counted takes some 64 MiB
        models = torch.cat([_cheapest(some, peak)[1] for some in rows.split(most)])
        for place, found in zip(places, models.split(sizes), strict=True):
            chosen[place] = found
    return [chosen[place] for place in range(len(blocks))]


def _kept(most: int, few: int) -> Callable:
    """A cache of the latest results, fewer for large peaks: their tables take up to 64 MiB; a file says the peak."""

    def cached(function: Callable) -> Callable:
        small, large = functools.lru_cache(most)(function), functools.lru_cache(few)(function)
        return functools.wraps(function)(lambda *given: (small if given[-1] < 2048 else large)(*given))

    return cached


@_kept(8, 1)
def _costs(peak: int) -> Tensor:
    """(peak + 1, 256): the bits of each magnitude under each model."""
    return -torch.from_numpy(np.stack([_half(model, peak) for model in range(256)])).log2().T.contiguous()


def _half(model: int, peak: int) -> np.ndarray:
    """(peak + 1,): the probability of 0, and of +k as of -k, under a model."""
    if model < len(_ZERO) * len(_FALLS):
        zero, fall = divmod(model, len(_FALLS))
        tail = _tail(*_FALLS[fall], peak)
        return np.concatenate([[_ZERO[zero]], (1 - _ZERO[zero]) * tail / (2 * np.add.accumulate(tail)[-1])])
    tail = _tail(*_WIDE[model - len(_ZERO) * len(_FALLS)], peak + 1)
    return tail / (2 * np.add.accumulate(tail)[-1] - tail[0])


def _tail(fall: float, faster: float, peak: int) -> np.ndarray:
    """Weights from 1 on. ``accumulate`` goes first to last; ``sum`` and ``prod`` have another order elsewhere."""
    falls = np.multiply.accumulate(np.concatenate([[1.0, fall], np.full(max(peak - 2, 0), faster)])[:peak][1:])
    return np.maximum(np.multiply.accumulate(np.concatenate([[1.0], falls])), _FLOOR)


@_kept(512, 64)
def _model(model: int, peak: int) -> constriction.stream.model.Categorical:
    half = _half(model, peak)
    return constriction.stream.model.Categorical(np.concatenate([half[:0:-1], half]), perfect=False)
