"""A task's remainder as a ``TaskDelta``: saved, loaded, added back to its base.

    frame and method -> TaskDelta -> save -> load -> rebuild(base, delta) -> the approximate expert

Nothing here knows by which method the parts were made: each part can say what it adds.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dts_mini.core import container
from dts_mini.core.errors import StateError
from dts_mini.core.file import read_bytes, write_bytes
from dts_mini.core.parts import Bounds, Exact, Kept, Part, Reader, Tied, Unchanged, Writer, part_kind
from dts_mini.core.state import State, exactly, fingerprint


@dataclass(frozen=True)
class Storage:
    """Bytes of one task's remainder, counted three ways that are never to be mixed.

    ``paper``: as the reference code counts, 3 bits a code, 32 a singular value, nothing for scales; None of other
    methods than the paper's.
    ``information``: what is held: codes, singular values, scales, zeros, tensors kept as they are.
    ``file``: the file on disk, header and all. ``model``: the expert in float32, what the shares are shares of.
    """

    paper: int | None
    information: int
    file: int
    model: int

    def share(self, count: Literal["paper", "information", "file"] = "file") -> float:
        """A count as a share of the float32 expert, in [0, 1]."""
        return getattr(self, count) / self.model


@dataclass(frozen=True, eq=False, repr=False)
class TaskDelta:
    """The compressed remainder of one task: a part for each tensor of the expert.

    ``shapes`` and ``dtypes`` are the expert's; ``base`` and ``expert`` are fingerprints of the two state dicts;
    ``bounds`` are known for tensors of low rank.
    """

    parts: dict[str, Part]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    method: str
    settings: dict
    base: str
    expert: str
    bounds: dict[str, Bounds] = field(default_factory=dict)

    @exactly
    def __eq__(self, other: object) -> bool:
        """Whether both are the same file."""
        return self.to_bytes() == other.to_bytes() if isinstance(other, TaskDelta) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __repr__(self) -> str:
        numbers = sum(torch.Size(shape).numel() for shape in self.shapes.values())
        return f"<TaskDelta: {self.method}, {len(self.parts)} tensors of {numbers:,} numbers in {self.size():,} bytes>"

    def _repr_html_(self) -> str:
        """As a notebook shows it: a row a tensor, how it is kept, its rank, error and bytes."""
        rows = []
        for name, part in self.parts.items():
            shape = " × ".join(map(str, self.shapes[name])) or "scalar"
            error = f"{self.bounds[name].error:.3f}" if name in self.bounds else ""
            cells = (escape(name), shape, type(part).__name__, part.rank or "", error, f"{-(-part.bits // 8):,}")
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        head = "".join(
            f'<th scope="col">{word}</th>' for word in ("tensor", "shape", "kept as", "rank", "error", "bytes")
        )
        return f"<table><caption>{escape(repr(self))}</caption><tr>{head}</tr>{''.join(rows)}</table>"

    def remainder(self, name: str) -> Tensor | None:
        """What tensor ``name`` adds to the base's, in the tensor's shape; None where nothing, or no difference."""
        restored = self.resolved(name).restore()
        return None if restored is None else restored.reshape(self.shapes[name])

    def resolved(self, name: str) -> Part:
        """The part of tensor ``name``, of a tied one that of the tensor to which it is tied."""
        part = self.parts[name]
        return self.parts[part.to] if isinstance(part, Tied) else part

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the file, atomically; FileError when the path exists or cannot be written."""
        return write_bytes(self.to_bytes(), path, overwrite=overwrite)

    def to_bytes(self) -> bytes:
        """The file's bytes: the same delta, the same bytes."""
        return self._encoded(_information_bytes(self))

    def size(self) -> int:
        """Bytes of the file, or a few more: without the count of information, which takes as long as the rest."""
        return len(self._encoded(_model_bytes(self)))

    @exactly
    def _encoded(self, information: int) -> bytes:
        table, writer = [], Writer()
        for name, part in self.parts.items():
            entry = [name, type(part).__name__, list(self.shapes[name]), str(self.dtypes[name]).removeprefix("torch.")]
            if bounded := name in self.bounds:
                writer.add("halves", torch.tensor(self.bounds[name], dtype=torch.float16, device="cpu"))
            table.append([*entry, int(bounded), *part.write(writer)])
        counts = {"information": information, "model": _model_bytes(self)}
        if (paper := _paper_bytes(self)) is not None:
            counts["paper"] = paper
        manifest = {
            "method": self.method,
            "settings": self.settings,
            "attention": _attention(self.parts),
            "base": self.base,
            "expert": self.expert,
            "tensors": len(self.parts),
            "ranks": [part.rank for part in self.parts.values() if part.rank],
            "rows": writer.rows,
            "storage": counts,
        }
        return container.encode(manifest, table, writer.tensors())

    @classmethod
    @exactly
    def from_bytes(cls, data: bytes, what: str = "the delta") -> "TaskDelta":
        """The delta that ``to_bytes`` wrote, exactly; FileError naming ``what`` when a bit of it was altered."""
        manifest, table, tensors = container.decode(data, what)
        settings, parts, shapes, dtypes, bounds = manifest["settings"], {}, {}, {}, {}
        reader = Reader(tensors, settings, manifest["rows"])
        for name, kind, shape, dtype, bounded, *arguments in table:
            shapes[name], dtypes[name] = tuple(shape), getattr(torch, dtype)
            if bounded:
                bounds[name] = Bounds(*reader.take("halves", 3).tolist())
            parts[name] = part_kind(kind, what).read(reader, shapes[name], *arguments)
        return cls(parts, shapes, dtypes, manifest["method"], settings, manifest["base"], manifest["expert"], bounds)


