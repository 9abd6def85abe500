"""The mini suite: eight tasks of 32 x 32 images, and a CLIP that was trained on them from nothing."""

from dts_mini.core.errors import needs

needs("suites", "the mini suite", "open_clip", "torchvision", "mlxtend", "matplotlib", "PIL")
