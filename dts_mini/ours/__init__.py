"""Beside the paper, and ours: DRC, a successor of DTS, and its entropy code."""

from dts_mini.core.compress import METHODS
from dts_mini.ours import drc

METHODS["drc"] = drc
