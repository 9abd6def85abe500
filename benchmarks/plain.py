"""The paper's text, line by line and without a thought for speed: what ``benchmarks.compress`` measures against.

Full-matrices SVD, groups by sorting the positive and the negative elements (arXiv 2512.01461, section 3). It shares
nothing with ``dts_mini``, so that the two also check each other.
"""

import torch
from torch import Tensor


def decompose(matrix: Tensor, keep_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """U (m x r), s (r), V (n x r) of a matrix (m x n), r = floor(keep_ratio * min(m, n)), at least 1."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=True)
    r = max(1, int(keep_ratio * min(matrix.shape)))
    return u[:, :r], s[:r], vh.T[:, :r]


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


def compress(base: dict[str, Tensor], expert: dict[str, Tensor], keep_ratio: float) -> dict[str, tuple[Tensor, ...]]:
    """What is left of each tensor of expert - base: (U_hat, s, V_hat) of a matrix, (x_hat,) of any other tensor."""
    parts = {}
    for name in expert:
        x = expert[name] - base[name]
        if x.dim() == 2:
            u, s, v = decompose(x, keep_ratio)
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
