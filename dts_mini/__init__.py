"""Personalised model merging with DTS: one shared model, and a remainder of about 1 % for each task."""

from dts_mini.core.compress import compress
from dts_mini.core.delta import Storage, TaskDelta, load, rebuild, storage
from dts_mini.core.errors import DTSError, FileError, StateError
from dts_mini.core.merging import average, consensus, dare, iso_c, task_arithmetic, ties, tsv_m
from dts_mini.core.personal import fuse, fusion_weights, personalise
from dts_mini.ours import drc as _drc  # noqa: F401  its method and the kinds of its files become known

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