def load(path: str | Path) -> TaskDelta:
    """Reads a ``.dts.safetensors`` file; FileError when it is missing, altered, truncated, or of another format.

    >>> delta = compress({"w": torch.zeros(8, 6)}, {"w": torch.ones(8, 6)})
    >>> load(delta.save("a.dts.safetensors")) == delta
    True
    """
    return TaskDelta.from_bytes(read_bytes(path), str(path))


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

    def __getitem__(self, name: str) -> Tensor:
        return rebuild_tensor(self.base[name], self.delta, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.delta.parts)

    def __len__(self) -> int:
        return len(self.delta.parts)


def rebuild(base: State, delta: TaskDelta) -> dict[str, Tensor]:
    """The approximate expert: base + remainder, tensor by tensor, in the expert's dtypes; tied tensors stay tied.

    StateError when ``base`` is not the one that the delta was made for.

    >>> base, expert = {"w": torch.zeros(8, 6)}, {"w": torch.ones(8, 6)}
    >>> torch.allclose(rebuild(base, compress(base, expert))["w"], expert["w"])
    True
    """
    rebuilt, result = Rebuilt(base, delta), {}
    for name, part in delta.parts.items():
        result[name] = result[part.to] if isinstance(part, Tied) else rebuilt[name]
    return result


@exactly
def rebuild_tensor(base: Tensor, delta: TaskDelta, name: str, out: Tensor | None = None) -> Tensor:
    """Tensor ``name`` of the approximate expert: ``base``'s plus the remainder, in the expert's dtype.

    With ``out``, of the base's shape and device, it is written there, the same bits in ``out``'s dtype.
    """
    part, dtype = delta.resolved(name), delta.dtypes[name]
    match part:
        case Exact(value=value):
            x = value
        case Kept(value=value) if not value.is_floating_point():
            x = value
        case Unchanged():
            x = base
        case _:
            working = torch.promote_types(dtype, torch.float32)
            in_place = out is not None and out.dtype == dtype == working
            x = out.copy_(base) if in_place else base.to(working, copy=True)
            if (factors := part.factors()) is not None and x.is_contiguous():
                # Added while it is multiplied, never laid out by itself.
                x.view(len(x), -1).addmm_(*(factor.to(x) for factor in factors))
            else:
                x.add_(delta.remainder(name).to(x.device))
            return x.to(dtype) if out is None else x if in_place else out.copy_(x.to(dtype))
    return x.to(dtype, copy=True) if out is None else out.copy_(x.to(dtype))


def check_base(base: State, *deltas: TaskDelta) -> None:
    """StateError unless ``base`` is the state dict that the deltas were made for."""
    found = fingerprint(base)
    for delta in deltas:
        if found != delta.base:
            raise StateError(
                f"this base (fingerprint {found}) is not the one that the delta was made for ({delta.base}); "
                "pass that base, in the dtype it had"
            )


def storage(delta: TaskDelta) -> Storage:
    """The three counts of a delta's bytes, and the float32 expert's.

    >>> counts = storage(compress({"w": torch.zeros(80, 60)}, {"w": torch.eye(80, 60)}))
    >>> counts.paper, counts.information, counts.model
    (339, 336, 19200)
    """
    return Storage(_paper_bytes(delta), _information_bytes(delta), len(delta.to_bytes()), _model_bytes(delta))


def _attention(names: Iterable[str]) -> str:
    """The layout of the attention weights, which changes bytes and subspaces: fused (open_clip), split or none."""
    text = " ".join(names)
    return "fused" if "in_proj_weight" in text else "split" if "q_proj" in text else "none"


def _paper_bytes(delta: TaskDelta) -> int | None:
    counts = [part.paper_bits for part in delta.parts.values()]
    return None if None in counts else -(-sum(counts) // 8)


@exactly
def _information_bytes(delta: TaskDelta) -> int:
    return -(-sum(part.bits for part in delta.parts.values()) // 8)


def _model_bytes(delta: TaskDelta) -> int:
    return 4 * sum(torch.Size(delta.shapes[n]).numel() for n, part in delta.parts.items() if not isinstance(part, Tied))
