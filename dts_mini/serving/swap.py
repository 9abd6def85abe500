"""Materialise: the module's own weights become those of one expert after another."""

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from dts_mini.core.delta import TaskDelta, rebuild_tensor
from dts_mini.core.errors import StateError
from dts_mini.core.parts import Factors, Kept, Part, Unchanged
from dts_mini.serving.expert import Base, check_uncached


class Swapper:
    """Writes experts into a module, in place: each swap is a copy of the base plus one remainder.

    Nothing is ever subtracted, so that the thousandth swap has the bits of the first, which are those of ``rebuild``.
    It keeps a copy of the base (so the module's bytes twice); a swap writes the tensors that differ from the base in
    the old expert or in the new one, and those that somebody else wrote to, and no other. While a module is swapped
    nothing else may run it.

    Raises StateError for a module that ``Base`` refuses, and for one of which two parameters lie in the same memory.
    """

    def __init__(self, module: nn.Module) -> None:
        self._base = Base(module)
        self._check_apart()
        self._kept: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in self._base.tensors.items()}
        self._written: set[str] = set()
        self._note()

    def _note(self) -> None:
        """What is written to the module from now on is somebody else's."""
        self._versions = {name: _version(tensor) for name, tensor in self._base.tensors.items()}

    def _check_apart(self) -> None:
        """StateError where what is written to one tensor is written to another, though they are not tied."""
        owners: dict[tuple, str] = {}
        for name, tensor in self._base.tensors.items():
            first = owners.setdefault((tensor.device, tensor.data_ptr()), name) if tensor.numel() else name
            if tensor is not self._base.tensors[first]:
                raise StateError(
                    f"tensors {first!r} and {name!r} of the module are two that lie in the same memory, so no expert "
                    f"can have its own of each: tie them (one Parameter for both), or give {name!r} a copy (clone)"
                )

    def _check_own(self) -> None:
        """StateError where the module has other tensors by now; ones that somebody wrote to are to be written again."""
        found = self._base.current()
        for name in found | self._base.tensors:
            tensor, held = found.get(name), self._base.tensors.get(name)
            if (
                tensor is None
                or tensor is not held
                or tensor.dtype != self._kept[name].dtype
                or tensor.device != self._kept[name].device
            ):
                raise StateError(
                    f"tensor {name!r} of the module is another than it was when the Swapper was made: make a new one"
                )
            if _version(tensor) is None or _version(tensor) != self._versions[name]:
                self._written.add(name)

    @torch.no_grad()
    def to(self, delta: TaskDelta | None) -> None:
        """The module's weights are now those of ``rebuild(base, delta)``; of the base itself for None.

        Raises StateError, and writes nothing, when the delta was not made for the base. If anything else goes wrong
        on the way, the module is the base again.
        """
        check_uncached()
        if delta is not None:
            self._base.check(delta)
        self._check_own()
        parts = {} if delta is None else delta.parts
        new = {name for name in parts if not isinstance(delta.resolved(name), Unchanged)}
        made = any(tensor.is_inference() for tensor in self._base.tensors.values())
        with torch.inference_mode() if made else nullcontext():  # where alone such tensors may be written
            self._write(delta, new)

    def _write(self, delta: TaskDelta | None, new: set[str]) -> None:
        try:
            for name in self._written - new:
                self._base.tensors[name].copy_(self._kept[name])
            self._written |= new
            for name in new:
                rebuild_tensor(self._kept[name], delta, name, out=self._base.tensors[name])
        except BaseException:
            for name in self._written:
                self._base.tensors[name].copy_(self._kept[name])
            self._written = set()
            self._note()
            raise
        self._written = new
        self._note()


def _version(tensor: Tensor) -> int | None:
    """What goes up with each write to a tensor; None for one made in inference mode, which does not count them."""
    return None if tensor.is_inference() else tensor._version


def unpacked(delta: TaskDelta) -> TaskDelta:
    """The same delta with its codes turned into numbers: quicker to swap in, and some fifteen times as large."""

    def plain(part: Part) -> Part:
        if (factors := part.factors()) is not None:
            return Factors(*factors)
        return part if (whole := part.restore()) is None else Kept(whole)

    return replace(delta, parts={name: plain(part) for name, part in delta.parts.items()})
