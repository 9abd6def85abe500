"""Personalised model merging with DTS: one shared model, and a remainder of about 1 % for each task."""

from importlib import import_module
from typing import TYPE_CHECKING

from dts_mini import moved  # noqa: F401  old names of modules find the new ones
from dts_mini.core.registry import ADDING

if TYPE_CHECKING:
    from dts_mini.core.compress import compress
    from dts_mini.core.delta import Storage, TaskDelta, load, rebuild, storage
    from dts_mini.core.errors import DTSError, FileError, StateError
    from dts_mini.core.merging import average, consensus, dare, iso_c, task_arithmetic, ties, tsv_m
    from dts_mini.core.personal import fuse, fusion_weights, personalise

__all__ = [
    "DTSError",
    "FileError",
    "StateError",
    "Storage",
    "TaskDelta",
    "average",
    "compress",
    "consensus",
    "dare",
    "fuse",
    "fusion_weights",
    "iso_c",
    "load",
    "personalise",
    "rebuild",
    "storage",
    "task_arithmetic",
    "ties",
    "tsv_m",
]

ADDING += ["dts_mini.ours", "dts_mini.peers"]  # their methods, and the kinds of their files


def __getattr__(name: str) -> object:
    """The names above, imported when one is asked for: torch takes seconds, and the command line starts without."""
    if name in __all__:
        for module in ("compress", "delta", "errors", "merging", "personal"):
            found = vars(import_module(f"dts_mini.core.{module}"))
            globals().update({each: found[each] for each in __all__ if each in found})
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
