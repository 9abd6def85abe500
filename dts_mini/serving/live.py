"""On the fly: experts run beside the base's weights, which are read and never written, or copied.

    W x + A (B x)        for W + A B, A (m x r) and B (r x n)

One batch may mix tasks. The forward then runs under ``torch.func.vmap``, as if for a single sample, so that PyTorch
itself keeps track of which dimension is the batch; the product with W is one for all samples, and each task's thin
products are made on its own samples, which lie side by side. A module that vmap cannot take runs task by task, and so
does any module under autocast, which vmap does not always heed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dts_mini.core.errors import DTSError
from dts_mini.serving.expert import Expert, tensors_held
from dts_mini.serving.paths import MixedPaths, SidePaths, watched

_WORD = 32  # letters at most of a text that chooses what a module does


@torch.no_grad()
def run(experts: Expert | Sequence[Expert], *args, **kwargs) -> Any:
    """The output of the experts' module. One expert for the whole input, or one for each sample of a batch.

    In a batch with an expert a sample, dimension 0 of all tensors that go in or come out counts the samples, those in
    objects too, such as a cache of keys and values, of which a copy comes out. A sample's output may depend on itself
    alone. Raises DTSError when the experts are none, of several modules, or not as many as the samples, and for what
    cannot be shared out: arrays and lists that are no tensors, outputs that are not made sample by sample.
    """
    if isinstance(experts, Expert):
        return _run(experts, args, kwargs)
    if not (isinstance(experts, Sequence) and all(isinstance(expert, Expert) for expert in experts)):
        raise DTSError(
            "give an Expert, or a list of them, one for each sample; of a delta: Expert(Base(module), delta)"
        )
    check_batch(len(experts), args, kwargs)
    if any(expert.base is not experts[0].base for expert in experts):
        raise DTSError("the experts belong to several modules; decode them over one Base")
    experts[0].base.check_same()
    leaves, form = pytree.tree_flatten(_opened((args, kwargs)))
    inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    members = list(dict.fromkeys(experts))
    if len(members) == 1:
        return run(members[0], *args, **kwargs)
    where = inputs[0].device
    number = torch.tensor([members.index(expert) for expert in experts], dtype=torch.int64, device="cpu")
    order, counts = number.argsort(stable=True).to(where), number.bincount().tolist()
    number, inputs = number.to(where)[order], [x[order] for x in inputs]

    def fill(inputs: Iterable[Tensor]) -> tuple:
        rest = iter(inputs)
        return _closed(pytree.tree_unflatten([next(rest) if isinstance(x, Tensor) else x for x in leaves], form))

    _check_samples(members[0], _how(args, kwargs), inputs, fill)
    if torch.is_autocast_enabled(where.type):
        outputs, form_out = _one_by_one(members, counts, inputs, fill)
    else:
        try:
            differing = set().union(*(expert.differing() for expert in members))
            with members[0].base.untouched(differing, _how(args, kwargs)) as first:
                outputs, form_out = _at_once(members, number, counts, inputs, fill, first)
        except DTSError:
            raise
        except Exception:  # what vmap cannot take it says in many ways; an error of the module's own comes again
            outputs, form_out = _one_by_one(members, counts, inputs, fill)
    _check_outputs(outputs, len(experts))
    back = order.argsort()
    return _closed(pytree.tree_unflatten([x[back] if isinstance(x, Tensor) else x for x in outputs], form_out))


def _run(expert: Expert, args: tuple, kwargs: Mapping) -> Any:
    base = expert.base
    base.check_same()
    with (
        base.untouched(expert.differing(), _how(args, kwargs)) as first,
        watched(SidePaths(expert), first, _tensors((args, kwargs))) as w,
    ):
        output = base.module(*args, **kwargs)
    if w is not None:
        leaves = list(_tensors(output))
        graph = any(x.requires_grad for x in leaves)  # which may hold anything
        if not graph and w.left([*leaves, *base.held(), *tensors_held(base.module)]):
            base.spoil()
    return output


def _at_once(
    members: Sequence[Expert],
    number: Tensor,
    counts: Sequence[int],
    inputs: Sequence[Tensor],
    fill: Callable,
    first: bool,
):
    """The outputs of samples sorted by expert, in one forward of them all: leaves, and the form they had."""
    made: list = []  # what vmap cannot carry: outputs that are no tensors, and the form of them all

    def forward(number: Tensor, *sample: Tensor) -> list[Tensor]:
        args, kwargs = fill(x[None] for x in sample)
        with watched(MixedPaths(members, counts, number), first):
            outputs, form = pytree.tree_flatten(_opened(members[0].base.module(*args, **kwargs)))
        made[:] = [[Tensor if isinstance(x, Tensor) else x for x in outputs], form]
        _check_outputs(outputs, 1)
        return [x[0] for x in outputs if isinstance(x, Tensor)]

    tensors = iter(torch.func.vmap(forward)(number, *inputs))
    outputs, form = made
    return [next(tensors) if x is Tensor else x for x in outputs], form


def _one_by_one(members: Sequence[Expert], counts: Sequence[int], inputs: Sequence[Tensor], fill: Callable):
    """The same, with a forward for each expert."""
    each = []
    for expert, *parts in zip(members, *(x.split(counts) for x in inputs), strict=True):
        args, kwargs = fill(parts)
        leaves, form = pytree.tree_flatten(_opened(run(expert, *args, **kwargs)))
        _check_outputs(leaves, len(parts[0]))
        each.append(leaves)
    for other in each[1:]:
        _check_alike(each[0], other, "as one expert and another answer")
    return [torch.cat(same) if isinstance(same[0], Tensor) else same[0] for same in zip(*each, strict=True)], form


def _check_samples(expert: Expert, how: tuple, inputs: Sequence[Tensor], fill: Callable) -> None:
    """DTSError where of a sample something else comes out beside another than alone; looked at once for each form.

    A matrix of all samples with all, a list with an entry for each, their number: no batch of several tasks has it.
    """
    if how in expert.base.sampled:
        return
    alone, beside = (
        pytree.tree_leaves(_opened(run(expert, *args, **kwargs)))
        for args, kwargs in (fill(x[where] for x in inputs) for where in ([0], [0, 0]))
    )
    _check_outputs(alone, 1)
    _check_outputs(beside, 2)
    _check_alike(alone, beside, "of one sample and of two")
    expert.base.sampled.add(how)


def _how(args: tuple, kwargs: Mapping) -> tuple:
    """In what way a module is called: what goes in but for numbers, sizes and long texts, which are seldom a choice."""
    leaves, form = pytree.tree_flatten((args, kwargs))
    chosen = lambda x: isinstance(x, bool) or (isinstance(x, str) and len(x) <= _WORD)
    return form, *(x.dim() if isinstance(x, Tensor) else x if chosen(x) else type(x) for x in leaves)


def _check_alike(leaves: Sequence, others: Sequence, when: str) -> None:
    """DTSError unless the outputs are tensors of one shape but for dimension 0, or equal."""
    way = "let the module give tensors that have a row for each sample, or run each task by itself"
    if len(leaves) != len(others):
        raise DTSError(f"the module gives {len(leaves)} and {len(others)} outputs, {when}: {way}")
    for place, (x, y) in enumerate(zip(leaves, others, strict=True)):
        if not _alike(x, y):
            shown = " and ".join(
                f"a tensor of shape {tuple(v.shape)}" if isinstance(v, Tensor) else f"{type(v).__name__} {v!r:.40}"
                for v in (x, y)
            )
            raise DTSError(f"output {place} of the module is {shown}, {when}: {way}")


def _alike(x: Any, y: Any, depth: int = 6) -> bool:
    """Whether two outputs agree in all but their samples; objects, where what they hold does."""
    if isinstance(x, Tensor) or type(x) is not type(y):
        return isinstance(x, Tensor) and isinstance(y, Tensor) and (x.shape[1:], x.dtype) == (y.shape[1:], y.dtype)
    if x is y or isinstance(x, _Shell):
        return True
    if isinstance(x, dict | list | tuple) and depth:
        pairs = [(x[key], y.get(key)) for key in x] if isinstance(x, dict) else list(zip(x, y, strict=False))
        return len(x) == len(y) and all(_alike(*pair, depth - 1) for pair in pairs)
    if type(x).__eq__ is object.__eq__ and hasattr(x, "__dict__") and depth:
        return _alike(vars(x), vars(y), depth - 1)
    try:
        return bool(x == y)
    except Exception:  # an array, for example
        return False


class _Shell:
    """An object without what it holds, for which pytree is to take it."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole


