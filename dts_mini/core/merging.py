"""Base merges: one model from many experts, on state dicts.

Each returns a state dict in the dtypes of its first argument's tensors; integer tensors are taken from there too.
Experts must share names and shapes; a StateError says which does not.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dts_mini.core.errors import DTSError
from dts_mini.core.state import State, check_same_layout, check_state, compute_dtype


def average(experts: Sequence[State]) -> dict[str, Tensor]:
    """The mean of the experts' weights (model soups, arXiv 2203.05482); needs no pretrained model."""
    _check(experts)
    return _each(experts[0], lambda name, x: sum(e[name].to(x.dtype) for e in experts) / len(experts))


def task_arithmetic(base: State, experts: Sequence[State], *, coefficient: float = 0.3) -> dict[str, Tensor]:
    """theta_0 + coefficient * sum of the task vectors (arXiv 2212.04089)."""
    _check(experts, base)
    return _each(base, lambda name, x: x + coefficient * sum(e[name].to(x.dtype) - x for e in experts))


def ties(
    base: State, experts: Sequence[State], *, density: float = 0.2, coefficient: float = 0.3, reduce: str = "sum"
) -> dict[str, Tensor]:
    """TIES (arXiv 2306.01708): trim, elect, disjoint merge.

    Of each task vector the share ``density`` of its elements, the largest in magnitude over all tensors, stays. Each
    position elects the sign of the sum of what stayed, and takes the sum (as the DTS paper does) or the mean of the
    values of that sign, times ``coefficient``.
    """
    _check(experts, base)
    if not 0 < density <= 1:
        raise DTSError(f"density is {density}: it must lie in (0, 1]")
    if reduce not in ("sum", "mean"):
        raise DTSError(f"reduce is {reduce!r}: choose sum or mean")
    limits = [_trim_limit(base, expert, density) for expert in experts]

    def merged(name: str, x: Tensor) -> Tensor:
        vectors = _task_vectors(name, x, experts)
        limit = torch.tensor(limits, dtype=x.dtype, device=x.device).view(-1, *[1] * x.dim())
        vectors = torch.where(vectors.abs() >= limit, vectors, 0)
        agree = torch.where(vectors.sign() == vectors.sum(0).sign(), vectors, 0)
        total = agree.sum(0)
        return x + coefficient * (total if reduce == "sum" else total / (agree != 0).sum(0).clamp(min=1))

    return _each(base, merged)


def dare(
    base: State, experts: Sequence[State], *, drop: float = 0.9, coefficient: float = 0.3, seed: int = 0
) -> dict[str, Tensor]:
    """DARE with Task Arithmetic (arXiv 2311.03099): each element of each task vector is dropped with probability
    ``drop``, those that stay are divided by 1 - drop, so that their sum is right on average."""
    _check(experts, base)
    if not 0 <= drop < 1:
        raise DTSError(f"drop is {drop}: it must lie in [0, 1)")
    generator = torch.Generator().manual_seed(seed)

    def sparse(vector: Tensor) -> Tensor:
        stays = torch.rand(vector.shape, generator=generator).to(vector.device) >= drop
        return vector * stays / (1 - drop)

    return _each(base, lambda name, x: x + coefficient * sum(sparse(e[name].to(x.dtype) - x) for e in experts))


