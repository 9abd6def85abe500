"""Base merges: one model from many experts, on state dicts.

Each returns a state dict in the dtypes of its first argument's tensors; integer tensors are taken from there too.
Experts must share names and shapes; a StateError says which does not.
"""

import math
from collections.abc import Sequence

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
        vectors = torch.stack([e[name].to(x.dtype) - x for e in experts])
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


MERGES = {"average": average, "task-arithmetic": task_arithmetic, "ties": ties, "dare": dare}
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


@torch.no_grad()
def _each(like: State, merged) -> dict[str, Tensor]:
    """``merged(name, tensor in float32 or better)`` for each floating tensor, back in its dtype; copies of the rest."""
    result = {}
    for name in sorted(like):  # in name order, so that DARE's draws do not depend on the state dict's
        x = like[name]
        result[name] = merged(name, x.to(compute_dtype(x))).to(x.dtype) if x.is_floating_point() else x.clone()
    return {name: result[name] for name in like}


def _trim_limit(base: State, expert: State, density: float) -> float:
    """The least magnitude that stays when the largest ``density`` of all elements of a task vector do."""
    differences = (expert[name].to(compute_dtype(x)) - x for name, x in base.items() if x.is_floating_point())
    magnitudes = torch.cat([difference.abs().reshape(-1) for difference in differences])
    drop = math.floor((1 - density) * len(magnitudes) + 1e-9)  # (1 - 0.9) * 100 is 9.999999999999998
    return magnitudes.kthvalue(min(drop + 1, len(magnitudes))).values.item()
