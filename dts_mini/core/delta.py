"""First floor: a task's remainder as a ``TaskDelta``: made from two state dicts, saved, loaded, added back.

    compress(base, expert) -> TaskDelta -> save -> load -> rebuild(base, delta) -> the approximate expert

With the pretrained theta_0 as base this is DTS-T, with a merged model theta_m it is DTS-D (arXiv 2512.01461).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dts_mini.core import container
from dts_mini.core.errors import DTSError, FileError, StateError
from dts_mini.core.file import read_bytes, write_bytes
from dts_mini.core.packing import pack, unpack
from dts_mini.core.state import (
    State,
    check_outline,
    check_same_layout,
    check_values,
    compute_dtype,
    digest,
    fingerprint,
    outline,
    seal,
)
from dts_mini.core.tensor import GROUPS, Algorithm, decompose, rank_of, restore, rows, scale, threshold

Each = Callable[[Callable[[str], Any], Sequence[str]], Iterable[Any]]
"""Runs work for each of several tensors by name and yields the results in order: the builtin ``map`` does."""


@dataclass(frozen=True)
class Settings:
    """How a remainder is compressed; the defaults are the paper's."""

    keep_ratio: float = 0.1  # share of the components of each matrix that is kept, in (0, 1]
    groups: Literal[2, 4, 8] = 4
    scale: Literal["rms", "mean"] = "rms"
    per: Literal["matrix", "vector"] = "matrix"  # what is partitioned into groups at once
    algorithm: Algorithm = "auto"  # of the SVD

    def __post_init__(self) -> None:
        if not 0 < self.keep_ratio <= 1:
            raise DTSError(f"keep_ratio is {self.keep_ratio}: it must lie in (0, 1]")
        allowed = {
            "groups": GROUPS,
            "scale": ("rms", "mean"),
            "per": ("matrix", "vector"),
            "algorithm": ("auto", "exact", "gram", "randomised"),
        }
        for field, values in allowed.items():
            if getattr(self, field) not in values:
                raise DTSError(f"{field} is {getattr(self, field)!r}: choose one of {', '.join(map(str, values))}")

    @property
    def bits(self) -> int:
        """Bits of a group code: 1, 2 or 3."""
        return self.groups.bit_length() - 1


