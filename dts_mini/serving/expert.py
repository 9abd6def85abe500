"""A module as the base of many experts, and one expert decoded: what running it takes, and no more."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dts_mini.core.delta import TaskDelta, rebuild_tensor
from dts_mini.core.errors import StateError
from dts_mini.core.parts import Unchanged
from dts_mini.core.state import digest, seal


class Base:
    """A module in evaluation mode whose weights are the base. Nothing here writes to it.

    ``tensors``: its parameters and buffers by name, themselves and not copies. ``names``: their names by ``id``; of
    tied ones the first. Their digests are taken once: weights that change later are not noticed.
    """

    def __init__(self, module: nn.Module) -> None:
        if module.training:
            raise StateError("the module is in training mode: call module.eval() before serving it")
        if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
            raise StateError("the module is compiled by TorchScript, which hides its weights: pass the plain module")
        self.module = module
        self.tensors: Mapping[str, Tensor] = module.state_dict(keep_vars=True)
        self.names: dict[int, str] = {}
        for name, tensor in self.tensors.items():
            self.names.setdefault(id(tensor), name)
        self._digests = {name: digest(tensor) for name, tensor in self.tensors.items()}

    def check(self, delta: TaskDelta) -> None:
        """StateError unless the delta was made for this module's weights, or some of them: a head may be its own."""
        self.check_outline(delta.shapes, delta.base)

    def check_outline(self, shapes: Mapping[str, tuple[int, ...]], fingerprint: str, what: str = "the delta") -> None:
        """StateError unless tensors of these names and shapes have this fingerprint; ``what`` was made for them."""
        for name, shape in shapes.items():
            if name not in self.tensors:
                raise StateError(f"the module has no tensor {name!r}, {what} has; pass the module it was made for")
            if tuple(self.tensors[name].shape) != shape:
                raise StateError(
                    f"tensor {name!r} has shape {tuple(self.tensors[name].shape)} in the module and {shape} in {what}; "
                    "pass the module it was made for"
                )
        found = seal({name: self._digests[name] for name in shapes})
        if found != fingerprint:
            raise StateError(
                f"the module's weights (fingerprint {found}) are not those that {what} was made for ({fingerprint}); "
                "load that base, in the dtype it had"
            )


class Expert:
    """One task over a base: thin factors A (m x r) and B (r x n) of large tensors, any other that differs whole.

    Raises StateError when the delta was not made for the base.
    """

    def __init__(self, base: Base, delta: TaskDelta) -> None:
        base.check(delta)
        self.base = base
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}
        self._whole: dict[str, Tensor] = {}
        for name in delta.parts:
            tensor, part = base.tensors[name], delta.resolved(name)
            if isinstance(part, Unchanged) or base.names[id(tensor)] != name:
                continue
            factors = part.factors()
            if factors is not None and sum(factor.numel() for factor in factors) < tensor.numel():
                self.factors[name] = tuple(factor.to(tensor) for factor in factors)
            else:
                self._whole[name] = rebuild_tensor(tensor.detach(), delta, name).to(tensor)

    def __contains__(self, name: str) -> bool:
        """Whether the expert's tensor differs from the base's."""
        return name in self.factors or name in self._whole

    def differing(self) -> set[str]:
        """Names of the tensors that differ from the base's; of tied ones the first."""
        return self.factors.keys() | self._whole.keys()

    def whole(self, name: str) -> Tensor:
        """The expert's tensor. One that has factors is laid out once it is asked for, and kept."""
        if name not in self._whole:
            tensor = self.base.tensors[name].detach()
            if name not in self.factors:
                return tensor
            a, b = self.factors[name]
            self._whole[name] = torch.addmm(tensor.reshape(len(a), -1), a, b).view_as(tensor)
        return self._whole[name]

    @property
    def nbytes(self) -> int:
        """Bytes beside the base's own."""
        factors = sum(factor.nbytes for pair in list(self.factors.values()) for factor in pair)
        return factors + sum(tensor.nbytes for tensor in list(self._whole.values()))
