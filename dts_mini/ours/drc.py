"""DRC, "decompose, round, code": our data-free successor of DTS, for the same bytes.

    decompose   M (m x n)  ->  U (m x r), s (r), V^T (r x n)        as in DTS
    round       U diag(s)  ->  integers A;  the V^T that is best with A  ->  integers B     one step for both
    code        A, B       ->  bytes                                                        an entropy code

DTS gives every element of every kept component two bits. But the error that a rounded component leaves does not
depend on its singular value when u_i s_i and v_i s_i are rounded with one step; only the bits do: many for a strong
component, few for a weak one, none for one that would round to zero. That is reverse water-filling, the optimum for
a Gaussian source (Cover and Thomas, Elements of Information Theory, section 10.3.3): one number, the step, sets the
ranks and the code widths of all tensors at once, and a budget is met by choosing it.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dts_mini.core.budget import fit, largest
from dts_mini.core.container import Rank
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import BudgetError, DTSError, StateError
from dts_mini.core.frame import Frame
from dts_mini.core.parts import Bounds, Part, Reader, Writer
from dts_mini.core.svd import Decomposition, bounds, decompose, frobenius, ridged
from dts_mini.ours.coding import PEAK, Decoder, Encoder, code_bits

NOTCHES = 128  # steps per halving: a notch is about 0.5 % in bytes
_RANGE = 150 * NOTCHES  # either way from a tensor's weighted norm: any norm that float32 holds is within
_LEAST = 1e-32  # a norm below which products of steps are none of float32
_2PIE = 2 * math.pi * math.e  # of a Gaussian's entropy, log2(2 pi e variance) / 2
_FIRST = 7 * NOTCHES  # where a search begins
_FULL = 0.97  # a file that takes this share of its budget is full
_TRIES = 8  # finer steps that are tried for one that is not


@dataclass(frozen=True)
class Settings:
    """How a remainder is compressed; ``notch`` says how fine, the rest was chosen on validation images."""

    notch: int | None = None  # the step is 2^(-notch / NOTCHES) ||M||^weight; a budget sets it, 1% where none is given
    # From 0, where squared errors of all tensors count alike, to 1, where they count relative to ||M||.
    weight: float = 0.7
    cut: float = 0.5  # a component goes where the root mean square of its longer vector is below so many steps
    flat: float = 5.0  # the step of a tensor of one dimension, a bias or a gain, is so many times as large
    dead: float = 0.65  # magnitudes below it are rounded to 0, those below 1 + it to 1, and so on
    fitted: bool = True  # B is the best that goes with A, and the singular values are the best that go with both
    norm: float = 0.5  # each tensor is multiplied by (||M|| / ||M_hat||)^norm: 1 restores its norm
    sized_by: ClassVar[str] = "notch"  # what a budget decides instead
    convolutions: ClassVar[str] = "matrix"

    def __post_init__(self) -> None:
        if self.notch is not None and not -_RANGE <= self.notch <= _RANGE:
            raise DTSError(f"notch is {self.notch}: it must lie in {-_RANGE}..{_RANGE}")
        if not 0 <= self.weight <= 1:
            raise DTSError(f"weight is {self.weight}: it must lie in [0, 1]")
        if not 1 <= self.flat <= 64:
            raise DTSError(f"flat is {self.flat}: it must lie in [1, 64]")
        if not 0 <= self.cut <= 2:
            raise DTSError(f"cut is {self.cut}: it must lie in [0, 2]")
        if not 0.5 <= self.dead < 1:
            raise DTSError(f"dead is {self.dead}: it must lie in [0.5, 1)")
        if not 0 <= self.norm <= 1:
            raise DTSError(f"norm is {self.norm}: it must lie in [0, 1]")


@dataclass(frozen=True, eq=False)
class RoundedMatrix(Part):
    """A tensor of two or more dimensions as a matrix: A (r x m) and B (r x n), int16; M_hat = A^T diag(s unit) B.

    ``s``: float16 (r), at most 1; ``unit``: float32, a scalar.
    """

    arguments: ClassVar[Any] = tuple[Rank]
    of_matrix: ClassVar[bool] = True
    left: Tensor
    s: Tensor
    right: Tensor
    unit: Tensor

    def factors(self) -> tuple[Tensor, Tensor]:
        """A^T diag(s unit) (m x r) and B (r x n), float32."""
        return (self.left.float() * (self.s.float() * self.unit)[:, None]).T, self.right.float()

    def restore(self) -> Tensor:
        u, vh = self.factors()
        return u @ vh

    def write(self, writer: Writer) -> list:
        writer.add("halves", self.s)
        writer.add("values", self.unit)
        integers = writer.stream("integers", Encoder)
        integers.add(self.left)
        integers.add(self.right)
        return [len(self.s)]

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "RoundedMatrix":
        (rank,) = arguments
        sides = reader.sides(shape, rank)
        s, unit = reader.take("halves", rank), reader.take("values", 1).reshape(())
        left, right = (reader.stream("integers", Decoder).take(rank, side) for side in sides)
        for factor in (left, right):
            reader.within(_peak(factor))
        return cls(left, s, right, unit)

    @property
    def rank(self) -> int:
        return len(self.s)

    @property
    def bits(self) -> int:
        return round(sum(code_bits(rows, _peak(rows)) for rows in (self.left, self.right))) + 16 * self.rank + 32


@dataclass(frozen=True, eq=False)
class RoundedFlat(Part):
    """A 1-D tensor: integers (1 x n), int16, times ``unit``, float32."""

    integers: Tensor
    unit: Tensor

    def restore(self) -> Tensor:
        return self.integers.float() * self.unit

    def write(self, writer: Writer) -> list:
        writer.add("values", self.unit)
        writer.stream("integers", Encoder).add(self.integers)
        return []

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...], *arguments) -> "RoundedFlat":
        unit = reader.take("values", 1).reshape(())
        integers = reader.stream("integers", Decoder).take(1, math.prod(shape))
        reader.within(_peak(integers))
        return cls(integers, unit)

    @property
    def bits(self) -> int:
        return round(code_bits(self.integers, _peak(self.integers))) + 32


@dataclass(frozen=True)
class Spectrum:
    """A tensor as an m x n matrix (a convolution is out x (in k k), one dimension a single row): ``s`` are its singular
    values, falling, float64, of which the leading ones are ``known`` and others supposed; ``norm`` is ||M||;
    ``single``: of a tensor of one dimension.
    """

    sides: tuple[int, int]
    s: Tensor
    norm: float
    known: int
    single: bool = False

    @classmethod
    def of(cls, x: Tensor) -> "Spectrum":
        """All singular values of a tensor."""
        if x.dim() == 1:
            return cls.row(x[None])
        matrix = as_matrix(x).double()
        return cls.leading(matrix, torch.linalg.svdvals(matrix))

    @classmethod
    def row(cls, matrix: Tensor) -> "Spectrum":
        """Of a tensor of one dimension, as a single row (1 x n)."""
        norm = frobenius(matrix)
        return cls(tuple(matrix.shape), torch.tensor([norm], dtype=torch.float64, device="cpu"), norm, 1, single=True)

    @classmethod
    def leading(cls, matrix: Tensor, s: Tensor, whole: bool = False) -> "Spectrum":
        """Leading singular values, and what the rest may be: along a straight line from the last known one down, to
        zero or to the end, so that all squares together are about ||M||^2. Where they are the ``whole`` spectrum, what
        is missing from ||M||^2 is rounding, and the rest is zero."""
        norm, s, more = frobenius(matrix), s.double().cpu(), min(matrix.shape) - len(s)
        rest = norm**2 - s.square().sum().item()
        if more and rest > 0 and not whole:
            level = min(rest / more / s[-1].item() ** 2, 1.0)  # the mean square of the rest, that of the last being 1
            end = ((12 * level - 3) ** 0.5 - 1) / 2 if level > 1 / 3 else 1 - 1 / (3 * level)
            line = s[-1] * torch.linspace(1, end, more + 1, dtype=torch.float64, device="cpu")[1:].clamp(min=0)
        else:
            line = s.new_zeros(more)
        return cls(tuple(matrix.shape), torch.cat([s, line]), norm, len(s))

    def step(self, settings: Settings) -> float:
        """What an integer stands for; never so small that an element needs more than half the largest integer."""
        return max(2 ** (-settings.notch / NOTCHES) * self._coarse(settings), 2 * self.s[0].item() / PEAK)

    def _coarse(self, settings: Settings) -> float:
        """The step at notch 0."""
        return (settings.flat if self.single else 1.0) * self.norm**settings.weight

    def rank(self, settings: Settings) -> int:
        """Components whose longer vector, times s, has a root mean square of ``cut`` steps or more; s of 0 are none."""
        return int(((self.s >= self.least(settings)) & (self.s > 0)).sum())

    def least(self, settings: Settings) -> float:
        """The singular value from which on a component counts."""
        return settings.cut * self.unit(settings)

    def unit(self, settings: Settings) -> float:
        """The singular value of a component whose longer vector has a root mean square of one step."""
        return self.step(settings) * max(self.sides) ** 0.5

    def finest(self, settings: Settings) -> int:
        """The notch beyond which the step stays."""
        room = PEAK / 2 * self._coarse(settings) / self.s[0].item()
        return max(-_RANGE, min(_RANGE, math.ceil(NOTCHES * math.log2(room))))


def as_matrix(x: Tensor) -> Tensor:
    """A view (m x n): a convolution as out x (in k k), one dimension as a single row."""
    return x.reshape(len(x), -1) if x.dim() > 1 else x.reshape(1, -1)


def compress(
    frame: Frame, settings: Settings, budget: int | None = None, progress: Callable[[str], object] = str
) -> TaskDelta:
    """A delta of all tensors; with a budget in bytes ``notch`` is its choice: the finest whose file fits.

    Files of neighbouring notches differ by half a percent, and the search measures the file itself, so that a budget is
    used to within that. A tensor that the step rounds to nothing has no part.
    """
    if budget is None and settings.notch is None:
        budget = frame.budget("1%")
    shapes = {key: piece.shape for key, piece in frame.pieces.items()}
    numbers = sum(shape.numel() for shape in shapes.values())
    share = (
        1 / 8 if budget is None else 8 * budget / max(numbers, 1)
    )  # bits a parameter; an element takes two, more or less
    survey = Survey(frame, progress)
    survey.look({name: math.ceil(share / 2 * _most(shape)) for name, shape in shapes.items()})
    if budget is None:
        survey.deepen(settings)
        return survey.bounded(survey.delta(settings))
    at = lambda number: replace(settings, notch=number - _RANGE)  # numbers count from the coarsest step
    limit = max((spectrum.finest(settings) for spectrum in survey.spectra.values()), default=0) + _RANGE
    about = lambda number: survey.bits(at(number)) / 8
    best = fit(lambda number: int(about(number)), budget, limit, _FIRST + _RANGE)
    while True:  # the estimate's notch and an eighth of an octave more; that again as often as it was too careful
        finest = min(best + NOTCHES // 8, limit)
        survey.deepen(at(finest))
        delta = largest(lambda number: survey.delta(at(number)), budget, finest, best, about)
        best = delta.settings["notch"] + _RANGE
        if best < finest or finest == limit:
            finer = range(best - _RANGE + 1, limit - _RANGE, NOTCHES // 4)
            return survey.bounded(survey.filled(delta, settings, budget, finer))


class Survey:
    """Spectra and leading components of a frame's tensors, and more of them as a finer step needs more."""

    def __init__(self, frame: Frame, progress: Callable[[str], object]) -> None:
        self.frame, self.progress = frame, progress
        self.spectra: dict[str, Spectrum] = {}
        self.sources: dict[str, Tensor | Decomposition] = {}
        # All spectra one after another, whose each is, and of each its sides, norm, largest value, and whether single.
        self._flat: tuple[Tensor, ...] | None = None

    def look(self, ranks: Mapping[str, int]) -> None:
        """Finds so many components of each tensor named."""
        for name, (spectrum, source) in self.frame.map(_survey, {name: (rank,) for name, rank in ranks.items()}):
            if 0 < spectrum.norm < _LEAST:
                raise StateError(
                    f"tensor {name!r}: all that it differs by is {spectrum.norm:.0e}, for which float32 has no step; "
                    f"keep it as it is, keep=[{name!r}]"
                )
            if name not in self.spectra:
                self.progress(name)
            self.spectra[name], self.sources[name] = spectrum, source
            self._flat = None

    def deepen(self, settings: Settings) -> None:
        """Finds more components wherever the step may need more than are at hand."""
        while True:
            ranks = zip(self.spectra.items(), self._counted(settings)[0].tolist(), strict=True)
            short = {name: rank for (name, spectrum), rank in ranks if rank > spectrum.known}
            if not short:
                return
            self.look(short)

    def bits(self, settings: Settings) -> float:
        """About what all components take."""
        return self._counted(settings)[1]

    def _counted(self, settings: Settings) -> tuple[Tensor, float]:
        """The rank of each spectrum, and about the bits of all components, were their elements Gaussian: log2(1 + 2 pi
        e (rms / step)^2) / 2 each. In one go: a model may have 10,000 tensors.
        """
        if self._flat is None:
            spectra = list(self.spectra.values())
            counts = torch.tensor([len(spectrum.s) for spectrum in spectra], dtype=torch.int64, device="cpu")
            sides = torch.tensor([spectrum.sides for spectrum in spectra], dtype=torch.float64, device="cpu")
            empty = torch.empty(0, dtype=torch.float64, device="cpu")
            owner = torch.repeat_interleave(torch.arange(len(spectra), device="cpu"), counts)
            each = lambda of: torch.tensor([of(x) for x in spectra], dtype=torch.float64, device="cpu")
            known = each(lambda x: x.norm), each(lambda x: x.s[0]), each(lambda x: x.single)
            self._flat = torch.cat([empty, *(spectrum.s for spectrum in spectra)]), owner, sides.view(-1, 2), *known
        s, owner, sides, norm, largest, single = self._flat
        coarse = norm**settings.weight * torch.where(single > 0, settings.flat, 1.0)
        step = torch.maximum(2 ** (-settings.notch / NOTCHES) * coarse, 2 * largest / PEAK)  # as ``Spectrum.step``
        counted = (s >= (settings.cut * step * sides.amax(1).sqrt())[owner]) & (s > 0)
        s, owner = s[counted], owner[counted]
        ratio = (s / step[owner]).square()[:, None] / sides[owner]
        codes = (torch.log2(1 + _2PIE * ratio) * sides[owner] / 2)[sides[owner] > 1].sum().item()
        return torch.bincount(owner, minlength=len(self.spectra)), codes + 32 * len(s)

    def delta(self, settings: Settings, ranks: Mapping[str, int] | None = None) -> TaskDelta:
        """What the step makes of the components, with blank bounds, as long as real ones in a file; with ``ranks`` of
        so many of each tensor at most.
        """
        most = lambda name: math.inf if ranks is None else ranks.get(name, 0)
        rounded = {
            name: _rounded(source, self.spectra[name], settings, most(name)) for name, source in self.sources.items()
        }
        parts = {name: part for name, part in rounded.items() if part is not None}
        blank = {name: Bounds(1.0, 1.0, 1.0) for name, part in parts.items() if part.rank}
        return self.frame.delta("drc", parts, asdict(settings), blank)

    def filled(self, delta: TaskDelta, settings: Settings, budget: int, finer: Sequence[int]) -> TaskDelta:
        """The delta, or a better one where it leaves much of the budget: components of equal strength come in together,
        and none of them may fit where some would. Then steps as fine as the first few of ``finer`` are tried for as
        many of the strongest components as fit, and the least error decides.
        """
        found = [delta]
        for notch in finer[:_TRIES] if delta.size() < _FULL * budget else ():
            at = replace(settings, notch=notch)
            self.deepen(at)
            strengths = [
                (-strength, key)
                for key, spectrum in self.spectra.items()
                for strength in (spectrum.s[: spectrum.rank(at)] / spectrum.unit(at)).tolist()
            ]
            order = [key for _, key in sorted(strengths)]
            first = lambda count, at=at, order=order: self.delta(at, Counter(order[:count]))
            with suppress(BudgetError):  # so fine a step is too dear even without a component
                found.append(largest(first, budget, len(order), len(order) // 2))
        return found[0] if len(found) == 1 else min(found, key=lambda made: self.error(made, settings))

    def error(self, delta: TaskDelta, settings: Settings) -> float:
        """The squared error of all tensors, each at the length that suits it best and weighted as steps are."""
        total = 0.0
        for key, spectrum in self.spectra.items():
            rest, restored = spectrum.norm**2, self.frame.part_of(delta, key).restore()
            if restored is not None:
                x, found = (y.double().flatten().cpu() for y in (self.frame[key], restored))
                rest -= ((x @ found) ** 2 / (found @ found)).item()
            total += rest / spectrum.norm ** (2 * settings.weight)
        return total

    def bounded(self, delta: TaskDelta) -> TaskDelta:
        """The same with its bounds."""
        bounds = {}
        for name in delta.bounds:
            part = self.frame.part_of(delta, name)
            bounds[name] = _bounds(self.frame[name], self.sources[name].first(part.rank), part).stored()
        return replace(delta, bounds=bounds)


def _most(shape: torch.Size) -> float:
    """Components whose two vectors have together as many elements as the matrix."""
    return shape[0] * shape[1:].numel() / (shape[0] + shape[1:].numel())


def _survey(x: Tensor, rank: int) -> tuple[Spectrum, Tensor | Decomposition]:
    """A tensor's spectrum, and what rounding takes: the elements (1 x n) of one dimension, else leading components."""
    matrix = as_matrix(x)
    if x.dim() == 1:
        return Spectrum.row(matrix), matrix.float().cpu()
    small = min(matrix.shape)
    rank = small if small <= 256 else min(small, rank + rank // 8 + 8)  # small ones cost little
    found = decompose(matrix, rank)
    return Spectrum.leading(matrix, found.s, whole=len(found.s) < rank), found


@torch.no_grad()
def _rounded(source: Tensor | Decomposition, spectrum: Spectrum, settings: Settings, most: float) -> Part | None:
    """The integers of ``most`` components at most, their values fitted and the norm restored; None where all are 0."""
    step = spectrum.step(settings)
    if isinstance(source, Tensor):
        integers = _integers(source / step, settings.dead)
        held = step * torch.linalg.vector_norm(integers.float()).item()
        return (
            RoundedFlat(
                integers,
                torch.tensor(step * (spectrum.norm / held) ** settings.norm, dtype=torch.float32, device="cpu"),
            )
            if held
            else None
        )
    u, s, vh, _ = source
    rank = min(len(s), spectrum.rank(settings), most)
    left = _integers((u[:, :rank] * s[:rank]).T / step, settings.dead)  # A (r, m)
    some = left.any(1)
    left, strength = left[some], s[:rank][some]
    if not len(left):
        return None
    a = left.to(s)  # (r, m)
    right, values = vh[:rank][some] * (strength / step)[:, None], step**2 / strength.double()
    if settings.fitted:  # C is the best that goes with A; A C ~ M, as U (S V^T) is
        inner = (a @ u) * s  # A M in the basis of V: (r, k)
        c = torch.linalg.solve(ridged(a @ a.T), inner.double()).to(s) @ vh
        right = c * (strength / step**2)[:, None]
    right = _integers(right, settings.dead)
    if not right.any():  # its gram is none to solve with
        return None
    b = right.to(s)  # (r, n)
    gram = (a @ a.T).double() * (b @ b.T).double()  # of the r products a_i b_i, (r, r)
    if settings.fitted:
        values = torch.linalg.solve(ridged(gram), (inner * (b @ vh.T)).sum(1).double())
    held = (values @ gram @ values).clamp(min=0).sqrt().item()
    if not held:
        return None
    values = values * (spectrum.norm / held) ** settings.norm
    unit = values.abs().max()
    return RoundedMatrix(left.cpu(), (values / unit).half().cpu(), right.cpu(), unit.float().cpu())


def _integers(x: Tensor, dead: float) -> Tensor:
    """Rounded towards zero by more than half: int16."""
    magnitudes = (x.abs() + 1 - dead).clamp(min=0).floor()
    if magnitudes.numel() and magnitudes.max() > PEAK:
        raise DTSError(f"an integer of {int(magnitudes.max()):,} is beyond {PEAK:,}: give a smaller budget or notch")
    return (magnitudes * x.sign()).to(torch.int16).contiguous()  # as a file gives them back


def _bounds(x: Tensor, exact: Decomposition, part: RoundedMatrix) -> Bounds:
    u, vh = (factor.to(x) for factor in part.factors())
    return Bounds(*bounds(as_matrix(x), exact, u, torch.ones_like(exact.s), vh))


def _peak(rows: Tensor) -> int:
    return int(rows.abs().max()) if rows.numel() else 0
