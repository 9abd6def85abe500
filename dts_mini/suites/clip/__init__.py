"""The real suite: CLIP checkpoints and data sets of the Hub."""

from dts_mini.core.errors import needs

needs("full", "the real suite", "open_clip", "torchvision", "PIL", "huggingface_hub", "datasets")