@dataclass(frozen=True)
class Coded:
    """Rows (k x n) whose elements are group values: what threshold and scale left of them.

    ``codes``: uint8, packed without a gap. ``scales`` (1 or k, groups). ``zeros``: flat positions (int32) of the
    elements that were exactly zero: two bits have no word for them, so they are kept apart, as a list or as a bit
    for each element, whichever is shorter.
    """

    shape: tuple[int, int]
    codes: Tensor
    scales: Tensor
    zeros: Tensor

    @classmethod
    def of(cls, x: Tensor, settings: Settings) -> "Coded":
        part = rows(x, settings.per)
        codes = threshold(part, settings.groups)
        # A value for each vector is stored in half precision: there are hundreds, and codes err far more.
        dtype = torch.float16 if settings.per == "vector" and len(x) > 1 else torch.float32
        scales = scale(part, codes, settings.groups, settings.scale).to(dtype)
        flat = codes.reshape(-1)
        zeros = torch.nonzero(flat == settings.groups).reshape(-1).to(torch.int32)
        return cls(tuple(x.shape), pack(flat.masked_fill(flat == settings.groups, 0), settings.bits), scales, zeros)

    def restore(self) -> Tensor:
        """The rows (k x n), float32."""
        groups = self.scales.shape[1]
        codes = unpack(self.codes, self.elements, groups.bit_length() - 1)
        codes[self.zeros.long()] = groups
        return restore(codes.view(len(self.scales), -1), self.scales.float()).view(self.shape)

    @property
    def elements(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def zeros_as_mask(self) -> bool:
        return 32 * len(self.zeros) > self.elements

    @property
    def bits(self) -> int:
        """Information: codes, scales and zeros."""
        width = self.scales.shape[1].bit_length() - 1
        zeros = self.elements if self.zeros_as_mask else 32 * len(self.zeros)
        return width * self.elements + 8 * self.scales.nbytes + zeros


@dataclass(frozen=True)
class LowRank:
    """A 2-D tensor: U_hat^T (r x m), s (r), V_hat^T (r x n)."""

    left: Coded
    s: Tensor
    right: Coded

    def factors(self) -> tuple[Tensor, Tensor]:
        """U_hat diag(s) (m x r) and V_hat^T (r x n), whose product is the tensor."""
        return (self.left.restore() * self.s[:, None]).T, self.right.restore()

    def restore(self) -> Tensor:
        u, vh = self.factors()
        return u @ vh


@dataclass(frozen=True)
class Flat:
    """A 1-D or more than 2-D tensor: thresholded and scaled as one row, without a decomposition."""

    coded: Coded

    def restore(self) -> Tensor:
        return self.coded.restore()


@dataclass(frozen=True)
class Kept:
    """A 0-D difference, or an integer tensor of the expert, kept as it is."""

    value: Tensor


@dataclass(frozen=True)
class Unchanged:
    """A tensor that equals the base's."""


@dataclass(frozen=True)
class Tied:
    """A tensor that is the same memory as the tensor ``to``."""

    to: str


Part = LowRank | Flat | Kept | Unchanged | Tied


@dataclass(frozen=True)
class Storage:
    """Bytes of one task's remainder, counted three ways that are never to be mixed.

    ``paper``: as the reference code counts, 3 bits a code, 32 a singular value, nothing for scales.
    ``information``: what is held: codes, singular values, scales, zeros, tensors kept as they are.
    ``file``: the file on disk, header and all. ``model``: the expert in float32, what the shares are shares of.
    """

    paper: int
    information: int
    file: int
    model: int

    def share(self, count: Literal["paper", "information", "file"] = "file") -> float:
        """A count as a share of the float32 expert, in [0, 1]."""
        return getattr(self, count) / self.model


@dataclass(frozen=True)
class TaskDelta:
    """The compressed remainder of one task: a part for each tensor of the expert.

    ``shapes`` and ``dtypes`` are the expert's; ``base`` and ``expert`` are fingerprints of the two state dicts.
    """

    parts: dict[str, Part]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    settings: Settings
    base: str
    expert: str

    def remainder(self, name: str) -> Tensor | None:
        """What tensor ``name`` adds to the base's, in the tensor's shape; None where nothing, or no difference."""
        part = self.parts[name]
        match part:
            case Tied(to=first):
                return self.remainder(first)
            case Kept(value=value) if value.is_floating_point():
                return value
            case LowRank() | Flat():
                return part.restore().reshape(self.shapes[name])
        return None

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the file, atomically; FileError when the path exists or cannot be written."""
        return write_bytes(self.to_bytes(), path, overwrite=overwrite)

    def to_bytes(self) -> bytes:
        """The file's bytes: the same delta, the same bytes."""
        table, store = [], _Store()
        for name, part in self.parts.items():
            entry = [name, type(part).__name__, list(self.shapes[name]), str(self.dtypes[name]).removeprefix("torch.")]
            match part:
                case LowRank(left, s, right):
                    store.add("values", s)
                    entry += [len(s), store.add_coded(left), store.add_coded(right)]
                case Flat(coded):
                    entry += [store.add_coded(coded)]
                case Kept(value):
                    store.add("kept", value.reshape(-1).view(torch.uint8))
                    entry += [str(value.dtype).removeprefix("torch.")]
                case Tied(to):
                    entry += [to]
            table.append(entry)
        counts = {"paper": _paper_bytes(self), "information": _information_bytes(self), "model": _model_bytes(self)}
        manifest = {
            "method": "dts",
            "settings": asdict(self.settings),
            "attention": _attention(self.parts),
            "base": self.base,
            "expert": self.expert,
            "tensors": len(self.parts),
            "ranks": [len(part.s) for part in self.parts.values() if isinstance(part, LowRank)],
            "storage": counts,
        }
        return container.encode(manifest, table, store.joined())

    @classmethod
    def from_bytes(cls, data: bytes, what: str = "the delta") -> "TaskDelta":
        """The delta that ``to_bytes`` wrote, exactly; FileError naming ``what`` when a bit of it was altered."""
        manifest, table, tensors = container.decode(data, what)
        settings, store = Settings(**manifest["settings"]), _Store(tensors)
        parts, shapes, dtypes = {}, {}, {}
        for name, kind, shape, dtype, *rest in table:
            shapes[name], dtypes[name] = tuple(shape), getattr(torch, dtype)
            match kind:
                case "LowRank":
                    rank, left, right = rest
                    s = store.take("values", rank)
                    factors = ((shape[0], left), (shape[1], right))
                    u, v = (store.take_coded((rank, side), zeros, settings) for side, zeros in factors)
                    parts[name] = LowRank(u, s, v)
                case "Flat":
                    size = torch.Size(shape).numel()
                    parts[name] = Flat(store.take_coded((1, size), rest[0], settings))
                case "Kept":
                    kept = getattr(torch, rest[0])
                    count = torch.Size(shape).numel() * kept.itemsize
                    parts[name] = Kept(store.take("kept", count).clone().view(kept).reshape(shape))
                case "Tied":
                    parts[name] = Tied(rest[0])
                case _:
                    parts[name] = Unchanged()
        return cls(parts, shapes, dtypes, settings, manifest["base"], manifest["expert"])


class _Store:
    """The big tensors of a file, filled from its parts in order, and read in the same order."""

    def __init__(self, tensors: dict[str, Tensor] | None = None) -> None:
        self.tensors = tensors or {}
        self.pieces: dict[str, list[Tensor]] = {}
        self.place: dict[str, int] = {}

    def add(self, name: str, piece: Tensor) -> None:
        self.pieces.setdefault(name, []).append(piece.reshape(-1))

    def joined(self) -> dict[str, Tensor]:
        return {name: torch.cat(pieces) for name, pieces in self.pieces.items()}

    def take(self, name: str, count: int) -> Tensor:
        start = self.place.get(name, 0)
        self.place[name] = start + count
        return self.tensors[name][start : start + count]

    def add_coded(self, coded: Coded) -> int:
        """Adds one factor; returns what its shape does not tell: how many of its elements are zero."""
        self.add("codes", coded.codes)
        self.add("values" if coded.scales.dtype == torch.float32 else "halves", coded.scales)
        if coded.zeros_as_mask:
            mask = torch.zeros(coded.elements, dtype=torch.uint8)
            mask[coded.zeros.long()] = 1
            self.add("masks", pack(mask, 1))
        elif len(coded.zeros):
            self.add("zeros", coded.zeros)
        return len(coded.zeros)

    def take_coded(self, shape: tuple[int, int], zeros: int, settings: Settings) -> Coded:
        """The factor (k x n) that ``add_coded`` added."""
        n = shape[0] * shape[1]
        codes = self.take("codes", -(-n * settings.bits // 8))
        vectors = shape[0] if settings.per == "vector" else 1
        scales = self.take("halves" if vectors > 1 else "values", vectors * settings.groups)
        if 32 * zeros > n:
            where = torch.nonzero(unpack(self.take("masks", -(-n // 8)), n, 1)).reshape(-1).to(torch.int32)
        else:
            where = self.take("zeros", zeros) if zeros else torch.empty(0, dtype=torch.int32)
        return Coded(shape, codes, scales.view(vectors, settings.groups), where)


def load(path: str | Path) -> TaskDelta:
    """Reads a ``.dts.safetensors`` file; FileError when it is missing, altered, truncated, or of another format."""
    return TaskDelta.from_bytes(read_bytes(path), str(path))


def compress(
    base: State,
    expert: State,
    *,
    keep_ratio: float = 0.1,
    groups: int = 4,
    scale: str = "rms",
    per: str = "matrix",
    algorithm: str = "auto",
    progress: Callable[[str], None] = lambda name: None,
    each: Each = map,
    folder: str | Path | None = None,
) -> TaskDelta:
    """Compresses what an expert adds to a base: DTS of every tensor of ``expert - base``.

    Both are state dicts with the same names and shapes, in memory or on disk (``open_checkpoint``). Computation is in
    float32 or better, one tensor at a time, twice: all are looked at, then those that differ are compressed. Integer
    tensors are kept where they differ; of tensors that are equal in the base and in the expert (tied ones) the first
    is compressed. ``progress`` is called with each tensor's name when it is done; ``each(work, names)`` yields
    ``work(name)`` in order, as ``map`` does, wherever it computes it. What is finished is kept in ``folder``, and taken
    from there when the same work is done again: after a kill it goes on. The settings are those of ``Settings``.
    Raises DTSError, before any tensor is compressed, for a setting out of range and for state dicts that are empty,
    do not fit each other, or hold NaN or infinity.
    """
    settings = Settings(keep_ratio, groups, scale, per, algorithm)
    check_outline(base, "base")
    check_outline(expert, "expert")
    check_same_layout(base, expert, "expert")
    names = sorted(expert)  # so that the order of a state dict does not change the file
    digests = dict(zip(names, each(partial(_examine, base, expert), names), strict=True))
    tensors = outline(expert)
    shapes = {name: tuple(tensors[name].shape) for name in names}
    dtypes = {name: tensors[name].dtype for name in names}
    if folder is not None:
        each = _keeping(
            Path(folder), each, lambda n: TaskDelta({}, {n: shapes[n]}, {n: dtypes[n]}, settings, *digests[n])
        )
    parts = _without_work(digests)
    work = [name for name in names if parts[name] is None]
    found = iter(each(partial(_compress_tensor, base, expert, settings), work))
    for name in names:
        parts[name] = parts[name] or next(found)
        progress(name)
    of_base, of_expert = (seal({name: pair[i] for name, pair in digests.items()}) for i in (0, 1))
    return TaskDelta(parts, shapes, dtypes, settings, of_base, of_expert)


def _keeping(folder: Path, each: Each, blank: Callable[[str], TaskDelta]) -> Each:
    """An ``each`` that keeps every part in ``folder`` as a delta of one tensor, and does not do work done before.

    ``blank(name)`` is that delta without its part: shape, dtype, settings and digests, of which the file's name is made.
    """

    def kept(work: Callable[[str], Part], names: Sequence[str]) -> Iterator[Part]:
        folder.mkdir(exist_ok=True)
        blanks = {name: blank(name) for name in names}
        paths = {name: folder / f"{seal({name: repr(delta)})}.dts.safetensors" for name, delta in blanks.items()}
        old: dict[str, Part] = {}
        for name, path in paths.items():
            with suppress(FileError):  # not there, or not whole
                old[name] = load(path).parts[name]
        new = iter(each(work, [name for name in names if name not in old]))
        for name in names:
            if name not in old:
                old[name] = next(new)
                replace(blanks[name], parts={name: old[name]}).save(paths[name], overwrite=True)
            yield old[name]

    return kept


def _examine(base: State, expert: State, name: str) -> tuple[str, str]:
    """The digests of a tensor in base and expert; StateError where it is not fit to be compressed."""
    digests = []
    for state, what in ((base, "base"), (expert, "expert")):
        tensor = state[name]
        check_values(tensor, name, what)
        digests.append(digest(tensor))
    return tuple(digests)


def _without_work(digests: Mapping[str, tuple[str, str]]) -> dict[str, Part | None]:
    """The parts that the digests of each tensor in base and expert tell alone: equal ones, and equal pairs of them."""
    first = {}
    return {
        name: Unchanged() if pair[0] == pair[1] else None if first.setdefault(pair, name) == name else Tied(first[pair])
        for name, pair in digests.items()
    }


@torch.no_grad()
def _compress_tensor(base: State, expert: State, settings: Settings, name: str) -> Part:
    tensor = outline(expert)[name]
    if not tensor.is_floating_point():
        return Kept(expert[name].detach().cpu().clone())
    x = _difference(base, expert, name)
    low, high = x.aminmax() if x.numel() else (x.new_zeros(()),) * 2
    if low == high == 0:
        return Unchanged()
    if not (low.float().isfinite() and high.float().isfinite()):
        raise StateError(f"tensor {name!r}: expert - base does not fit into float32; check both values")
    if x.dim() == 0:
        return Kept(x.cpu())
    if x.dim() != 2:
        return Flat(Coded.of(x.reshape(1, -1), settings))
    u, s, vh, _ = decompose(x, rank_of(x.shape, settings.keep_ratio), settings.algorithm)
    del x  # the largest thing here; coding needs room too
    return LowRank(Coded.of(u.T.contiguous(), settings), s.float().cpu(), Coded.of(vh.contiguous(), settings))


def _difference(base: State, expert: State, name: str, block: int = 2**20) -> Tensor:
    """expert - base in float32 or better, with room for one copy and one tensor as it is stored, not for three."""
    x = expert[name].detach()
    x = x.to(compute_dtype(x), copy=True).contiguous()
    for part, other in zip(x.view(-1).split(block), base[name].detach().reshape(-1).split(block), strict=True):
        part.sub_(other.to(part))
    return x


class Rebuilt(Mapping[str, Tensor]):
    """The approximate expert, base + remainder, each tensor computed whenever it is asked for, in the expert's dtype.

    ``outline`` has its names, shapes and dtypes. StateError when ``base`` is not the one that the delta was made for.
    """

    def __init__(self, base: State, delta: TaskDelta) -> None:
        check_base(base, delta)
        self.base, self.delta = base, delta
        self.outline = {
            name: torch.empty(shape, dtype=delta.dtypes[name], device="meta") for name, shape in delta.shapes.items()
        }

    @torch.no_grad()
    def __getitem__(self, name: str) -> Tensor:
        part, dtype = self.delta.parts[name], self.delta.dtypes[name]
        if isinstance(part, Tied):
            part = self.delta.parts[part.to]
        match part:
            case Kept(value=value) if not value.is_floating_point():
                return value.clone()
            case Unchanged():
                return self.base[name].to(dtype, copy=True)
        x = self.base[name].to(torch.promote_types(dtype, torch.float32), copy=True)
        if isinstance(part, LowRank):  # added while it is multiplied, never laid out by itself
            x.addmm_(*(factor.to(x) for factor in part.factors()))
        else:
            x.add_(self.delta.remainder(name).to(x.device))
        return x.to(dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.delta.parts)

    def __len__(self) -> int:
        return len(self.delta.parts)


def rebuild(base: State, delta: TaskDelta) -> dict[str, Tensor]:
    """The approximate expert: base + remainder, tensor by tensor, in the expert's dtypes; tied tensors stay tied.

    StateError when ``base`` is not the one that the delta was made for.
    """
    rebuilt, result = Rebuilt(base, delta), {}
    for name, part in delta.parts.items():
        result[name] = result[part.to] if isinstance(part, Tied) else rebuilt[name]
    return result


def check_base(base: State, delta: TaskDelta) -> None:
    """StateError unless ``base`` is the state dict that ``delta`` was made for."""
    found = fingerprint(base)
    if found != delta.base:
        raise StateError(
            f"this base (fingerprint {found}) is not the one that the delta was made for ({delta.base}); "
            "pass that base, in the dtype it had"
        )


def storage(delta: TaskDelta) -> Storage:
    """The three counts of a delta's bytes, and the float32 expert's."""
    return Storage(_paper_bytes(delta), _information_bytes(delta), len(delta.to_bytes()), _model_bytes(delta))


def _attention(names: Iterable[str]) -> str:
    """The layout of the attention weights, which changes bytes and subspaces: fused (open_clip), split or none."""
    text = " ".join(names)
    return "fused" if "in_proj_weight" in text else "split" if "q_proj" in text else "none"


def _coded(part: Part) -> tuple[Coded, ...]:
    match part:
        case LowRank(left, _, right):
            return left, right
        case Flat(coded):
            return (coded,)
    return ()


def _paper_bytes(delta: TaskDelta) -> int:
    codes = sum(coded.elements for part in delta.parts.values() for coded in _coded(part))
    values = sum(len(part.s) for part in delta.parts.values() if isinstance(part, LowRank))
    return -(-(3 * codes + 32 * values) // 8)


def _information_bytes(delta: TaskDelta) -> int:
    bits = sum(coded.bits for part in delta.parts.values() for coded in _coded(part))
    for part in delta.parts.values():
        if isinstance(part, LowRank):
            bits += 8 * part.s.nbytes
        elif isinstance(part, Kept):
            bits += 8 * part.value.nbytes
    return -(-bits // 8)


def _model_bytes(delta: TaskDelta) -> int:
    return 4 * sum(torch.Size(delta.shapes[n]).numel() for n, part in delta.parts.items() if not isinstance(part, Tied))
