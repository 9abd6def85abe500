"""The singular value decomposition of one matrix: how it is computed, how far it is from the matrix.

decompose   M (m x n)  ->  U (m x r), s (r), V^T (r x n)      truncated, signs fixed
refit       the s that is best for a U and a V^T that were coded
bounds      how far U diag(s) V^T may be from M, and is
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dts_mini.core.errors import DTSError

Algorithm = Literal["auto", "exact", "gram", "randomised", "full"]
BLOCK = 2**13
"""Rows of a large matrix that are worked on in float64 at once."""


class Decomposition(NamedTuple):
    """U (m x r), s (r) falling, Vh = V^T (r x n), and ``error`` = ||M - U diag(s) V^T|| / ||M|| (Frobenius)."""

    u: Tensor
    s: Tensor
    vh: Tensor
    error: float

    def first(self, rank: int) -> "Decomposition":
        """The leading ``rank`` of these components."""
        beyond, all_kept = self.s[rank:].double().square().sum().item(), self.s.double().square().sum().item()
        energy = all_kept / max(1 - self.error**2, torch.finfo(torch.float32).tiny)
        error = math.sqrt(min(1.0, self.error**2 + beyond / energy)) if energy else 0.0
        return Decomposition(self.u[:, :rank], self.s[:rank], self.vh[:rank], error)


def decompose(matrix: Tensor, rank: int, algorithm: Algorithm = "auto", *, seed: int = 0) -> Decomposition:
    """The ``rank`` leading singular triples of a matrix (m x n), or fewer where its numerical rank is smaller.

    ``exact``: LAPACK's economy SVD. ``gram``: eigenvectors of the smaller Gram matrix, in float64. ``randomised``:
    subspace iteration from a seeded Gaussian block (Halko, Martinsson, Tropp 2011, arXiv 0909.4061). ``full``: the
    leading components to rounding, exact up to a shorter side of 256, gram above. ``auto``: the same, but randomised
    above 256 where under a quarter of the components is kept: several times faster, the error up to 0.7 % higher.
    All project M orthogonally, so that the stated error is exact for each: error^2 = 1 - sum s_i^2 / ||M||^2. Signs
    are fixed: the largest element of each row of V^T is positive. A row of M that is zero has a zero row in U, a zero
    column one in V^T.

    >>> u, s, vh, error = decompose(torch.eye(4, 3), rank=2)
    """
    if matrix.dim() != 2:
        raise DTSError(f"decompose takes a matrix, not a tensor of shape {tuple(matrix.shape)}; flatten it first")
    small = min(matrix.shape)
    if not 1 <= rank <= small:
        raise DTSError(f"rank {rank} is outside 1..{small} for a matrix of shape {tuple(matrix.shape)}")
    if algorithm in ("auto", "full"):
        cheap = algorithm == "auto" and 4 * rank < small
        algorithm = "exact" if small <= 256 else "randomised" if cheap else "gram"
    match algorithm:
        case "exact":
            u, s, vh = torch.linalg.svd(matrix, full_matrices=False)  # (m, k), (k,), (k, n); k = min(m, n)
        case "gram":
            u, s, vh = _gram_svd(matrix, rank)
        case "randomised":
            u, s, vh = _randomised_svd(matrix, rank, seed)
        case _:
            raise DTSError(f"algorithm {algorithm!r} is unknown: choose auto, full, exact, gram or randomised")
    # Gram squares the condition number: in float64 too, what it finds below float32's eps is noise.
    eps = torch.finfo(s.dtype if algorithm == "exact" else torch.float32).eps
    floor = s[0] * eps * max(matrix.shape) if len(s) else 0.0
    rank = min(rank, max(1, int((s > floor).sum())))
    u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    sign = torch.sign(vh.gather(1, vh.abs().argmax(1, keepdim=True)))  # (r, 1)
    energy = frobenius(matrix) ** 2
    kept = s.double().square().sum().item()
    error = math.sqrt(max(0.0, 1 - kept / energy)) if energy else 0.0
    u, vh = u * sign.T, vh * sign
    u[~(matrix != 0).any(1)] = 0  # what is zero in M; the algorithms leave rounding there
    vh[:, ~(matrix != 0).any(0)] = 0
    # Laid out row by row whichever algorithm ran: sums of floats depend on it, and files must not.
    return Decomposition(u.contiguous(), s, vh.contiguous(), error)


def gram_matrix(matrix: Tensor) -> Tensor:
    """M^T M of a tall matrix, M M^T of a wide one, float64; M itself is never laid out in float64 as a whole."""
    tall = matrix.T if matrix.shape[0] < matrix.shape[1] else matrix
    return sum(wide.T @ wide for wide in (block.double() for block in tall.split(BLOCK)))


def frobenius(matrix: Tensor) -> float:
    """||M||: row norms keep the digits of a float64 sum without a float64 copy of the matrix."""
    return torch.linalg.vector_norm(matrix, dim=1).double().square().sum().sqrt().item()


def _gram_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvectors of the smaller Gram matrix and their images: at least ``rank`` triples; float64, block by block."""
    if matrix.shape[0] < matrix.shape[1]:
        v, s, uh = _gram_svd(matrix.T, rank)
        return uh.T, s, v.T
    blocks = matrix.split(BLOCK)
    values, vectors = torch.linalg.eigh(gram_matrix(matrix))
    s, v = values.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
    divisor = torch.where(s > 0, s, torch.inf)[:rank]
    u = torch.cat([(block.double() @ v[:, :rank] / divisor).to(matrix.dtype) for block in blocks])
    return u, s.to(matrix.dtype), v.T.to(matrix.dtype)


