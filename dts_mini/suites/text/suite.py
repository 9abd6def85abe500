"""The text suite behind the common face: the zoo's experts with heads of their own, answers kept on disk."""

import functools
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.errors import DTSError
from dts_mini.core.state import State, fingerprint
from dts_mini.suites import places
from dts_mini.suites.store import Store
from dts_mini.suites.text.model import Encoder
from dts_mini.suites.text.tasks import Task
from dts_mini.suites.text.zoo import WORK, Zoo, embedded

DATA = places.DATA / "text"


class TextSuite:
    """all-MiniLM-L6-v2 and its experts of one training seed; see ``dts_mini.suites.suite.Suite``.

    Models are bodies: a task's head is its expert's, trained with it, whatever body it stands on. DTSError where the
    zoo has not been trained.
    """

    name = "text"
    folder = DATA
    example = "order"

    def __init__(self, work: str | Path = WORK, seed: int = 0, zoo: Zoo | None = None) -> None:
        self.zoo, self.seed = zoo or Zoo(work), seed
        self.tasks = self.zoo.kept()
        self.unseen = self.tasks[-2:]
        if missing := [task for task in self.tasks if self.zoo.about(task, seed) is None]:
            raise DTSError(f"{self.zoo.folder(seed)}: has no expert of {', '.join(missing)}; train it with make text")
        self.store = Store(self.zoo.work / "store")

    def task(self, name: str) -> Task:
        """The task called ``name``; DTSError when there is none."""
        if name not in self.tasks:
            raise DTSError(f"task {name!r} is unknown: choose one of {', '.join(self.tasks)}")
        return self.zoo.candidates[name]

    def named(self, name: str) -> str:
        return self.task(name).name

    @functools.cache  # noqa: B019 - suites live as long as the process
    def pretrained(self) -> State:
        return self.zoo.theta_0()

    @functools.cache  # noqa: B019
    def expert(self, task: str) -> State:
        return self.zoo.body(self.named(task), self.seed)

    @functools.cache  # noqa: B019
    def tower(self) -> Encoder:
        return self.zoo.encoder().requires_grad_(False)

    def head(self, task: str) -> Tensor:
        """The head (classes, d) that the expert was trained with: logits = unit embedding @ head^T."""
        return self.zoo.heads(self.named(task), self.seed)["expert"]

    def frozen_head(self, task: str) -> Tensor:
        """The linear head (classes, d) that was fitted on theta_0's embeddings of the same training texts."""
        return self.zoo.heads(self.named(task), self.seed)["frozen"]

    def classes(self, task: str) -> Sequence[str]:
        return self.task(task).classes

    def text(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings (n, d) of n texts by the pretrained encoder."""
        tower = self.tower()
        tower.load_state_dict(self.pretrained())
        return embedded(tower, self.zoo.pretrained.tokens(texts))

    @functools.cache  # noqa: B019
    def descriptor(self, task: str) -> Tensor:
        """The mean embedding (d,) of the task's question with each of its answers, by the pretrained encoder."""
        about = self.task(task)
        texts = [template.replace("{c}", name) for template in about.templates for name in about.classes]
        return F.normalize(self.text(texts).mean(0), dim=0)

    @functools.cache  # noqa: B019
    def inputs(self, task: str, split: str) -> tuple[Tensor, Tensor]:
        """Token ids (n, length), padded with zeros, and labels (n,), of ``validation`` or ``test``."""
        return self.zoo.texts(self.named(task), split)

    def answers(self, state: State, task: str, inputs: Tensor) -> Tensor:
        """Logits (n, classes) of a body's state dict on n texts, under the task's head."""
        tower = self.tower()
        tower.load_state_dict(state)
        return embedded(tower, inputs) @ self.head(task).T

    def identity(self, task: str, split: str) -> dict:
        texts = dict(zip(("ids", "labels"), self.inputs(task, split), strict=True))
        made_with = {"texts": fingerprint(texts), "head": fingerprint({"head": self.head(task)})}
        return {"suite": self.name, "task": task, "split": split, **made_with}
