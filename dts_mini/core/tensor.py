"""Ground floor: DTS of one tensor, step by step (arXiv 2512.01461, section 3).

    decompose   M (m x n)  ->  U (m x r), s (r), V^T (r x n)     truncated SVD
    threshold   rows (k x n) -> codes (k x n)                    which group each element is in
    scale       rows, codes -> scales (k x groups)               the one value of each group
    restore     codes, scales -> rows (k x n)                    the elements, each its group's value

Thresholding works on the rows of a (k x n) matrix, each row partitioned by itself. One partition for a whole
matrix, as the paper's code makes it, is its one-row view, ``rows(x, per="matrix")``; one for each singular vector
is ``rows(x, per="vector")``.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dts_mini.core.errors import DTSError

Algorithm = Literal["auto", "exact", "gram", "randomised"]
GROUPS = (2, 4, 8)


class Decomposition(NamedTuple):
    """U (m x r), s (r) falling, Vh = V^T (r x n), and ``error`` = ||M - U diag(s) V^T|| / ||M|| (Frobenius)."""

    u: Tensor
    s: Tensor
    vh: Tensor
    error: float


def rank_of(shape: tuple[int, int], keep_ratio: float) -> int:
    """Components kept of an m x n matrix: floor(keep_ratio * min(m, n)), at least 1."""
    return max(1, math.floor(keep_ratio * min(shape) + 1e-9))  # 0.29 * 100 is 28.999999999999996


def decompose(matrix: Tensor, rank: int, algorithm: Algorithm = "auto", *, seed: int = 0) -> Decomposition:
    """The ``rank`` leading singular triples of a matrix (m x n), or fewer where its numerical rank is smaller.

    ``exact``: LAPACK's economy SVD. ``gram``: eigenvectors of the smaller Gram matrix, in float64.
    ``randomised``: subspace iteration from a seeded Gaussian block (Halko, Martinsson, Tropp 2011,
    arXiv 0909.4061). ``auto``: exact for small matrices, randomised where under a quarter of the components is
    kept, else gram. All three project M orthogonally, so the stated error is exact for each:
    error^2 = 1 - sum s_i^2 / ||M||^2. Signs are fixed: the largest element of each row of V^T is positive.
    """
    if matrix.dim() != 2:
        raise DTSError(f"decompose takes a matrix, not a tensor of shape {tuple(matrix.shape)}; flatten it first")
    small = min(matrix.shape)
    if not 1 <= rank <= small:
        raise DTSError(f"rank {rank} is outside 1..{small} for a matrix of shape {tuple(matrix.shape)}")
    if algorithm == "auto":
        algorithm = "exact" if small <= 256 else "randomised" if 4 * rank < small else "gram"
    match algorithm:
        case "exact":
            u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        case "gram":
            u, s, vh = _gram_svd(matrix, rank)
        case "randomised":
            u, s, vh = _randomised_svd(matrix, rank, seed)
        case _:
            raise DTSError(f"algorithm {algorithm!r} is unknown: choose auto, exact, gram or randomised")
    # Gram squares the condition number: in float64 too, what it finds below float32's eps is noise.
    eps = torch.finfo(s.dtype if algorithm == "exact" else torch.float32).eps
    floor = s[0] * eps * max(matrix.shape) if len(s) else 0.0
    rank = min(rank, max(1, int((s > floor).sum())))
    u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    sign = torch.sign(vh.gather(1, vh.abs().argmax(1, keepdim=True)))
    sign[sign == 0] = 1
    # Row norms keep the digits of a float64 sum without a float64 copy of the matrix.
    energy = torch.linalg.vector_norm(matrix, dim=1).double().square().sum().item()
    kept = s.double().square().sum().item()
    error = math.sqrt(max(0.0, 1 - kept / energy)) if energy else 0.0
    return Decomposition(u * sign.T, s, vh * sign, error)


def _gram_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvectors of the smaller Gram matrix and their images: at least ``rank`` triples; float64, block by block."""
    if matrix.shape[0] < matrix.shape[1]:
        v, s, uh = _gram_svd(matrix.T, rank)
        return uh.T, s, v.T
    blocks = matrix.split(2**13)
    values, vectors = torch.linalg.eigh(sum(wide.T @ wide for wide in (block.double() for block in blocks)))
    s, v = values.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
    divisor = torch.where(s > 0, s, torch.inf)[:rank]
    u = torch.cat([(block.double() @ v[:, :rank] / divisor).to(matrix.dtype) for block in blocks])
    return u, s.to(matrix.dtype), v.T.to(matrix.dtype)


