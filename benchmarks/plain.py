"""The paper's text, line by line and without a thought for speed: what ``benchmarks.compress`` measures against.

Full-matrices SVD, groups by sorting the positive and the negative elements (arXiv 2512.01461, section 3). It shares
nothing with ``dts_mini``, so that the two also check each other. ``SVDS`` holds quicker ways to the same components, so
that nobody is beaten by the slowest one alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Svd = Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""(matrix (m x n), rank r) -> U (m x at least r), s (at least r), V (n x at least r)."""


def full(matrix: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """All of U (m x m) and V (n x n)."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=True)
    return u, s, vh.T


def economy(matrix: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """The min(m, n) components that there are."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vh.T


def randomised(matrix: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading r of them, nearly: ten random directions more, two power iterations (Halko et al. 2011)."""
    return torch.svd_lowrank(matrix, min(r + 10, *matrix.shape), niter=2)


SVDS: dict[str, Svd] = {"full": full, "economy": economy, "randomised": randomised}


def decompose(matrix: Tensor, keep_ratio: float, svd: Svd = full) -> tuple[Tensor, Tensor, Tensor]:
    """U (m x r), s (r), V (n x r) of a matrix (m x n), r = floor(keep_ratio * min(m, n)), at least 1."""
    r = max(1, int(keep_ratio * min(matrix.shape)))
    u, s, v = svd(matrix, r)
    return u[:, :r], s[:r], v[:, :r]


def threshold_and_scale(x: Tensor) -> Tensor:
    """The tensor with each element replaced by its group's value: four groups, each at its root mean square."""
    flat, out = x.flatten(), torch.zeros(x.numel())
    for sign in (1, -1):
        order = torch.argsort(sign * flat, descending=True)
        order = order[: int((sign * flat > 0).sum())]
        strong = len(order) // 2
        for group in (order[:strong], order[strong:]):
            if len(group):
                out[group] = sign * flat[group].norm() / len(group) ** 0.5
    return out.view_as(x)


def compress(
    base: dict[str, Tensor], expert: dict[str, Tensor], keep_ratio: float, svd: Svd = full
) -> dict[str, tuple[Tensor, ...]]:
    """What is left of each tensor of expert - base: (U_hat, s, V_hat) of a matrix, (x_hat,) of any other tensor."""
    parts = {}
    for name in expert:
        x = expert[name] - base[name]
        if x.dim() == 2:
            u, s, v = decompose(x, keep_ratio, svd)
            parts[name] = threshold_and_scale(u), s, threshold_and_scale(v)
        else:
            parts[name] = (threshold_and_scale(x) if x.dim() else x,)
    return parts


def remainder(part: tuple[Tensor, ...]) -> Tensor:
    """The tensor that a part stands for: U_hat diag(s) V_hat^T, or x_hat."""
    if len(part) == 1:
        return part[0]
    u, s, v = part
    return u @ torch.diag(s) @ v.T
