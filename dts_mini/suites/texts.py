"""What suites of texts share: token ids in one tensor, and batches of texts of like length through a classifier."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

END = -1  # stands after a text's last token; no tokenizer's id is negative
TOKENS = 4_096  # of a batch, padding included: what keeps the memory that a batch takes alike for all lengths


def padded(texts: Sequence[Sequence[int]]) -> Tensor:
    """Token ids of n texts as one tensor int32 (n, longest), ``END`` after each text's last.

    >>> padded([[5, 6, 7], [8]]).tolist()
    [[5, 6, 7], [8, -1, -1]]
    """
    found = torch.full((len(texts), max(map(len, texts), default=0)), END, dtype=torch.int32)
    for row, ids in zip(found, texts, strict=True):
        row[: len(ids)] = torch.tensor(ids, dtype=torch.int32)
    return found


@torch.no_grad()
def in_batches(answer: Callable[[Tensor, Tensor], Tensor], texts: Tensor, pad: int = 0) -> Tensor:
    """What ``answer`` gives for texts (n, longest), as ``padded`` makes them, in their order.

    ``answer`` takes ids int64 (b, l) and a mask of the same shape, 1 where there is a token, and gives (b, ...). Texts
    of like length go together, the longest first, padded on the right with ``pad`` to the longest of their batch alone.

    >>> in_batches(lambda ids, mask: (ids * mask).sum(1), padded([[1], [2, 3], [4, 5, 6]])).tolist()
    [1, 5, 15]
    """
    lengths = (texts != END).sum(1).clamp(min=1)
    order = lengths.argsort(descending=True, stable=True)
    parts, start = [], 0
    while start < len(order):
        longest = int(lengths[order[start]])
        few = texts[order[start : start + max(1, TOKENS // longest)], :longest].long()
        mask = (few != END).long()
        mask[:, 0] = 1  # an empty text is one token of padding
        parts.append(answer(few.masked_fill(few == END, pad), mask))
        start += len(few)
    found = torch.cat(parts)
    return torch.empty_like(found).index_copy_(0, order, found)
