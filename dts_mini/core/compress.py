"""What an expert adds to a base, compressed: ``compress``, above the methods that do it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import Field, fields
from operator import index
from types import ModuleType
from typing import Literal

from dts_mini.core import dts
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import BudgetError, DTSError
from dts_mini.core.frame import Frame, Mapper
from dts_mini.core.registry import Registry
from dts_mini.core.state import State, exactly

METHODS: dict[str, ModuleType] = Registry(dts=dts)
"""By name: a module with ``Settings`` and ``compress(frame, settings, budget, progress) -> TaskDelta``.

The paper's stands here; a package beside the core adds its own (``dts_mini.ours`` adds DRC).
"""


def compress(
    base: State,
    expert: State,
    *,
    method: Literal["dts", "drc"] = "dts",
    budget: int | str | None = None,
    progress: Callable[[str], object] = str,
    mapper: Mapper = map,
    keep: Sequence[str] = (),
    stacks: Sequence[str] = (),
    **settings,
) -> TaskDelta:
    """Compresses what an expert adds to a base: every tensor of ``expert - base``, one after another.

    Both are state dicts with the same names and shapes, in memory or on disk (``open_checkpoint``); computation is in
    float32 or better. All tensors are looked at before the first is compressed. With the pretrained theta_0 as base
    this is DTS-T, with a merged model theta_m it is DTS-D (arXiv 2512.01461).

    What is no weight to be compressed is kept: integer tensors and the statistics of norm layers (``running_var`` and
    its like) exactly as the expert has them; of tensors that are equal in the base and in the expert, as tied ones are,
    the first is compressed; rows and columns of a matrix that did not change, and tensors that only were rounded to the
    expert's dtype, stay as they are.

    ``method``: "dts", the paper's, or "drc", ours; ``settings`` are those of its ``Settings``.
    ``budget``: the file's size at most, in bytes, or as "1%" of the expert in float32; it decides instead of
    ``keep_ratio`` or ``notch``. DRC without either takes 1%.
    ``keep``: names of more tensors to keep exactly, or patterns as in "*.bias"; ``stacks``, alike: of tensors
    (..., m, n) that are stacks of matrices, as mixtures of experts have them, each matrix then being coded by itself.
    ``progress`` is called once with each tensor's name (of a matrix in a stack, "name[i]").
    ``mapper(work, jobs)`` yields ``work(job)`` in order, as ``map`` does, wherever it computes it: on a cluster
    (``streaming.cluster``), or so that a kill loses nothing (``streaming.resume``).

    Raises DTSError, before any tensor is compressed, for a setting out of range and for state dicts that are empty, do
    not fit each other, or hold NaN or infinity where they differ; and for a budget that not even the smallest file
    meets.

    >>> base = {"w": torch.zeros(8, 6)}
    >>> delta = compress(base, {"w": torch.ones(8, 6)}, keep_ratio=0.2)
    """
    chosen = settings_of(method, settings, budget)
    frame = Frame(base, expert, mapper, keep=keep, stacks=stacks, convolutions=chosen.convolutions)
    return compressed(frame, method, chosen, budget, progress)


def settings_of(method: str, given: Mapping[str, object], budget: int | str | None):
    """The method's ``Settings``; DTSError for an unknown method or setting, or one out of range or against a budget."""
    if METHODS.get(method) is None and method not in METHODS:  # the second asks the packages beside the core
        raise DTSError(f"method is {method!r}: choose one of {', '.join(METHODS)}")
    kind = METHODS[method].Settings
    allowed = [field.name for field in fields(kind)]
    if unknown := given.keys() - allowed:
        raise DTSError(f"{method} has no setting {min(unknown)!r}: choose among {', '.join(allowed)}")
    if budget is not None and kind.sized_by in given:
        raise DTSError(f"both a budget and {kind.sized_by} are given: pass one of them")
    return kind(**{field.name: _typed(field, given[field.name]) for field in fields(kind) if field.name in given})


def _typed(field: Field, value: object) -> object:
    """The value as the setting's own type, whoever's number it is; DTSError where it is none."""
    wanted = int if field.default is None else type(field.default)
    if wanted is float and type(value) in (int, float):
        return value
    if wanted in (int, float) and not isinstance(value, bool | str):
        with suppress(TypeError, ValueError):
            return index(value) if wanted is int else float(value)
    elif isinstance(value, wanted):
        return value
    what = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}[wanted]
    raise DTSError(f"{field.name} is {value!r}: give {what}")


@exactly
def compressed(
    frame: Frame, method: str, settings, budget: int | str | None, progress: Callable[[str], object]
) -> TaskDelta:
    """The delta of a frame; the error of a budget that cannot be met says which tensors none makes smaller."""
    for name in frame.parts:
        progress(name)
    limit = None if budget is None else frame.budget(budget)
    try:
        delta = METHODS[method].compress(frame, settings, limit, progress)
        if negative := frame.negative(delta):  # they are kept, and all is done again within the budget
            delta = METHODS[method].compress(frame.keeping(negative), settings, limit, str)
        return delta
    except BudgetError as error:
        raise BudgetError(f"{error}{frame.advice()}") from None
