"""What a suite is: tasks, a pretrained image tower, experts, heads and images, behind one face.

The mini suite and the real one differ in what they load, not in how they are used.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from dts_mini.core.state import State


class Suite(Protocol):
    """Image towers are state dicts; images are what ``pixels`` takes, labels int64."""

    name: str
    tasks: tuple[str, ...]
    unseen: tuple[str, ...]  # the tasks held out in the unseen-task tables
    example: str  # the task that the notebooks follow where they follow one

    def pretrained(self) -> State:
        """theta_0: the pretrained image tower."""

    def expert(self, task: str) -> State:
        """theta_n: the image tower fine-tuned on a task."""

    def tower(self) -> nn.Module:
        """An image tower to load state dicts into: (n, 3, h, w) pixels -> (n, d) embeddings."""

    def head(self, task: str) -> Tensor:
        """Zero-shot classifier (classes, d), temperature included: logits = unit embedding @ head^T."""

    def descriptor(self, task: str) -> Tensor:
        """Task descriptor (d,): what the task is about, through the text tower."""

    def classes(self, task: str) -> Sequence[str]:
        """The names of a task's classes, in the order of the head's rows."""

    def text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (n, d) of n texts by the pretrained text tower."""

    def images(self, task: str, split: str) -> tuple[Tensor, Tensor]:
        """Pixels ready for the tower and labels, of ``validation`` or ``test``."""