def tsv_m(base: State, experts: Sequence[State], *, coefficient: float = 1.0) -> dict[str, Tensor]:
    """Task Singular Vectors Merge (TSV-M, arXiv 2412.00081).

    Of each of the N task matrices (m x n) the floor(min(m, n) / N) leading components stay, at least one. Their
    singular vectors, concatenated over the tasks, are replaced by the nearest orthonormal ones (Procrustes), so that
    tasks do not interfere, and everything is multiplied together again. Tensors of other than two dimensions are
    averaged. The paper needs no other ``coefficient`` than 1.
    """

    def merged(matrices: Tensor) -> Tensor:
        rank = max(1, min(matrices.shape[1:]) // len(matrices))
        u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
        u, s, vh = u[:, :, :rank], s[:, :rank], vh[:, :rank]
        u, vh = torch.where(s[:, None] > 0, u, 0), torch.where(s[..., None] > 0, vh, 0)  # no energy: no direction
        return _polar(torch.cat(list(u), 1))[0] * s.reshape(-1) @ _polar(torch.cat(list(vh)))[0]

    return _by_matrix(base, experts, merged, coefficient)


def iso_c(base: State, experts: Sequence[State], *, coefficient: float = 1.0) -> dict[str, Tensor]:
    """Isotropic merging in the common subspace (Iso-C, arXiv 2502.04959).

    The singular values of the summed task matrix are all replaced by their mean, so that no task's directions
    dominate; directions of no energy stay out. Tensors of other than two dimensions are averaged. The paper chooses
    ``coefficient`` on validation images.
    """

    def merged(matrices: Tensor) -> Tensor:
        directions, s = _polar(matrices.sum(0))
        return directions * s.sum() / max(1, len(s))

    return _by_matrix(base, experts, merged, coefficient)


def consensus(
    base: State, experts: Sequence[State], *, coefficient: float = 0.6, used_by: int = 2, mask_lambda: float = 0.4
) -> dict[str, Tensor]:
    """Consensus merging: Task Arithmetic on positions that several tasks use (arXiv 2405.07813).

    A task uses a position where |tau_n| >= mask_lambda * |sum_k tau_k - tau_n|: its TALL mask. Positions that fewer
    than ``used_by`` tasks use (the paper's k) keep the base's value. The paper chooses the coefficient, and a lambda
    for each task, on validation images; the defaults were the best on those of the mini suite, one lambda for all.
    """
    _check(experts, base)
    if not 1 <= used_by <= len(experts):
        raise DTSError(f"used_by is {used_by}: it must lie between 1 and the number of experts, {len(experts)}")
    if not mask_lambda >= 0:
        raise DTSError(f"mask_lambda is {mask_lambda}: it must be 0 or more")

    def merged(name: str, x: Tensor) -> Tensor:
        vectors = _task_vectors(name, x, experts)
        total = vectors.sum(0)
        users = (vectors.abs() >= mask_lambda * (total - vectors).abs()).sum(0)
        return x + coefficient * torch.where(users >= used_by, total, 0)

    return _each(base, merged)


MERGES = {
    "average": average,
    "task-arithmetic": task_arithmetic,
    "ties": ties,
    "dare": dare,
    "tsv-m": tsv_m,
    "iso-c": iso_c,
    "consensus": consensus,
}
"""By their names on the command line. All but ``average`` take the base first."""


def _check(experts: Sequence[State], base: State | None = None) -> None:
    if not experts:
        raise DTSError("there are no experts to merge; pass at least one")
    if base is not None:
        check_state(base, "base")
    for number, expert in enumerate(experts, 1):
        check_state(expert, f"expert {number}")
        first, what = (experts[0], "first expert") if base is None else (base, "base")
        check_same_layout(first, expert, f"expert {number}", what)


def _task_vectors(name: str, x: Tensor, experts: Sequence[State]) -> Tensor:
    """What each expert adds to the base's tensor ``x``: (N, ...)."""
    return torch.stack([expert[name].to(x.dtype) - x for expert in experts])


@torch.no_grad()
def _each(like: State, merged) -> dict[str, Tensor]:
    """``merged(name, tensor in float32 or better)`` for each floating tensor, back in its dtype; copies of the rest."""
    result = {}
    for name in sorted(like):  # in name order, so that DARE's draws do not depend on the state dict's
        x = like[name]
        result[name] = merged(name, x.to(compute_dtype(x))).to(x.dtype) if x.is_floating_point() else x.clone()
    return {name: result[name] for name in like}


def _by_matrix(
    base: State, experts: Sequence[State], merge: Callable[[Tensor], Tensor], coefficient: float
) -> dict[str, Tensor]:
    """base + coefficient * ``merge(task matrices (N, m, n))`` for 2-D tensors, the mean task vector for the others.

    Matrices are float64: what lifts small singular values to the size of large ones lifts their rounding, too.
    """
    _check(experts, base)

    def merged(name: str, x: Tensor) -> Tensor:
        vectors = _task_vectors(name, x, experts)
        is_matrix = x.dim() == 2 and x.numel() > 0
        return x + coefficient * (merge(vectors.double()).to(x.dtype) if is_matrix else vectors.mean(0))

    return _each(base, merged)


def _polar(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest matrix (m x n) whose singular values are one, and those that it had, without those of no energy.

    What lies below float32's precision is rounding: without it the result is unique, whichever LAPACK runs.
    """
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    kept = s > s[0] * torch.finfo(torch.float32).eps * max(matrix.shape)
    return u[:, kept] @ vh[kept], s[kept]


def _trim_limit(base: State, expert: State, density: float) -> float:
    """The least magnitude that stays when the largest ``density`` of all elements of a task vector do."""
    differences = (expert[name].to(compute_dtype(x)) - x for name, x in base.items() if x.is_floating_point())
    magnitudes = torch.cat([difference.abs().reshape(-1) for difference in differences])
    drop = math.floor((1 - density) * len(magnitudes) + 1e-9)  # (1 - 0.9) * 100 is 9.999999999999998
    return magnitudes.kthvalue(min(drop + 1, len(magnitudes))).values.item()
