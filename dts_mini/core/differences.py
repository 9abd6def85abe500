"""What an expert adds to a base, tensor by tensor: looked at before any long work, and worked on wherever that is done."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dts_mini.core.errors import StateError
from dts_mini.core.parts import Kept, Part, Tied, Unchanged
from dts_mini.core.state import State, check_values, compute_dtype, digest, outline, seal
from dts_mini.core.work import Each, keeping


class Differences(Mapping[str, Tensor]):
    """expert - base, tensor by tensor and made anew at each look: of all tensors, and once examined of those that differ.

    ``outline`` has the expert's shapes and dtypes in name order, so that the order of a state dict does not change a
    file; ``shapes`` those of the tensors that a method is to compress. Where and how work is
    done and kept (``each``, ``folder``) is as ``compress`` says.
    """

    def __init__(self, base: State, expert: State, each: Each = map, folder: str | Path | None = None) -> None:
        self._states, self._each, self._folder = (base, expert), each, folder
        self._digests: dict[str, tuple[str, str]] = {}
        self.outline = dict(sorted(outline(expert).items()))
        self.shapes = {name: tensor.shape for name, tensor in self.outline.items()}

    def __getitem__(self, name: str) -> Tensor:
        return _difference(*self._states, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def examine(self) -> tuple[dict[str, Part | None], tuple[str, str]]:
        """The parts that no method makes, None for the others, which then are all that this holds; and fingerprints.

        StateError, naming the tensor, where one is not fit to be compressed.
        """
        names, parts, first = list(self.outline), {}, {}
        found = self._each(partial(_examine, *self._states), names)
        for name, (digests, part) in zip(names, found, strict=True):
            is_first = isinstance(part, Unchanged) or first.setdefault(digests, name) == name
            parts[name] = part if is_first else Tied(first[digests])
            self._digests[name] = digests
        self.shapes = {name: self.outline[name].shape for name, part in parts.items() if part is None}
        return parts, tuple(seal({name: pair[i] for name, pair in self._digests.items()}) for i in (0, 1))

    def each(self, work: Callable[..., Any], arguments: Mapping[str, tuple]) -> Iterator[tuple[str, Any]]:
        """(name, ``work(difference, *arguments[name])``) in order, wherever it is computed.

        ``work`` is a function of a module; of its arguments all that matters is in their ``repr``.
        """
        each, jobs = self._each, list(arguments.items())
        if self._folder is not None:
            about = f"{work.__module__}.{work.__qualname__}"
            each = keeping(self._folder, each, lambda job: f"{about} {self._digests[job[0]]} {job[1]!r}")
        return zip(arguments, each(partial(_on_difference, *self._states, work), jobs), strict=True)


def _examine(base: State, expert: State, name: str) -> tuple[tuple[str, str], Part | None]:
    """A tensor's digests in base and expert, and its part where no method makes it: integers, scalars, no difference."""
    digests = []
    for state, what in ((base, "base"), (expert, "expert")):
        tensor = state[name]
        check_values(tensor, name, what)
        digests.append(digest(tensor))
        del tensor
    return tuple(digests), Unchanged() if digests[0] == digests[1] else _plain_part(base, expert, name)


def _plain_part(base: State, expert: State, name: str) -> Part | None:
    if not outline(expert)[name].is_floating_point():
        return Kept(expert[name].detach().cpu().clone())
    x = _difference(base, expert, name)
    low, high = x.aminmax() if x.numel() else (x.new_zeros(()),) * 2
    if low == high == 0:
        return Unchanged()
    if not (low.float().isfinite() and high.float().isfinite()):
        raise StateError(f"tensor {name!r}: expert - base does not fit into float32; check both values")
    return Kept(x.cpu()) if x.dim() == 0 else None


def _on_difference(base: State, expert: State, work: Callable[..., Any], job: tuple[str, tuple]) -> Any:
    name, arguments = job
    return work(_difference(base, expert, name), *arguments)


@torch.no_grad()
def _difference(base: State, expert: State, name: str, block: int = 2**20) -> Tensor:
    """expert - base in float32 or better, with room for one copy and one tensor as it is stored, not for three."""
    x = expert[name].detach()
    x = x.to(compute_dtype(x), copy=True).contiguous()
    for part, other in zip(x.view(-1).split(block), base[name].detach().reshape(-1).split(block), strict=True):
        part.sub_(other.to(part))
    return x