def _randomised_svd(matrix: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    if matrix.shape[0] < matrix.shape[1]:
        v, s, uh = _randomised_svd(matrix.T, rank, seed)
        return uh.T, s, v.T
    block = min(-(-(rank + max(8, rank // 4)) // 8) * 8, matrix.shape[1])  # whole vectors of 8: a quarter faster
    draw = {"generator": torch.Generator("cpu").manual_seed(seed), "dtype": torch.float32, "device": "cpu"}
    small = torch.randn(matrix.shape[1], block, **draw).to(matrix)
    for _ in range(2):  # (n, block); only the smaller side is made orthonormal on the way, which is cheap
        small = torch.linalg.qr(matrix.T @ (matrix @ small)).Q
    basis = torch.linalg.qr(matrix @ small).Q
    inner, s, vh = _gram_svd(basis.T @ matrix, rank)  # of (block, n), which is small
    return basis @ inner[:, :rank], s[:rank], vh[:rank]


def refit(matrix: Tensor, u: Tensor, vh: Tensor) -> Tensor:
    """The values s (r) that make ||M - U diag(s) V^T|| least for the U (m x r) and V^T (r x n) that are stored.

    They solve ((U^T U) o (V^T V)) s = diag(U^T M V), o being the element-wise product.
    """
    system = (u.T @ u).double() * (vh @ vh.T).double()
    right = ((u.T @ matrix) * vh).sum(1).double()
    return torch.linalg.solve(ridged(system), right).to(matrix.dtype)


def ridged(gram: Tensor) -> Tensor:
    """A Gram matrix (r x r), float64, made safe to solve where vectors that were coded depend on each other.

    >>> ridged(torch.ones(2, 2)).logdet().isfinite()
    tensor(True)
    """
    safe = gram.to(torch.float64, copy=True)
    safe.diagonal().add_(1e-9 * safe.diagonal().mean())
    return safe


def bounds(matrix: Tensor, exact: Decomposition, u: Tensor, s: Tensor, vh: Tensor) -> tuple[float, float, float]:
    """How far U diag(s) V^T, as stored (m x r, r, r x n), may be from M and how far it is: shares of ||M||.

    The first is the truncation's error, exact: sqrt(sum of s_i^2 beyond r) / ||M|| (Eckart and Young 1936). The
    second bounds what coding the r leading components adds: with A = U S of the exact ones and A' of the stored
    ones, scaled so that each V'_i is nearest to V_i,

        ||A V^T - A' V'^T||  <=  ||A - A'|| + ||A'||_2 ||V - V'||_F     weighted by component,

    since V^T has orthonormal rows. The third is the measured ||M - U diag(s) V^T|| / ||M||, at most their sum.
    """
    norm = frobenius(matrix)
    if norm == 0:
        return 0.0, 0.0, 0.0
    nearest = (vh * exact.vh).sum(1) / vh.square().sum(1).clamp(min=torch.finfo(vh.dtype).tiny)
    nearest = torch.where(nearest.abs() > 1e-6, nearest, 1)
    near, stored = vh * nearest[:, None], u * (s / nearest)
    first = torch.linalg.vector_norm((exact.u * exact.s - stored).double())
    weight = torch.linalg.vector_norm(stored, dim=0).clamp(min=torch.finfo(u.dtype).tiny)
    second = torch.linalg.matrix_norm((stored / weight).double(), 2)
    second = second * torch.linalg.vector_norm(((exact.vh - near) * weight[:, None]).double())
    rows = zip(matrix.split(BLOCK), u.split(BLOCK), strict=True)
    error = math.sqrt(sum(frobenius(block - (part * s) @ vh) ** 2 for block, part in rows))
    return exact.error, ((first + second) / norm).item(), error / norm
