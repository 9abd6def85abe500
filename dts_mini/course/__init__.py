"""What the notebooks use beside the core: figures with alt text, and claims that a machine checks."""

from dts_mini.course.claims import claim
from dts_mini.course.style import show

__all__ = ["claim", "show"]
