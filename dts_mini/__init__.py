"""Personalised model merging with DTS: one shared model, and a remainder of about 1 % for each task."""

from dts_mini.core.delta import Storage, TaskDelta, compress, load, rebuild, storage
from dts_mini.core.dts import Settings
from dts_mini.core.errors import DTSError, FileError, StateError
from dts_mini.core.merging import average, consensus, dare, iso_c, task_arithmetic, ties, tsv_m
from dts_mini.core.personal import fuse, fusion_weights, personalise

__all__ = [
    "DTSError",
    "FileError",
    "Settings",
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
