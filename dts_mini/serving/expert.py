"""A module as the base of many experts, and one expert decoded: what running it takes, and no more."""

import threading
from collections.abc import Collection, Hashable, Iterator, Mapping, Set
from contextlib import contextmanager, nullcontext
from typing import NoReturn
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree

from dts_mini.core.delta import TaskDelta, rebuild_tensor
from dts_mini.core.errors import StateError
from dts_mini.core.parts import Tied, Unchanged
from dts_mini.core.state import digest, exactly, seal


class Base:
    """A module in evaluation mode whose weights are the base. Nothing here writes to it.

    ``tensors``: its parameters and buffers by name, themselves and not copies. ``names``: their names by ``id``; of
    tied ones the first. Their digests are taken once. That they, or parts of the module, are written to or replaced
    later is noticed when an expert is run, unless values are written behind PyTorch's back (``weight.data.add_``).

    Raises StateError for a module that hides its weights, gives copies of them as its state, or has none yet.
    """

    def __init__(self, module: nn.Module) -> None:
        inner = getattr(module, "_orig_mod", None) or (
            module.module if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) else None
        )
        if isinstance(inner, nn.Module):
            raise StateError(
                f"the module is wrapped in {type(module).__name__}, whose weights have other names: pass the module "
                f"within it, its {'_orig_mod' if hasattr(module, '_orig_mod') else 'module'}"
            )
        self._parts = list(module.modules())
        self._check_mode(module)
        if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
            raise StateError("the module is compiled by TorchScript, which hides its weights: pass the plain module")
        self.module = module
        self.tensors: Mapping[str, Tensor] = self.current()
        self._check_own()
        for name, tensor in self.tensors.items():
            if nn.parameter.is_lazy(tensor) or tensor.is_meta:
                raise StateError(
                    f"tensor {name!r} of the module has no values yet: run it once, or load its weights, first"
                )
        self._turn, self._ran, self._writes = threading.RLock(), False, False
        self._experts: WeakSet[Expert] = WeakSet()
        self._spoilt = False
        self._watched: dict[Hashable, Set[str]] = {}  # names of tensors whose use was seen, by the way of the call
        self.sampled: set[Hashable] = set()  # ways of which a sample's answer was seen to be one beside others, too
        self.names: dict[int, str] = {}
        for name, tensor in self.tensors.items():
            self.names.setdefault(id(tensor), name)
        self._digests = {name: digest(tensor) for name, tensor in self.tensors.items()}
        every = [(own, key, x) for part in self._parts for own in _owned(part) for key, x in own.items()]
        self._seen = [[own, key, x, *_mark(x)] for own, key, x in every if id(x) in self.names]

    def _check_mode(self, module: nn.Module) -> None:
        for part in self._parts:
            if part.training:
                where = "the module" if module.training else f"a {type(part).__name__} of the module"
                raise StateError(f"{where} is in training mode: call module.eval() before serving it")

    def current(self) -> dict[str, Tensor]:
        """What the module's state dict holds now: tensors, without extra state, which may be anything."""
        state = self.module.state_dict(keep_vars=True).items()
        return {name: x for name, x in state if isinstance(x, Tensor) and not name.endswith("_extra_state")}

    def _check_own(self) -> None:
        """StateError where the module's state is made of its weights, instead of being them."""
        own = {id(x) for part in self._parts for held in _owned(part) for x in held.values()}
        if foreign := [name for name, tensor in self.tensors.items() if id(tensor) not in own]:
            raise StateError(
                f"tensor {foreign[0]!r} of the module's state dict is none of its parameters and buffers, but made of "
                "them, as in a quantised layer: what an expert has in its place would not be used. Give the module a "
                "rebuilt expert by its own load_state_dict"
            )

    def check_same(self) -> None:
        """StateError where the module is no longer as it was: in training mode, with other weights, or with old ones.

        A weight that was written to is looked at again; it may be the base's once more, as after a swap.
        """
        check_uncached()
        with self._turn if self._writes or not self._ran else nullcontext():  # a forward may be writing to buffers
            self._check_same()

    def join(self, expert: "Expert") -> None:
        """Notes an expert, as long as it lives."""
        with self._turn:
            self._experts.add(expert)

    def held(self) -> list[Tensor]:
        """What its experts keep."""
        with self._turn:
            return [tensor for expert in self._experts for tensor in expert.held()]

    def spoil(self) -> NoReturn:
        """From now on no expert is run: StateError."""
        self._spoilt = True
        self._check_same()

    def _check_same(self) -> None:
        if self._spoilt:
            raise StateError(
                "the module keeps what it computed from one expert's weights where it cannot be taken back (a cache of "
                "functools, a global, an object that is no module): the next expert would be given it. It has it now: "
                "make the module anew, without such a cache, or give each expert a module of its own"
            )
        self._check_mode(self.module)
        now = list(self.module.modules())
        if len(now) != len(self._parts) or any(x is not y for x, y in zip(now, self._parts, strict=True)):
            raise StateError(
                "the module has other parts than when its experts were made: put them back, or make the Base, or the "
                "Server, anew"
            )
        with torch._C.DisableTorchFunction():  # within a run a base's weight passes for the expert's
            self._check_weights()

    def _check_weights(self) -> None:
        for seen in self._seen:
            own, key, tensor, *mark = seen
            if own.get(key) is tensor and mark == (now := _mark(tensor)):
                continue
            name = self.names[id(tensor)]
            if own.get(key) is not tensor or digest(tensor) != self._digests[name]:
                raise StateError(
                    f"tensor {name!r} of the module is not what it was when its experts were made, and no base of "
                    "theirs: put it back (Swapper.to(None), load_state_dict), or make the Base, or the Server, anew"
                )
            seen[3:] = now

    def check(self, delta: TaskDelta) -> None:
        """StateError unless the delta was made for this module's weights, or some of them: a head may be its own."""
        self.check_outline(delta.shapes, delta.base)
        roots = {name: part.to if isinstance(part, Tied) else name for name, part in delta.parts.items()}
        self.check_ties(
            {name: root for name, root in roots.items() if not isinstance(delta.parts[root], Unchanged)}, roots
        )

    def check_ties(self, changed: Mapping[str, str], names: Collection[str], what: str = "the delta") -> None:
        """StateError where tensors that the module ties are to differ, each in its own way.

        ``changed``: by name, for what differs from the base, the name of the tensor that it equals. ``names``: all.
        """
        for name in names:
            first = self.names[id(self.tensors[name])]
            if first in names and changed.get(name) != changed.get(first):
                raise StateError(
                    f"{what} changes {first!r} and {name!r} apart, which are one tensor of the module: untie them "
                    "before (give each its own copy, and set tie_word_embeddings to false in a model of transformers)"
                )

    def check_live(self) -> None:
        """StateError for a module that cannot be run as an expert's without being written to."""
        floating = {name: x for name, x in self.tensors.items() if x.is_floating_point() and x.numel()}
        shared = {x.untyped_storage().data_ptr(): name for name, x in floating.items()}
        for name, part in self.module.named_modules():
            where = f"{name or 'the module'!r}, a {type(part).__name__},"
            marks = (part, "_orig_mod"), (part.forward, "_torchdynamo_orig_callable")
            if getattr(part, "_compiled_call_impl", None) is not None or any(hasattr(*mark) for mark in marks):
                raise StateError(
                    f"{where} is compiled, which hides its functions: pass the module before it was compiled"
                )
            for held in filter(lambda x: id(x) not in self.names, _tensors_of(part)):
                if held.numel() and (name := shared.get(held.untyped_storage().data_ptr())) is not None:
                    raise StateError(
                        f"{where} keeps a view of {name!r}, in whose place no expert can be put: make the view in "
                        "forward, or swap the weights (Swapper)"
                    )
            shortens = isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None
            if shortens and sum(tensor is part.weight for tensor in self.tensors.values()) > 1:
                raise StateError(
                    f"{where} shortens rows of a weight that others use too: untie them, or set max_norm=None"
                )
            for hook in part._forward_pre_hooks.values():
                if type(hook).__module__.startswith("torch.nn.utils."):
                    raise StateError(
                        f"{where} writes its weight anew whenever it runs ({type(hook).__name__}): use what "
                        "torch.nn.utils.parametrizations has for it, or make it permanent (remove_weight_norm, "
                        "prune.remove)"
                    )

    @contextmanager
    def untouched(self, differing: Set[str], how: Hashable = None) -> Iterator[bool]:
        """While the module runs as experts that change these tensors; True where one is for the first time, called so.

        What it keeps of the run, as a cache of an expert's weights, is taken back afterwards, with all that it noted
        beside. Whether a module keeps something is seen in such runs; from then on it runs in turns.
        """
        new = differing - self._watched.get(how, frozenset())
        if self._ran and not (new or self._writes):
            yield False
            return
        with self._turn:
            before = _Held(self.module)
            try:
                yield bool(new)
                self._ran = True
                self._watched[how] = self._watched.get(how, frozenset()) | new
            finally:
                with torch._C.DisableTorchFunction():
                    self._writes |= before.put_back()

    def check_outline(self, shapes: Mapping[str, tuple[int, ...]], fingerprint: str, what: str = "the delta") -> None:
        """StateError unless tensors of these names and shapes have this fingerprint; ``what`` was made for them."""
        for name, shape in shapes.items():
            if name not in self.tensors:
                raise StateError(
                    f"the module has no tensor {name!r}, {what} has; pass the module it was made for, or, if its files "
                    "have other names than it has itself, what serving.stored.for_module makes of the delta"
                )
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


