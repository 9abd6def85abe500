"""The mini suite behind the common face: committed checkpoints, drawn images, everything in memory."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import load_tensors, read_bytes
from dts_mini.core.state import State, fingerprint
from dts_mini.suites import places
from dts_mini.suites.heads import Towers, zero_shot_head
from dts_mini.suites.mini.model import create_model, load_model, pixels, tokenize
from dts_mini.suites.mini.task import Task
from dts_mini.suites.mini.tasks import TASKS
from dts_mini.suites.store import Store, code_version

DATA = places.DATA / "mini"
IMAGES = {"validation": 1_000, "test": 1_000}  # a task; digits has but 500 scans to validate on


def file_name(task: str) -> str:
    return f"expert_{task.replace(' ', '_')}.safetensors"


class MiniSuite(Towers):
    """Eight 32 x 32 tasks and a CLIP of 1.85 M image-tower parameters; see ``dts_mini.suites.suite.Suite``.

    ``folder`` holds ``theta_0.safetensors`` and an ``expert_<task>.safetensors`` each; where it has a
    ``manifest.json``, the files' digests are checked against it.
    """

    name = "mini"
    tasks = tuple(task.name for task in TASKS)
    unseen = ("aerial", "house numbers")
    example = "house numbers"

    def __init__(self, folder: str | Path = DATA) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileError(f"{self.folder}: there is no such folder; train the checkpoints with make zoo")
        manifest = self.folder / "manifest.json"
        self.manifest = json.loads(read_bytes(manifest)) if manifest.exists() else {"files": {}}

    @functools.cached_property
    def store(self) -> Store | None:
        """Where the environment variable DTS_STORE names a folder, one in it for the code as it is; else none."""
        folder = os.environ.get("DTS_STORE")
        return Store(Path(folder) / code_version()) if folder else None

    @classmethod
    def of_seed(cls, seed: int, zoo: Path) -> Self:
        """The experts of one seed: of 0 the committed ones, of another what ``make zoo`` put in ``zoo/<seed>``."""
        return cls(zoo / str(seed) if seed else DATA)

    def task(self, name: str) -> Task:
        """The task called ``name``; DTSError when there is none."""
        if name not in self.tasks:
            raise DTSError(f"task {name!r} is unknown: choose one of {', '.join(self.tasks)}")
        return TASKS[self.tasks.index(name)]

    def named(self, name: str) -> str:
        return self.task(name).name

    def _path(self, file: str) -> Path:
        path, entry = self.folder / file, self.manifest["files"].get(file)
        if entry and hashlib.sha256(read_bytes(path)).hexdigest() != entry["sha256"]:
            raise FileError(f"{path}: its sha256 is not the manifest's; restore the file, or train it with make zoo")
        return path

    @functools.cached_property
    def model(self):
        """The pretrained CLIP, both towers."""
        return load_model(self._path("theta_0.safetensors"))

    @functools.cached_property
    def _towers(self) -> str:
        """The fingerprint of both towers: heads depend on the text tower."""
        return fingerprint(self.model.state_dict())

    @functools.cache  # noqa: B019 - suites live as long as the process
    def pretrained(self) -> State:
        return {name: tensor.detach().clone() for name, tensor in self.model.visual.state_dict().items()}

    @functools.cache  # noqa: B019
    def expert(self, task: str) -> State:
        path = self._path(file_name(self.task(task).name))
        return {name: tensor.float() for name, tensor in load_tensors(path).items()}

    @functools.cache  # noqa: B019
    def tower(self) -> nn.Module:
        return create_model().visual.eval().requires_grad_(False)

    @functools.cache  # noqa: B019
    def head(self, task: str) -> Tensor:
        about = self.task(task)
        rows = zero_shot_head(self.model, tokenize, about.classes, about.templates)
        return rows * self.model.logit_scale.exp().detach()

    def descriptor(self, task: str) -> Tensor:
        return F.normalize(F.normalize(self.head(task), dim=1).mean(0), dim=0)

    def classes(self, task: str) -> Sequence[str]:
        return self.task(task).classes

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Tensor:
        return self.model.encode_text(torch.stack([tokenize(text) for text in texts]))

    @functools.cache  # noqa: B019
    def images(self, task: str, split: str) -> tuple[Tensor, Tensor]:
        raw, labels = self.task(task).images(split, IMAGES[split])
        return pixels(raw), labels

    def identity(self, task: str, split: str) -> dict:
        return {"suite": self.name, "task": task, "split": split, "images": IMAGES[split], "towers": self._towers}
