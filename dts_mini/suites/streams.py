"""Random streams that never meet: each purpose draws from a generator of its own."""

import hashlib

import torch
from torch import Generator

VALIDATION = 5_000  # inputs at most, and at most a tenth of the training split, as task arithmetic took them


def stream(*words: object) -> Generator:
    """A random generator whose seed is a hash of ``words``: other words, another stream."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def held_out(count: int, *words: object) -> list[int]:
    """The rows for validation among the ``count`` of a training split, in order: a draw with the seed of ``words``.

    >>> held_out(30, "MNIST")
    [18, 20, 29]
    """
    draw = torch.randperm(count, generator=stream(*words))
    return sorted(draw[: max(1, min(count // 10, VALIDATION))].tolist())