class _Opened(NamedTuple):
    """An object of a class that pytree does not know, such as a cache of keys and values, and what it holds."""

    inner: dict
    outer: _Shell


def _opened(tree: Any, depth: int = 4) -> Any:
    """The same, with objects that hold tensors taken apart, so that pytree finds these."""

    def each(leaf: Any) -> Any:
        if not depth or isinstance(leaf, Tensor | torch.nn.Module | type) or not hasattr(leaf, "__dict__"):
            return leaf
        inner = _opened(vars(leaf), depth - 1)
        return _Opened(inner, _Shell(leaf)) if any(isinstance(x, Tensor) for x in pytree.tree_leaves(inner)) else leaf

    return pytree.tree_map(each, tree)


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Those in a tree and in its objects, looked for when the first is asked for."""
    yield from (x for x in pytree.tree_leaves(_opened(tree)) if isinstance(x, Tensor))


def _closed(tree: Any) -> Any:
    """What was taken apart, put together as copies of the objects."""

    def each(leaf: Any) -> Any:
        if not isinstance(leaf, _Opened):
            return leaf
        made = copy(leaf.outer.whole)
        vars(made).update(_closed(leaf.inner))
        return made

    return pytree.tree_map(each, tree, is_leaf=lambda x: isinstance(x, _Opened))


def _check_outputs(leaves: Sequence, count: int) -> None:
    """DTSError for an output that does not hold a sample for each of the inputs'."""
    for place, x in enumerate(leaves):
        if isinstance(x, Tensor) and x.shape[:1] != (count,):
            raise DTSError(
                f"output {place} of the module has shape {tuple(x.shape)} for {count} sample{'s'[: count != 1]}: in a "
                "batch of several tasks its dimension 0 must count them; let the module leave it out, or run each task "
                "by itself"
            )


