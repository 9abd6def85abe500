"""A suite of the Hub's checkpoints and data sets: what those of images and those of texts share."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.state import State
from dts_mini.streaming.checkpoint import open_checkpoint
from dts_mini.suites import places
from dts_mini.suites.hub import Hub, Repo
from dts_mini.suites.store import Store

BUILD = places.BUILD
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Files = Callable[[], list[tuple[Repo, str]]]
INDEX, SHARD = "model.safetensors.index.json", re.compile(r"model-\d+-of-\d+\.safetensors")


class Trial(NamedTuple):
    """What a plan times beforehand, all with random weights: a model on a few inputs, and parts of it to compress."""

    run: Callable[[int], object]  # takes how many inputs
    inputs: int  # how many are enough
    parts: list[tuple[State, float]]  # parts of the model, and how often it has each


class RealSuite:
    """Nothing is downloaded before it is asked for; ``dts_mini.reproduce`` measures such a suite as a whole.

    ``home`` holds, in a folder for each architecture, what is kept between runs: the pinned revisions, the inputs,
    results. ``precision`` other than float32 is mixed: weights stay float32.
    """

    unit: str  # what an input is, in the plural: images, texts
    kept: str  # what is made of the data sets' files and kept on disk
    lasting = True  # whether every file is the Hub's, at a pinned commit, so that a table says what it was made from
    libraries: tuple[str, ...] = ()  # packages beside the usual ones on which its results depend

    def __init__(
        self,
        architecture: str,
        base: str,
        *,
        home: str | Path | None,
        device: str,
        precision: str,
        protocol: str,
        hub: Hub | None,
        known: dict[str, str] | None = None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        check_choice("precision", precision, tuple(PRECISIONS))
        self.architecture, self.precision, self.protocol = architecture, precision, protocol
        self.base = Repo(base)
        self.device = _device(device)
        self.home = Path(home or BUILD) / architecture
        self.hub = hub or Hub(self.home / "revisions.json", known=known)
        self.store = Store(self.home / "store")
        self.progress = progress

    def named(self, name: str) -> str:
        return self._task(name).name

    def _task(self, name: str):
        for about in self._tasks.values():
            if name and name in (about.name, about.mirror):
                return about
        raise DTSError(f"task {name!r} is unknown: choose one of {', '.join(self.tasks)}")

    def task_size(self, task: str) -> int:
        """The number of test inputs, as published: for estimates."""
        return self._task(task).size

    def notes(self) -> list[str]:
        """What a reader of the report must know of this suite beside its protocol, a paragraph each."""
        return []

    def check(self) -> dict[str, dict]:
        """Looks at the data before anything is measured: for a task what was found, and how it is ``said``."""
        return {}

    def wanted_files(self) -> dict[Repo, Files]:
        """What the tables read, by repository; files are listed when asked for, FileError where no Hub is reached."""
        raise NotImplementedError

    def wanted(self) -> list[tuple[Repo, str]]:
        """All files that the tables read; FileError where the Hub cannot be reached."""
        return [file for files in self.wanted_files().values() for file in files()]

    def _weights(self, repo: Repo, folder: str = "") -> list[tuple[Repo, str]]:
        """The files of a model's weights: one of safetensors, or an index and its shards, or an old state dict.

        ``folder`` names where they lie in the repository, with a slash behind it.
        """
        found = {file.removeprefix(folder) for file in self.hub.files(repo) if file.startswith(folder)}
        shards = sorted(file for file in found if SHARD.fullmatch(file))
        for files in (["model.safetensors"], [INDEX, *shards], ["pytorch_model.bin"]):
            if files[0] in found:
                return [(repo, folder + file) for file in files]
        mend = "was the repository changed?"
        if "adapter_config.json" in found:
            mend = "it is an adapter: merge it into its base first (peft: merge_and_unload), and save the whole model"
        raise FileError(f"{repo} at {self.hub.commit(repo)[:8]}: has no {folder}model.safetensors; {mend}")

    def _load(self, repo: Repo, folder: str = "") -> dict[str, Tensor]:
        path, *_ = [self.hub.fetch(*file) for file in self._weights(repo, folder)]
        if path.suffix == ".bin":
            with contextlib.suppress(Exception):  # what it cannot read, the next line can, or says why not
                held = torch.load(path, map_location="cpu", weights_only=True)  # those before PyTorch 1.6, too
                if all(isinstance(tensor, Tensor) for tensor in held.values()):
                    return dict(held)
        return dict(open_checkpoint(path))


def mixed(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager:
    """Where a model computes in ``precision`` what may be so computed; its weights stay as they are."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def check_choice(what: str, value: object, allowed: tuple) -> None:
    """DTSError unless a setting's value is one of those allowed."""
    if value not in allowed:
        raise DTSError(f"{what} is {value!r}: choose one of {', '.join(map(str, allowed))}")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise DTSError(f"device {name!r} cannot be used here ({error}); choose cpu") from error
    return torch.device(name)
