"""A linear head on embeddings: multinomial logistic regression, its penalty chosen on validation."""

from collections.abc import Sequence

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor


def linear_head(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    classes: int,
    strengths: Sequence[float],
    steps: int,
) -> Tensor:
    """The head (classes, d), without a bias, that answers most of ``validation`` rightly; of several the first.

    ``train`` and ``validation`` are unit embeddings (n, d) and labels (n,); a class that no training label names has a
    row of zeros. ``strengths``: inverse strengths of the penalty (scikit-learn's C), ``steps`` at most for each.

    >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 2])
    >>> (x @ linear_head((x, y), (x, y), 3, [1.0], 100).T).argmax(1).tolist()
    [0, 2]
    """
    (x, y), (held, truth) = train, validation
    heads = []
    for strength in strengths:
        fitted = LogisticRegression(C=strength, fit_intercept=False, max_iter=steps).fit(x, y)
        rows = torch.from_numpy(fitted.coef_)
        head = torch.zeros(classes, x.shape[1])
        # Of two classes scikit-learn gives one row: by how much the second stands above the first.
        head[torch.from_numpy(fitted.classes_)] = (torch.cat([-rows, rows]) / 2 if len(rows) == 1 else rows).float()
        heads.append(head)
    return max(heads, key=lambda head: ((held @ head.T).argmax(1) == truth).float().mean().item())