def _randomised_svd(matrix: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    if matrix.shape[0] < matrix.shape[1]:
        v, s, uh = _randomised_svd(matrix.T, rank, seed)
        return uh.T, s, v.T
    block = min(-(-(rank + max(8, rank // 4)) // 8) * 8, matrix.shape[1])  # whole vectors of 8: a quarter faster
    small = torch.randn(matrix.shape[1], block, generator=torch.Generator().manual_seed(seed)).to(matrix)
    for _ in range(2):  # only the smaller side is made orthonormal on the way, which is cheap
        small = torch.linalg.qr(matrix.T @ (matrix @ small)).Q
    basis = torch.linalg.qr(matrix @ small).Q
    inner, s, vh = _gram_svd(basis.T @ matrix, rank)
    return basis @ inner[:, :rank], s[:rank], vh[:rank]


def rows(x: Tensor, per: Literal["matrix", "vector"]) -> Tensor:
    """The view of a matrix (vectors x elements) whose rows are partitioned each by itself."""
    return x.reshape(1, -1) if per == "matrix" else x


def threshold(rows: Tensor, groups: int = 4) -> Tensor:
    """Group codes (k x n), uint8, of the elements of each row, from 0 (strongest negative) to groups - 1.

    The positive elements are halved by magnitude, the floor(half) largest being strong; so are the negative ones.
    Two groups are the signs alone; eight halve each of the four once more. Ties go by position. An element that
    is exactly zero belongs to no group: its code is ``groups``, and it is restored as zero.
    """
    if groups not in GROUPS:
        raise DTSError(f"groups is {groups}: choose one of {GROUPS}")
    return torch.stack([_threshold_row(row, groups // 2) for row in rows])


def _threshold_row(row: Tensor, half: int) -> Tensor:
    positive, negative = row > 0, row < 0
    code = torch.full_like(row, half - 1, dtype=torch.uint8) + positive
    for count in _cuts(int(positive.sum()), half)[:-1]:
        code += _largest(row, count)
    for count in _cuts(int(negative.sum()), half)[:-1]:
        code -= _largest(-row, count).byte()
    return code.masked_fill_(~(positive | negative), 2 * half)


def _cuts(count: int, parts: int) -> list[int]:
    """Where the parts end, strongest first, when ``count`` elements are halved again and again, floor first."""
    if parts == 1:
        return [count]
    strong = count // 2
    return _cuts(strong, parts // 2) + [strong + end for end in _cuts(count - strong, parts // 2)]


def _largest(row: Tensor, count: int) -> Tensor:
    """Which elements (n) are the ``count`` largest, the first ones of equal elements. A selection, not a sort."""
    if count == 0:
        return torch.zeros_like(row, dtype=torch.bool)
    limit = row.kthvalue(len(row) - count + 1).values
    above, ties = row > limit, row == limit
    return above | (ties & (ties.cumsum(0, dtype=torch.int32) <= count - above.sum()))


def scale(rows: Tensor, codes: Tensor, groups: int = 4, how: Literal["rms", "mean"] = "rms") -> Tensor:
    """The value (k x groups) of each group of each row, signed; 0 for an empty group.

    ``rms``: sign * ||x_g||_2 / sqrt(|g|), as in the paper: the norm of the row is kept.
    ``mean``: the group's mean, which makes the squared error least.
    """
    if how not in ("rms", "mean"):
        raise DTSError(f"scale is {how!r}: choose rms or mean")
    total = torch.zeros(len(rows), groups + 1, dtype=torch.float64, device=rows.device)
    count = torch.zeros_like(total)
    for part, code in zip(rows.split(2**20, 1), codes.split(2**20, 1), strict=True):  # in float64, which is wide
        x, index = part.double(), code.long()
        total.scatter_add_(1, index, x if how == "mean" else x.square())
        count.scatter_add_(1, index, torch.ones_like(x))
    values = total / count.clamp(min=1)
    if how == "rms":
        values = values.sqrt()
        values[:, : groups // 2] *= -1
    return values[:, :groups].to(rows.dtype)


def restore(codes: Tensor, scales: Tensor) -> Tensor:
    """The elements (k x n) that codes (k x n) and scales (k x groups) stand for; the code ``groups`` is zero."""
    return torch.cat([scales, torch.zeros_like(scales[:, :1])], 1).gather(1, codes.long())
