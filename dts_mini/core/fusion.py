"""Weightings of seen tasks for an unseen one, beside the paper's (``fusion_weights``), and when to use none of them.

Each takes task descriptors, ``unseen`` (d,) and ``seen`` (N, d), and gives weights (N,) that sum to one.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.errors import DTSError
from dts_mini.core.personal import fusion_weights

Weighting = Callable[[Tensor, Tensor], Tensor]


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
    largest; of equally good ones it is the least. Where no task at all gains, the threshold lies just above the nearest of
    them: a task nearer than any on which fusion failed may still be fused.
    """
    if len(near) != len(gains) or not near:
        raise DTSError(
            f"there are {len(near)} nearnesses and {len(gains)} gains; pass one of each a task, at least one"
        )
    if not torch.tensor([*near, *gains]).isfinite().all():
        raise DTSError("a nearness or a gain is NaN or infinite; compute it again")
    above = max(near) + 1e-6
    total = lambda t: sum(gain for n, gain in zip(near, gains, strict=True) if n >= t)
    return max(sorted({*near, above}), key=total)


def choose_fallback(accuracies: Mapping[str, Sequence[float]]) -> str:
    """The fallback that is best in the mean over tasks, the first of equals; ``accuracies`` has a row a fallback."""
    if not accuracies or len({len(row) for row in accuracies.values()}) != 1:
        raise DTSError("pass each fallback's accuracies on the same tasks, at least one fallback")
    return max(accuracies, key=lambda name: sum(accuracies[name]))
