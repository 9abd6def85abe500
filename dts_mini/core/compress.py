"""What an expert adds to a base, compressed: ``compress``, above the methods that do it."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from types import ModuleType
from typing import Literal

from dts_mini.core import dts
from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError
from dts_mini.core.frame import Frame, Mapper
from dts_mini.core.state import State, check_pair

METHODS: dict[str, ModuleType] = {"dts": dts}
"""By name: a module with ``Settings`` and ``compress(frame, settings, budget, progress) -> TaskDelta``.

The paper's stands here; a package beside the core adds its own when it is imported (``dts_mini.ours`` adds DRC).
"""


def compress(
    base: State,
    expert: State,
    *,
    method: Literal["dts", "drc"] = "dts",
    budget: int | str | None = None,
    progress: Callable[[str], object] = str,
    mapper: Mapper = map,
    **settings,
) -> TaskDelta:
    """Compresses what an expert adds to a base: every tensor of ``expert - base``, one after another.

    Both are state dicts with the same names and shapes, in memory or on disk (``open_checkpoint``); computation is in
    float32 or better. All tensors are looked at before the first is compressed. Integer tensors are kept where they
    differ; of tensors that are equal in the base and in the expert, as tied ones are, the first is compressed.
    With the pretrained theta_0 as base this is DTS-T, with a merged model theta_m it is DTS-D (arXiv 2512.01461).

    ``method``: "dts", the paper's, or "drc", ours; ``settings`` are those of its ``Settings``.
    ``budget``: the file's size at most, in bytes, or as "1%" of the expert in float32; it decides instead of
    ``keep_ratio`` or ``notch``. DRC without either takes 1%. ``progress`` is called once with each tensor's name.
    ``mapper(work, jobs)`` yields ``work(job)`` in order, as ``map`` does, wherever it computes it: on a cluster
    (``streaming.cluster``), or so that a kill loses nothing (``streaming.resume``).

    Raises DTSError, before any tensor is compressed, for a setting out of range and for state dicts that are empty, do
    not fit each other, or hold NaN or infinity; and for a budget that not even the smallest file meets.
    """
    chosen = _settings(method, settings)
    if budget is not None and chosen.sized_by in settings:
        raise DTSError(f"both a budget and {chosen.sized_by} are given: pass one of them")
    check_pair(base, expert)
    frame = Frame(base, expert, mapper)
    for name in frame.parts:
        progress(name)
    return METHODS[method].compress(frame, chosen, None if budget is None else frame.budget(budget), progress)


def _settings(method: str, given: Mapping):
    if method not in METHODS:
        raise DTSError(f"method is {method!r}: choose one of {', '.join(METHODS)}")
    allowed = [field.name for field in fields(METHODS[method].Settings)]
    if unknown := given.keys() - allowed:
        raise DTSError(f"{method} has no setting {min(unknown)!r}: choose among {', '.join(allowed)}")
    return METHODS[method].Settings(**given)