def _owned(part: nn.Module) -> tuple[dict, dict]:
    """Parameters and buffers that a module holds by itself."""
    return part._parameters, part._buffers


def _mark(tensor: Tensor) -> list:
    """What goes on with each write to a tensor, and where it lies; one of inference mode counts no writes."""
    return [None if tensor.is_inference() else tensor._version, tensor.data_ptr(), tensor.dtype]


def check_uncached() -> None:
    """StateError within ``parametrize.cached()``, which would give weights of one expert to the next."""
    if parametrize._cache_enabled:
        raise StateError(
            "torch.nn.utils.parametrize.cached() is on, which keeps the weights of one expert for the next: leave it "
            "before a module is run or written as an expert"
        )


def tensors_held(module: nn.Module) -> Iterator[Tensor]:
    """The tensors that a module's parts hold: parameters, buffers, and what lies in attributes."""
    for part in module.modules():
        yield from _tensors_of(part)
        for held in _owned(part):
            yield from (x for x in held.values() if x is not None)


def _tensors_of(part: nn.Module) -> Iterator[Tensor]:
    """Tensors that a module holds by itself, in its attributes or in a container there; of none that it wraps."""
    for value in vars(part).values():
        held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
        yield from (x for x in list(held) if type(x) in (Tensor, nn.Parameter) and x.layout == torch.strided)


