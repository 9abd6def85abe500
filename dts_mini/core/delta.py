"""A task's remainder as a ``TaskDelta``: saved, loaded, added back to its base.

    frame and method -> TaskDelta -> save -> load -> rebuild(base, delta) -> the approximate expert

Nothing here knows by which method the parts were made: each part can say what it adds.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from math import prod
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dts_mini.core import container
from dts_mini.core.errors import StateError
from dts_mini.core.file import read_bytes, write_bytes
from dts_mini.core.parts import TENSORS, Bounds, Exact, Kept, Part, Reader, Tied, Unchanged, Writer
from dts_mini.core.state import State, exactly, recognise

_LARGEST = 2**48  # elements of a tensor


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
        """A count as a share of the float32 expert, in [0, 1]; of one without a single number as if it had a byte."""
        return getattr(self, count) / (self.model or 1)


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

    @property
    def outline(self) -> dict[str, Tensor]:
        """Meta tensors with the names, shapes and dtypes of the expert's."""
        kinds = ((name, shape, self.dtypes[name]) for name, shape in self.shapes.items())
        return {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape, dtype in kinds}

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
        return self._size

    @cached_property
    def _size(self) -> int:
        kept = sum(part.value.nbytes for part in self.parts.values() if isinstance(part, Kept | Exact))
        return len(self._encoded(_model_bytes(self) + kept))  # a number of no fewer digits

    @exactly
    def _encoded(self, information: int) -> bytes:
        table, writer = [], Writer()
        for name, part in self.parts.items():
            entry = [name, type(part).__name__, list(self.shapes[name]), str(self.dtypes[name]).removeprefix("torch.")]
            if bounded := name in self.bounds:
                writer.add("halves", torch.tensor(self.bounds[name], dtype=torch.float16, device="cpu"))
            table.append([*entry, int(bounded), *part.write(writer)])
        return container.encode(self._manifest(information, writer.rows), table, writer.tensors())

    def _manifest(self, information: int, rows: int) -> dict:
        """What its file says of itself."""
        counts = {"information": information, "model": _model_bytes(self)}
        if (paper := _paper_bytes(self)) is not None:
            counts["paper"] = paper
        return {
            "method": self.method,
            "settings": self.settings,
            "attention": _attention(self.parts),
            "base": self.base,
            "expert": self.expert,
            "tensors": len(self.parts),
            "ranks": [part.rank for part in self.parts.values() if part.rank],
            "rows": rows,
            "storage": counts,
        }

    @classmethod
    @exactly
    def from_bytes(cls, data: bytes, what: str = "the delta") -> "TaskDelta":
        """The delta that ``to_bytes`` wrote, exactly; FileError naming ``what`` when a bit of it was altered.

        Any other bytes are a FileError too, whatever their digest, in time and memory that their number bounds.
        """
        manifest, table, tensors = container.decode(data, what)
        settings, parts, shapes, dtypes, bounds = manifest["settings"], {}, {}, {}, {}
        reader = Reader(tensors, settings, manifest["rows"], what)
        for name, kind, shape, word, bounded, *arguments in table:
            reader.name, reader.dtype = name, container.KINDS[word]
            if name in parts or prod(max(n, 1) for n in shape) > _LARGEST:
                raise reader.fault(f"stands there twice, or has shape {tuple(shape)}")
            shapes[name], dtypes[name] = tuple(shape), reader.dtype
            if bounded:
                bounds[name] = Bounds(*reader.take("halves", 3).tolist())
            parts[name] = reader.part(kind, shapes[name], arguments)
            computed = word in container.WORDS
            free = reader.dtype.is_floating_point or isinstance(parts[name], Kept)
            if not ((computed and free) or isinstance(parts[name], Tied | Unchanged)):
                raise reader.fault(f"is {reader.dtype}, and a {kind}")
            if bounded and not (parts[name].rank and min(bounds[name]) >= 0):
                raise reader.fault("has bounds of what is of no rank, or below 0")
        for name, part in parts.items():
            if isinstance(part, Tied):
                reader.name, to = name, part.to
                kind = (shapes.get(to), dtypes.get(to))
                if isinstance(parts.get(to, part), Tied) or kind != (shapes[name], dtypes[name]):
                    raise reader.fault(f"is tied to {to!r}, which is not there, tied itself, or of another kind")
        reader.name = ""
        reader.close()
        delta = cls(parts, shapes, dtypes, manifest["method"], settings, manifest["base"], manifest["expert"], bounds)
        said = manifest["storage"]
        length = said.pop("file")  # other libraries may squeeze the table to a few bytes more or less
        if not (_near(length, len(data)) and delta._weighs(said["information"], tensors)):
            raise reader.fault("does not weigh what it says")
        for key, value in delta._manifest(said["information"], reader.rows).items():
            if manifest[key] != value:
                raise reader.fault(f"says of its {key} what is not so")
        return delta

    def _weighs(self, information: int, tensors: Mapping[str, Tensor]) -> bool:
        """Whether it holds so many bytes; roughly where parts lie in streams, whose exact count takes as long as
        reading.
        """
        if not tensors.keys() - {*TENSORS, "codes", "masks", "kept"}:
            return information == _information_bytes(self)
        return _near(information, sum(tensor.nbytes for tensor in tensors.values()) - 6 * len(self.bounds))


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
        self.base, self.delta, self.outline = base, delta, delta.outline

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
    rebuilt = Rebuilt(base, delta)
    result = {name: rebuilt[name] for name, part in delta.parts.items() if not isinstance(part, Tied)}
    return {name: result[part.to if isinstance(part, Tied) else name] for name, part in delta.parts.items()}


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
    """StateError unless ``base`` is the state dict that the deltas were made for, and their tensors are its own."""
    digests = recognise(base, [(delta.base, delta.outline) for delta in deltas])
    for delta in deltas:
        for name, part in delta.parts.items():
            if isinstance(part, Tied) and digests[name] != digests[part.to]:
                raise StateError(
                    f"tensor {name!r} is tied to {part.to!r} in the delta and not in the base; make it again"
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


def _near(count: int, found: int) -> bool:
    """Whether a count of bytes may be meant for another, up to what is between entropy and code."""
    return abs(count - found) <= 256 + found // 20


def _paper_bytes(delta: TaskDelta) -> int | None:
    counts = [part.paper_bits for part in delta.parts.values()]
    return None if None in counts else -(-sum(counts) // 8)


@exactly
def _information_bytes(delta: TaskDelta) -> int:
    return -(-sum(part.bits for part in delta.parts.values()) // 8)


def _model_bytes(delta: TaskDelta) -> int:
    return 4 * sum(torch.Size(delta.shapes[n]).numel() for n, part in delta.parts.items() if not isinstance(part, Tied))
