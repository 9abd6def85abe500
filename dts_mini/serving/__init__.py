"""Floor 3: experts in use: swapped into a module, run beside it, mixed in one batch, served by name, as LoRA."""

from dts_mini.serving.expert import Base, Expert
from dts_mini.serving.live import run
from dts_mini.serving.server import Server
from dts_mini.serving.swap import Swapper, unpacked

__all__ = ["Base", "Expert", "Server", "Swapper", "run", "unpacked"]