class _Held:
    """What a module's parts hold in attributes, and in dicts and lists there, with the values of all but parameters."""

    def __init__(self, module: nn.Module) -> None:
        self._own: dict[int, tuple[dict | list, dict]] = {}
        todo: list[dict | list] = [vars(part) for part in module.modules()]
        while todo:
            own = todo.pop()
            if id(own) not in self._own:
                self._own[id(own)] = own, dict(_items(own))
                todo += [value for _, value in _items(own) if isinstance(value, dict | list)]
        every = {id(x): x for _, held in self._own.values() for value in held.values() for x in _tensors_in(value)}
        plain = [x for x in every.values() if not (isinstance(x, nn.Parameter) or x.is_inference())]
        self._values = [(x, x._version, x.clone()) for x in plain]

    def put_back(self) -> bool:
        """Puts all back as it was where a tensor was kept, or written to; whether one was."""
        written = [(x, values) for x, version, values in self._values if x._version != version]
        for x, values in written:
            x.copy_(values)
        new = (v for own, held in self._own.values() for key, v in _items(own) if held.get(key) is not v)
        if not written and not any(_tensors_in(value) for value in new):
            return False
        for own, held in self._own.values():
            if isinstance(own, list):
                own[:] = held.values()
                continue
            for key in own.keys() - held.keys():
                del own[key]
            own.update(held)
        return True


def _items(own: dict | list) -> list[tuple]:
    return list(own.items() if isinstance(own, dict) else enumerate(own))


def _tensors_in(value: object) -> list[Tensor]:
    """The tensors that a value is or, as a container, holds."""
    leaves = pytree.tree_leaves(value) if isinstance(value, dict | list | tuple) else (value,)
    return [x for x in leaves if isinstance(x, Tensor)]


class Expert:
    """One task over a base: thin factors A (m x r) and B (r x n) of large tensors, any other that differs whole.

    Raises StateError when the delta was not made for the base, or the module cannot be run on the fly.
    """

    def __init__(self, base: Base, delta: TaskDelta) -> None:
        base.check(delta)
        base.check_live()
        self.base = base
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}
        self._whole: dict[str, Tensor] = {}
        for name in delta.parts:
            self._decode(delta, name)
        base.join(self)

    @exactly
    def _decode(self, delta: TaskDelta, name: str) -> None:
        tensor, part = self.base.tensors[name], delta.resolved(name)
        first = self.base.names[id(tensor)]
        if isinstance(part, Unchanged) or first in self:
            return
        factors = part.factors()
        if factors is not None and sum(factor.numel() for factor in factors) < tensor.numel():
            self.factors[first] = tuple(factor.to(tensor) for factor in factors)
        else:
            self._whole[first] = rebuild_tensor(tensor.detach(), delta, name).to(tensor)

    def __contains__(self, name: str) -> bool:
        """Whether the expert's tensor differs from the base's."""
        return name in self.factors or name in self._whole

    def differing(self) -> set[str]:
        """Names of the tensors that differ from the base's; of tied ones the first."""
        return self.factors.keys() | self._whole.keys()

    def whole(self, name: str) -> Tensor:
        """The expert's tensor. One that has factors is laid out once it is asked for, and kept."""
        if name not in self._whole:
            if name not in self.factors:
                return self.base.tensors[name].detach()
            self._whole[name] = self._laid_out(name)
        return self._whole[name]

    @exactly
    def _laid_out(self, name: str) -> Tensor:
        tensor, (a, b) = self.base.tensors[name].detach(), self.factors[name]
        return torch.addmm(tensor.reshape(len(a), -1), a, b).view_as(tensor)

    def held(self) -> list[Tensor]:
        """What it keeps beside the base."""
        return [factor for pair in list(self.factors.values()) for factor in pair] + list(self._whole.values())

    @property
    def nbytes(self) -> int:
        """Bytes beside the base's own."""
        return sum(tensor.nbytes for tensor in self.held())
