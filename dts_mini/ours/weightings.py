"""Weightings of seen tasks for an unseen one, beside the paper's (``fusion_weights``), and how far to trust them.

Each takes task descriptors, ``unseen`` (d,) and ``seen`` (N, d), and gives weights (N,) that sum to one; those of
``hedged_weights`` sum to less.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.errors import DTSError
from dts_mini.core.personal import fusion_weights

Weighting = Callable[[Tensor, Tensor], Tensor]
Choice = TypeVar("Choice")


def nearness(unseen: Tensor, seen: Tensor) -> float:
    """The largest cosine of the unseen task's descriptor with a seen one's, in [-1, 1]: what ``abstain`` asks for."""
    fusion_weights(unseen, seen)  # refuses what does not fit
    return F.cosine_similarity(unseen[None], seen).max().item()


def uniform_weights(unseen: Tensor, seen: Tensor) -> Tensor:
    """1 / N for each task. Over the average of the experts this is the average, up to what DTS leaves over."""
    return torch.full_like(fusion_weights(unseen, seen), 1 / len(seen))


def centred_weights(unseen: Tensor, seen: Tensor) -> Tensor:
    """The paper's weights of descriptors from which the mean of the seen ones was taken (ours).

    Text embeddings share a large common part, which makes all cosines alike; without it they tell tasks apart. One
    seen task has nothing to be told apart from: it gets all the weight.
    """
    fusion_weights(unseen, seen)
    return fusion_weights(unseen - seen.mean(0), seen - seen.mean(0))


def softmax_weights(unseen: Tensor, seen: Tensor, *, temperature: float = 0.1) -> Tensor:
    """softmax(cosine / temperature): near zero the nearest task alone, for large ones equal weights (ours)."""
    if not temperature > 0:
        raise DTSError(f"temperature is {temperature}: it must be above 0")
    fusion_weights(unseen, seen)
    return F.softmax(F.cosine_similarity(unseen[None], seen) / temperature, dim=0)


def top_weights(unseen: Tensor, seen: Tensor, *, k: int = 2) -> Tensor:
    """The paper's weights among the ``k`` nearest tasks, zero for the others (ours)."""
    if not 1 <= k <= len(seen):
        raise DTSError(f"k is {k}: it must lie between 1 and the number of seen tasks, {len(seen)}")
    fusion_weights(unseen, seen)
    nearest = F.cosine_similarity(unseen[None], seen).topk(k).indices
    weights = torch.zeros(len(seen), dtype=seen.dtype, device=seen.device)
    weights[nearest] = fusion_weights(unseen, seen[nearest])
    return weights


def hedged_weights(unseen: Tensor, seen: Tensor) -> Tensor:
    """The paper's weights times nearness: a twin is fused wholly, a stranger hardly (ours).

    They sum to the nearness, or to 0 where it is negative, so that the farther the nearest seen task is, the more of
    the fused model is its base.
    """
    return fusion_weights(unseen, seen) * max(nearness(unseen, seen), 0.0)


WEIGHTINGS: dict[str, Weighting] = {
    "cosine": fusion_weights,
    "centred": centred_weights,
    "softmax": partial(softmax_weights, temperature=0.1),
    "top 2": partial(top_weights, k=2),
}
"""By the names of the tables; temperature and k are set, not tuned."""


def abstention(near: Sequence[float], gains: Sequence[float]) -> float:
    """The nearness from which on to fuse, chosen on tasks whose gain over the fallback is known (ours).

    ``near`` and ``gains`` hold a number a task. The threshold makes the summed gain of the tasks at or above it the
    largest; of equally good ones it is the least. Where no task at all gains, the threshold lies just above the nearest
    of them: a task nearer than any on which fusion failed may still be fused.
    """
    if len(near) != len(gains) or not near:
        raise DTSError(
            f"there are {len(near)} nearnesses and {len(gains)} gains; pass one of each a task, at least one"
        )
    if not all(map(math.isfinite, (*near, *gains))):
        raise DTSError("a nearness or a gain is NaN or infinite; compute it again")
    above = max(near) + 1e-6
    total = lambda t: sum(gain for n, gain in zip(near, gains, strict=True) if n >= t)
    return max(sorted({*near, above}), key=total)


def least_regret(accuracies: Mapping[Choice, Sequence[float]], bar: Sequence[float]) -> Choice:
    """The choice that falls least below ``bar`` on the task where it falls furthest (Savage's minimax regret, 1951).

    ``accuracies`` holds a row a choice, and a row as ``bar`` a number a task. Of equally safe choices it is the best in
    the mean, and the first of those.
    """
    if not bar or {len(row) for row in accuracies.values()} != {len(bar)}:
        raise DTSError("pass each choice's accuracies on the tasks of the bar, at least one choice and one task")
    lead = {choice: [a - b for a, b in zip(row, bar, strict=True)] for choice, row in accuracies.items()}
    return max(lead, key=lambda choice: (min(lead[choice]), sum(lead[choice])))