def check_batch(count: int, args: tuple, kwargs: Mapping) -> None:
    """DTSError unless there are as many experts or tasks as samples, and at least one."""
    if not count:
        raise DTSError("there are no experts; pass one for each sample")
    for leaf in pytree.tree_leaves((args, kwargs), is_leaf=_plain_list):
        if isinstance(leaf, np.ndarray) or (isinstance(leaf, list) and len(leaf) == count):
            raise DTSError(
                f"an input is a{'n array of NumPy' if isinstance(leaf, np.ndarray) else ' list'} of {len(leaf)}, which "
                "may be one for each sample: give a tensor, or a tuple if it is one for all"
            )
        held = leaf.values() if isinstance(leaf, dict) else leaf if isinstance(leaf, tuple | list | Set) else ()
        if any(isinstance(x, Tensor) for x in held):  # a class of its own, or it were no leaf
            raise DTSError(
                f"an input is a {type(leaf).__name__} that holds tensors, which nobody can take apart: give them in a "
                "dict, a list or a tuple"
            )
    sizes = {len(x) if x.dim() else 0 for x in _tensors((args, kwargs))}
    if sizes != {count}:
        raise DTSError(
            f"there are {count} experts and {' or '.join(map(str, sorted(sizes))) or 'no'} samples; "
            "pass one expert for each sample"
        )


def _plain_list(x: Any) -> bool:
    return isinstance(x, list) and not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(x))
