"""What sees the uses of an expert's weights in a forward, and puts the expert in their place.

A ``TorchFunctionMode`` sees each call of a PyTorch function within a forward, and so each use of a weight, however a
module comes by it: ``nn.Linear``, ``nn.MultiheadAttention`` that reads the weights of its parts, a bare parameter. The
mode belongs to one thread: several threads may run several experts over one module at the same time.
"""

import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch as functorch
from torch._C._dynamo.eval_frame import set_eval_frame
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from dts_mini.core.errors import StateError
from dts_mini.serving.expert import Expert
from dts_mini.serving.ops import HANDLERS, SHORTENING, Op, takes

_ABOUT = {Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_floating_point, Tensor.is_contiguous}
_DERIVED = {Tensor.T.__get__, Tensor.mT.__get__, Tensor.H.__get__, Tensor.mH.__get__, Tensor.data.__get__}


def _option(args: tuple, kwargs: Mapping, place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _about(func: Callable) -> bool:
    """Whether a function asks for something that base and expert have in common, such as a shape."""
    return func in _ABOUT or (getattr(func, "__name__", "") == "__get__" and func not in _DERIVED)


_entered = threading.local()


def _untraced(method: Callable) -> Callable:
    """Runs as it is in what torch.compile makes anew: else the next expert would get what was traced."""

    @wraps(method)
    def plain(*args: Any) -> Any:
        tracer = set_eval_frame(None)  # of this thread
        try:
            return method(*args)
        finally:
            set_eval_frame(tracer)

    plain._torchdynamo_disable = True
    return plain


class SidePaths(TorchFunctionMode):
    """While it is entered, functions that are given a tensor of the base compute with the expert's.

    Large tensors go by side paths. What has no handler is given the expert's tensor laid out, which is always right.
    """

    def __init__(self, *members: Expert) -> None:
        super().__init__()
        self.members = members
        tensors, names = members[0].base.tensors, set().union(*(expert.differing() for expert in members))
        self._names = {id(tensors[name]): name for name in names}
        self.at_work = self.watched = False  # while a function that it was shown is computed; beside a _Watch

    def __enter__(self) -> "SidePaths":
        self._outer, _entered.innermost = getattr(_entered, "innermost", None), self
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        _entered.innermost = self._outer
        super().__exit__(*error)

    @_untraced
    def __torch_function__(self, func: Callable, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        if _entered.innermost is not self:  # within the forward a module runs another expert: that one is meant
            return func(*args, **kwargs)
        shortening = func in SHORTENING and _option(args, kwargs, 3, "max_norm") is not None
        touched = self._touches(args) or (kwargs and self._touches(kwargs.values()))
        if not (touched or shortening) or _about(func):
            return func(*args, **kwargs)
        handler = SHORTENING[func] if shortening else HANDLERS.get(func)
        self.at_work = True
        try:
            if handler is not None and takes(handler, kwargs):
                result = handler(self, *args, **kwargs)
                if result is not NotImplemented:
                    return result
            return func(*map(self.expert_of, args), **{key: self.expert_of(value) for key, value in kwargs.items()})
        finally:
            self.at_work = False

    def _touches(self, values: Iterable) -> bool:
        return any(
            self._touches(value) if isinstance(value, list | tuple) else id(value) in self._names for value in values
        )

    def differs(self, tensor: Tensor) -> bool:
        """Whether it is a tensor of the base that some expert changes."""
        return id(tensor) in self._names

    def name_of(self, tensor: Tensor) -> str:
        """The name of a tensor that differs."""
        return self._names[id(tensor)]

    def expert_of(self, value: Any) -> Any:
        """An argument, with the expert's tensor where it was the base's."""
        if isinstance(value, list | tuple):
            return type(value)(map(self.expert_of, value))
        return self.laid_out(self._names[id(value)]) if self.differs(value) else value

    def laid_out(self, name: str) -> Tensor:
        whole = self.members[0].whole(name)
        return whole.clone() if self.watched else whole  # what keeps a view of the clone keeps memory of its own

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of (samples, heads, tokens, width)."""
        return F.scaled_dot_product_attention(q, k, v, mask)

    def over(self, op: Op, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The function with the experts' weight and bias, and input, which a module may hold as well."""
        return self._of(self.members[0], op, self.expert_of(x), weight, bias)

    def _of(self, expert: Expert, op: Op, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        name, bias_name = self._names.get(id(weight)), self._names.get(id(bias))
        bias = bias if bias_name is None else expert.whole(bias_name)
        if name not in expert.factors:
            return op.apply(x, weight if name is None else expert.whole(name), bias)
        y = op.apply(x, weight, bias)
        op.join(y, x, *expert.factors[name])
        return y


class _Watch(TorchDispatchMode):
    """Beside a ``SidePaths``: notes operations on the experts' tensors that PyTorch does not show to it.

    It notes as well what memory holds things that are computed from those alone, and from no input: a module that
    keeps one of them would give it to the next expert.
    """

    def __init__(self, paths: SidePaths, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self.paths, self.found = paths, ""
        paths.watched = True
        self._memory: dict[int, tuple[StorageWeakRef, bool]] = {}
        self._note(inputs, False)
        self._note((x for expert in paths.members for x in expert.held()), True)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        leaves = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if not (self.paths.at_work or self.found) and _entered.innermost is self.paths:
            self.found = next((f"{func} of {self.paths.name_of(x)!r}" for x in leaves if self.paths.differs(x)), "")
        alone = {self._alone(x) for x in leaves}
        result = func(*args, **(kwargs or {}))
        if alone - {None}:
            self._note(pytree.tree_leaves(result), False not in alone)
        return result

    def _alone(self, tensor: Tensor) -> bool | None:
        """Whether it is an expert's, or computed from such alone; None where it is neither that nor an input's."""
        if self.paths.differs(tensor):
            return True
        return self._memory.get(_memory(tensor), (None, None))[1]

    def _note(self, tensors: Iterable, alone: bool) -> None:
        for x in tensors:
            if isinstance(x, Tensor) and (key := _memory(x)):
                with torch._C.DisableTorchFunction():
                    self._memory[key] = StorageWeakRef(x.untyped_storage()), alone

    def left(self, but: Iterable[Tensor]) -> bool:
        """Whether something is kept, elsewhere than in these, that is computed from an expert's weights alone."""
        known = set(map(_memory, but))
        kept = [memory for key, (memory, alone) in self._memory.items() if alone and key not in known]
        if any(not memory.expired() for memory in kept):
            gc.collect()
        return any(not memory.expired() for memory in kept)


def _memory(tensor: Tensor) -> int:
    """Where a tensor lies, which views of it share; 0 for one that lies nowhere, such as a sparse one."""
    try:
        with torch._C.DisableTorchFunction():  # within a run a base's weight passes for the expert's
            return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return 0


@contextmanager
def watched(paths: SidePaths, watched: bool, inputs: Iterable[Tensor] = ()) -> Iterator[_Watch | None]:
    """With the paths entered; StateError, where they are watched, if a tensor was used behind their back."""
    if not watched:
        with paths:
            yield None
        return
    watch = _Watch(paths, inputs)
    try:
        with watch, paths:
            yield watch
    finally:
        if watch.found:
            raise StateError(
                f"the module computes {watch.found} where an expert cannot be put in its place, in a function of "
                "TorchScript or compiled code; pass a module without it, or swap the weights (Swapper)"
            )


class MixedPaths(SidePaths):
    """The same under ``torch.func.vmap``, for samples sorted by their expert: ``counts`` of each of the ``members``.

    ``number``: the batched scalar that says which of the members a sample belongs to.
    """

    def __init__(self, members: Sequence[Expert], counts: Sequence[int], number: Tensor) -> None:
        super().__init__(*members)
        ends = accumulate(counts)
        self.slices = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        self._number = number

    @_untraced
    def __torch_function__(self, func: Callable, types, args=(), kwargs=None) -> Any:
        mine = _entered.innermost is self
        if mine and func is F.scaled_dot_product_attention and len(args) == 3 and (args[0].dim() == 4):
            mask = (kwargs := dict(kwargs or {})).pop("attn_mask", None)
            if mask is None or mask.dim() == 4:
                return self.attend(*map(self.expert_of, (*args, mask)), **kwargs)
        return super().__torch_function__(func, types, args, kwargs)

    def laid_out(self, name: str) -> Tensor:
        table = torch.stack([expert.whole(name) for expert in self.members])
        return _on_samples(lambda number: table[number], self._number)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **options) -> Tensor:
        def work(number: Tensor, *inputs: Tensor) -> Tensor:
            q, k, v, *mask = inputs
            mask = [x.expand(-1, q.shape[1], *x.shape[2:]) for x in mask]  # one for all windows of a sample, perhaps
            flat = F.scaled_dot_product_attention(*(x.flatten(0, 1) for x in (q, k, v, *mask)), **options)
            return flat.unflatten(0, (len(number), -1))

        if mask is not None and mask.dim() == 2:
            mask = mask[None, None]
        return _on_samples(work, self._number, q, k, v, *(() if mask is None else (mask,)))

    def over(self, op: Op, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if any(functorch.is_batchedtensor(tensor) for tensor in (weight, bias) if tensor is not None):
            raise RuntimeError("a vmap over weights that the module computes: its samples are run task by task")
        parts = list(zip(self.slices, self.members, strict=True))
        name, bias_name = self._names.get(id(weight)), self._names.get(id(bias))
        whole = any(name in expert and name not in expert.factors for expert in self.members)

        def work(_: Tensor, x: Tensor) -> Tensor:
            if whole or (bias_name and not op.bias):
                return torch.cat([self._of(expert, op, x[part], weight, bias) for part, expert in parts])
            y = op.apply(x, weight, bias)
            for part, expert in parts:
                if name in expert.factors:
                    op.join(y[part], x[part], *expert.factors[name])
                if bias_name and bias_name in expert:
                    y[part] += expert.whole(bias_name) - bias
            return y

        return _on_samples(work, self._number, self.expert_of(x))


def _on_samples(work: Callable[..., Tensor], number: Tensor, *tensors: Tensor) -> Tensor:
    """Under vmap: ``work`` on the tensors of all samples, samples first, beginning with ``number``.

    An ``autograd.Function`` with a rule for vmap does the same, but takes half a millisecond each time.
    """
    level = functorch.maybe_get_level(number)
    numbers = functorch.get_unwrapped(number)

    def whole(x: Tensor) -> Tensor:
        if not functorch.is_batchedtensor(x):
            return x.expand(len(numbers), *x.shape)
        if functorch.maybe_get_level(x) != level:
            raise RuntimeError("a vmap within the module: its samples are run task by task")
        return functorch.get_unwrapped(x).movedim(functorch.maybe_get_bdim(x), 0)

    return functorch._add_batch_dim(work(numbers, *map(whole, tensors)), 0, level)
