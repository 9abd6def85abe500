"""What a task of the mini suite is, and how its splits are kept apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from dts_mini.suites.streams import stream

Painter = Callable[[int, Generator], Tensor]
"""Draws n images of one class: (n, generator) -> (n, 3, 32, 32) in about [0, 1]."""

SPLITS = ("pretrain", "train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """One classification task of 32 x 32 RGB images.

    ``source(split, n, generator)`` gives n images (n, 3, 32, 32) in [0, 1] and their labels (n,).
    ``synonyms`` are, for each class, other words for it, as captions on the web would use them.
    """

    name: str
    mirrors: str  # the data set of the paper's suite that it stands in for
    real: bool  # photographs or scans (True), or drawn by a generator (False)
    classes: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]  # prompts, "{c}" standing for the class name
    source: Callable[[str, int, Generator], tuple[Tensor, Tensor]]

    def images(self, split: str, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """``n`` images of a split, uint8 (n, 3, 32, 32), and labels int64 (n,), the same at every call.

        Each (task, split, seed) has a random stream of its own, so no two splits share a drawn image;
        tasks of real images cut them by index (see their source).
        """
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown: choose one of {', '.join(SPLITS)}")
        images, labels = self.source(split, n, stream(self.name, split, seed))
        return images.clamp(0, 1).mul(255).round().to(torch.uint8), labels


def drawn(painters: Sequence[Painter]) -> Callable[[str, int, Generator], tuple[Tensor, Tensor]]:
    """A source that draws each class with its painter, the classes in random order and equally likely."""

    def source(split: str, n: int, g: Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(len(painters), (n,), generator=g)
        images = torch.empty(n, 3, 32, 32)
        for label, painter in enumerate(painters):
            here = labels == label
            if here.any():
                images[here] = painter(int(here.sum()), g)
        return images, labels

    return source
