"""What a suite is: tasks, a pretrained model, experts, heads and inputs, behind one face.

The mini suite and the real ones differ in what they load, not in how they are used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from dts_mini.core.state import State
from dts_mini.suites.store import Store


class About(Protocol):
    """What a suite says of a task."""

    name: str
    mirrors: str  # the data set of the paper's suite that it is, or stands in for
    real: bool  # photographs, scans or texts, not drawn by a generator
    classes: tuple[str, ...]  # names, in the order of the labels
    templates: tuple[str, ...]  # prompts, "{c}" standing for the class name; none where heads are trained


class Suite(Protocol):
    """Models are state dicts without their heads; inputs are images or texts, as tensors (n, ...), labels int64."""

    name: str
    tasks: tuple[str, ...]
    unseen: tuple[str, ...]  # the tasks held out in the unseen-task tables
    example: str  # the task that the notebooks follow where they follow one
    folder: Path  # where what was measured on it lies: results.json
    store: Store | None  # where long computations are kept between runs; None where everything is quick

    def task(self, name: str) -> About:
        """What is known of a task, by any of its names."""

    def named(self, name: str) -> str:
        """This suite's name of a task; the mini suite's names also find the data sets that they mirror."""

    def pretrained(self) -> State:
        """theta_0: the pretrained model."""

    def expert(self, task: str) -> State:
        """theta_n: the model fine-tuned on a task."""

    def inputs(self, task: str, split: str) -> tuple[Tensor, Tensor]:
        """What a model is asked (n, ...), and labels (n,), of ``validation`` or ``test``."""

    def answers(self, state: State, task: str, inputs: Tensor) -> Tensor:
        """Logits (n, classes) of a model on n of a task's inputs, under the task's head."""

    def descriptor(self, task: str) -> Tensor:
        """Task descriptor (d,): what the task is about."""

    def classes(self, task: str) -> Sequence[str]:
        """The names of a task's classes, in the order of the labels."""

    def identity(self, task: str, split: str) -> Mapping:
        """What answers depend on beside the model's state dict: revisions, head, precision; plain data for JSON."""


class ImageSuite(Suite, Protocol):
    """A suite of images: models are image towers, heads come from class names through a text tower."""

    def tower(self) -> nn.Module:
        """An image tower to load state dicts into: (n, 3, h, w) pixels -> (n, d) embeddings."""

    def head(self, task: str) -> Tensor:
        """Zero-shot classifier (classes, d), temperature included: logits = unit embedding @ head^T."""

    def text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (n, d) of n texts by the pretrained text tower."""

    def images(self, task: str, split: str) -> tuple[Tensor, Tensor]:
        """Pixels ready for the tower and labels, of ``validation`` or ``test``: the suite's ``inputs``."""
