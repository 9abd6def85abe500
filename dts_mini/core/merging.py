"""Base merges: one model from many experts, on state dicts.

Each returns a state dict in the dtypes of its first argument's tensors. What is no weight is not merged as one:
statistics (``is_statistic``) are averaged over the experts, other integers and constants that need not be finite, like
a mask of -inf, are those of the first argument. What only was rounded in an expert that is stored in fewer bits did not
change, as in ``compress``. Experts must share names and shapes, and not be quantised; a StateError names the tensor
that does not fit, or whose merged values the dtype cannot hold.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dts_mini.core.errors import DTSError, StateError
from dts_mini.core.layout import is_rounded, only_rounded
from dts_mini.core.state import (
    State,
    all_finite,
    check_alike,
    compute_dtype,
    digest,
    directions,
    factors,
    is_statistic,
    outline,
    unmixed,
)

Merged = Callable[[Tensor, Iterator[Tensor]], Tensor]
"""What a merge makes of a tensor of the base (of the first expert, where there is none) and of those of the experts."""


def average(experts: Sequence[State]) -> dict[str, Tensor]:
    """The mean of the experts' weights (model soups, arXiv 2203.05482); needs no pretrained model.

    An element that is equal in all of them stays what it is: what training left alone does not drift by rounding.

    >>> average([{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}])
    {'w': tensor([2., 2.])}
    """
    check_experts(experts)

    def merged(x: Tensor, thetas: Iterator[Tensor]) -> Tensor:
        total, equal = torch.zeros_like(x), torch.ones_like(x, dtype=torch.bool)
        for theta in thetas:
            total += theta
            equal &= theta == x
        return torch.where(equal, x, total / len(experts))

    return merge_tensors(experts[0], experts, merged)


def task_arithmetic(base: State, experts: Sequence[State], *, coefficient: float = 0.3) -> dict[str, Tensor]:
    """theta_0 + coefficient * sum of the task vectors (arXiv 2212.04089).

    >>> base, experts = {"w": torch.tensor([1.0])}, [{"w": torch.tensor([2.0])}, {"w": torch.tensor([4.0])}]
    >>> task_arithmetic(base, experts, coefficient=0.5)
    {'w': tensor([3.])}
    """
    check_experts(experts, base)
    return merge_tensors(base, experts, lambda x, thetas: x + coefficient * sum(theta - x for theta in thetas))


@torch.no_grad()
def ties(
    base: State, experts: Sequence[State], *, density: float = 0.2, coefficient: float = 0.3, reduce: str = "sum"
) -> dict[str, Tensor]:
    """TIES (arXiv 2306.01708): trim, elect, disjoint merge.

    Of each task vector the share ``density`` of its elements, the largest in magnitude over all tensors, stays. As in
    the authors' code: of n elements the (n - int(density * n))-th in rising order and all that are not smaller, so one
    more than a share that is a whole number. Each position elects the sign of the sum of what stayed, and where it is
    exactly zero, the sign that more positions elected (the negative one if both have as many). It takes the sum, as the
    DTS paper does, or the mean of the values of that sign, times ``coefficient``.

    >>> base, experts = {"w": torch.zeros(3)}, [{"w": torch.tensor([3.0, -1, 2])}, {"w": torch.tensor([-1.0, -2, -2])}]
    >>> ties(base, experts, density=1, coefficient=1)
    {'w': tensor([ 3., -3., -2.])}
    """
    if not 0 < density <= 1:
        raise DTSError(f"density is {density}: it must lie in (0, 1]")
    if reduce not in ("sum", "mean"):
        raise DTSError(f"reduce is {reduce!r}: choose sum or mean")
    check_experts(experts, base)
    limits = [_trim_limit(base, expert, density) for expert in experts]

    def trimmed(x: Tensor, thetas: Iterator[Tensor]) -> Tensor:
        vectors = _task_vectors(x, thetas)
        limit = torch.tensor(limits, dtype=x.dtype, device=x.device).view(-1, *[1] * x.dim())
        return torch.where(vectors.abs() >= limit, vectors, 0)

    votes = (trimmed(x, thetas).sum(0).sign().sum(dtype=torch.int64) for _, x, thetas in _weights(base, experts))
    positive_leads = sum(vote.item() for vote in votes) > 0

    def merged(x: Tensor, thetas: Iterator[Tensor]) -> Tensor:
        vectors = trimmed(x, thetas)
        total = vectors.sum(0)
        elected = total >= 0 if positive_leads else total > 0  # True: the positive sign
        agree = torch.where(torch.where(elected, vectors > 0, vectors < 0), vectors, 0)
        total = agree.sum(0)
        return x + coefficient * (total if reduce == "sum" else total / (agree != 0).sum(0).clamp(min=1))

    return merge_tensors(base, experts, merged)


def dare(
    base: State, experts: Sequence[State], *, drop: float = 0.9, coefficient: float = 0.3, seed: int = 0
) -> dict[str, Tensor]:
    """DARE with Task Arithmetic (arXiv 2311.03099): each element of each task vector is dropped with probability
    ``drop``, those that stay are divided by 1 - drop, so that their sum is right on average.

    >>> base, experts = {"w": torch.zeros(6)}, [{"w": torch.ones(6)}]
    >>> dare(base, experts, drop=0.5, coefficient=1)["w"].unique()
    tensor([0., 2.])
    """
    if not 0 <= drop < 1:
        raise DTSError(f"drop is {drop}: it must lie in [0, 1)")
    check_experts(experts, base)
    generator = torch.Generator("cpu").manual_seed(seed)

    def sparse(vector: Tensor) -> Tensor:
        draws = torch.rand(vector.shape, generator=generator, dtype=torch.float32, device="cpu")
        return vector * (draws >= drop).to(vector.device) / (1 - drop)

    return merge_tensors(base, experts, lambda x, thetas: x + coefficient * sum(sparse(theta - x) for theta in thetas))


def tsv_m(base: State, experts: Sequence[State], *, coefficient: float = 1.0) -> dict[str, Tensor]:
    """Task Singular Vectors Merge (TSV-M, arXiv 2412.00081).

    Of each of the N task matrices (m x n) the floor(min(m, n) / N) leading components stay, at least one. Their
    singular vectors, concatenated over the tasks, are replaced by the nearest orthonormal ones (Procrustes), so that
    tasks do not interfere, and everything is multiplied together again. Tensors of other than two dimensions are
    averaged. The paper needs no other ``coefficient`` than 1.

    Components that are rounding alone stay out. That departs from the authors' code for task matrices of low rank
    (LoRA): there such components take directions from other tasks, as the LAPACK that runs happens to order them.

    >>> base, experts = {"w": torch.zeros(2, 2)}, [{"w": torch.diag(torch.tensor(d))} for d in ([2.0, 1], [0.0, 3])]
    >>> tsv_m(base, experts)["w"].round(decimals=4).abs()
    tensor([[2., 0.],
            [0., 3.]])
    """

    def merged(matrices: Tensor, noise: float) -> Tensor:
        rank = max(1, min(matrices.shape[1:]) // len(matrices))
        u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
        u, s, vh = u[:, :, :rank], s[:, :rank], vh[:, :rank]
        real = s > noise
        if not real.any():
            return torch.zeros_like(matrices[0])
        u, vh = torch.cat(list(u), 1)[:, real.reshape(-1)], torch.cat(list(vh))[real.reshape(-1)]
        shared = noise / s.max().item()  # singular vectors are known no better: what is less is one, twice
        return _polar(u, shared)[0] * s[real] @ _polar(vh, shared)[0]

    return _by_matrix(base, experts, merged, coefficient)


def iso_c(base: State, experts: Sequence[State], *, coefficient: float = 1.0) -> dict[str, Tensor]:
    """Isotropic merging in the common subspace (Iso-C, arXiv 2502.04959).

    The singular values of the summed task matrix are all replaced by their mean, so that no task's directions
    dominate. Tensors of other than two dimensions are averaged. The paper chooses ``coefficient`` on validation images.

    Directions that are rounding alone stay out, of the mean too. That departs from the authors' code for sums of low
    rank r (LoRA): there the mean runs over all min(m, n) singular values, and directions that no task has, whichever
    the LAPACK that runs returns, are lifted to it.

    >>> base, experts = {"w": torch.zeros(2, 2)}, [{"w": torch.diag(torch.tensor([3.0, 1.0]))}]
    >>> iso_c(base, experts)["w"].round(decimals=4).abs()
    tensor([[2., 0.],
            [0., 2.]])
    """

    def merged(matrices: Tensor, noise: float) -> Tensor:
        directions, s = _polar(matrices.sum(0), noise * len(matrices) ** 0.5)
        return directions * s.sum() / max(1, len(s))

    return _by_matrix(base, experts, merged, coefficient)


def consensus(
    base: State, experts: Sequence[State], *, coefficient: float = 0.6, used_by: int = 2, mask_lambda: float = 0.4
) -> dict[str, Tensor]:
    """Consensus merging: Task Arithmetic on positions that several tasks use (arXiv 2405.07813).

    A task uses a position where |tau_n| > mask_lambda * |sum_k tau_k - tau_n|: its TALL mask. Positions that fewer
    than ``used_by`` tasks use (the paper's k) keep the base's value. The paper chooses the coefficient, and a lambda
    for each task, on validation images; the defaults were the best on those of the mini suite, one lambda for all.

    >>> base, experts = {"w": torch.zeros(3)}, [{"w": torch.tensor([1.0, 5, 0])}, {"w": torch.tensor([1.0, 0, 0])}]
    >>> consensus(base, experts, coefficient=1)
    {'w': tensor([2., 0., 0.])}
    """
    check_experts(experts, base)
    if not 1 <= used_by <= len(experts):
        raise DTSError(f"used_by is {used_by}: it must lie between 1 and the number of experts, {len(experts)}")
    if not mask_lambda >= 0:
        raise DTSError(f"mask_lambda is {mask_lambda}: it must be 0 or more")

    def merged(x: Tensor, thetas: Iterator[Tensor]) -> Tensor:
        vectors = _task_vectors(x, thetas)
        total = _finite(vectors.sum(0))
        users = (vectors.abs() > mask_lambda * (total - vectors).abs()).sum(0)
        return x + coefficient * torch.where(users >= used_by, total, 0)

    return merge_tensors(base, experts, merged)


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


def check_experts(experts: Sequence[State], base: State | None = None) -> None:
    """DTSError without experts; StateError, naming the tensor, unless all state dicts can be merged (``check_alike``).

    >>> check_experts([{"w": torch.ones(2)}], {"w": torch.tensor([1.0, float("nan")])})
    Traceback (most recent call last):
    dts_mini.core.errors.StateError: base, tensor 'w': 1 of 2 values are NaN or infinite; mend it first
    """
    if not experts:
        raise DTSError("there are no experts to merge; pass at least one")
    numbered = {f"expert {number}": expert for number, expert in enumerate(experts, 1)}
    states = numbered if base is None else {"base": base, **numbered}
    check_alike(states)
    differs = lambda name: len({digest(state[name]) for state in states.values()}) > 1
    for name in sorted(directions(experts[0])):
        if differs(name):
            raise unmixed(name)
    for one, other in factors(outline(experts[0])).items():
        if differs(one) and differs(other):
            raise StateError(
                f"tensors {one!r} and {other!r} are factors of LoRA adapters, whose means are no factors of a mean: "
                "make a delta of each (import-lora) and merge what is rebuilt, or merge each into its base with peft"
            )


def merge_tensors(like: State, experts: Sequence[State], merged: Merged) -> dict[str, Tensor]:
    """A merge from what it makes of one tensor, once ``check_experts`` has found no fault.

    ``merged(x, thetas)``: ``x`` is ``like``'s tensor, ``thetas`` yields each expert's, in float32 or better. It is
    called for the weights, in name order, so that draws do not depend on the order of a state dict. Statistics become
    the mean over the experts, integer ones rounded; of all else ``like``'s is copied. Raises StateError where a value
    does not fit into the dtype of ``like``.

    >>> like, expert = ({"w": torch.tensor([x]), "bn.running_var": torch.tensor([x])} for x in (1.0, 3.0))
    >>> merge_tensors(like, [expert], lambda x, thetas: x - sum(thetas))
    {'w': tensor([-2.]), 'bn.running_var': tensor([3.])}
    """
    return _merge_named(like, experts, lambda name, x, thetas: merged(x, thetas))


@torch.no_grad()
def _merge_named(
    like: State, experts: Sequence[State], merged: Callable[[str, Tensor, Iterator[Tensor]], Tensor]
) -> dict[str, Tensor]:
    """``merge_tensors`` for merges that ask for the tensor's name, too."""
    result = {}
    for name, x, thetas in _weights(like, experts):
        try:
            found = merged(name, x, thetas).to(like[name].dtype)
        except (OverflowError, torch.linalg.LinAlgError):
            found = torch.full_like(x, math.inf)
        if not all_finite(found):
            raise StateError(
                f"tensor {name!r}: the merged values do not fit into {like[name].dtype}; convert the state dicts to a "
                "wider dtype, or look for values that are too large"
            )
        result[name] = found
    for name in like:
        x = like[name]
        if name not in result and is_statistic(name) and all_finite(x):
            mean = sum(expert[name].cpu().double() for expert in experts) / len(experts)
            result[name] = (mean if x.is_floating_point() else mean.round()).to(x)
        elif name not in result:
            result[name] = x.clone()
    return {name: result[name] for name in like}


def _weights(like: State, experts: Sequence[State]) -> Iterator[tuple[str, Tensor, Iterator[Tensor]]]:
    """(name, ``like``'s tensor, the experts' tensors) of what is to be merged, in name order, in float32 or better."""
    for name in sorted(like):
        x = like[name]
        if x.is_floating_point() and not is_statistic(name) and all_finite(x):
            yield name, x.to(compute_dtype(x)), (_unrounded(x, expert[name]) for expert in experts)


def _unrounded(base: Tensor, expert: Tensor) -> Tensor:
    """The expert's tensor in the base's dtype or float32, the better; where it only was rounded, the base's values."""
    theta = expert.to(base.device, compute_dtype(base))
    if not is_rounded(base.dtype, expert.dtype):
        return theta
    return torch.where(only_rounded(base, theta, expert.dtype), base.to(theta.dtype), theta)


def _task_vectors(x: Tensor, thetas: Iterator[Tensor]) -> Tensor:
    """What each expert adds to the base's tensor ``x``: (N, ...)."""
    return torch.stack([theta - x for theta in thetas])


def _finite(vectors: Tensor) -> Tensor:
    """The same, for merges that would make a finite result of infinite differences: OverflowError instead."""
    if not all_finite(vectors):
        raise OverflowError
    return vectors


def _by_matrix(
    base: State, experts: Sequence[State], merge: Callable[[Tensor, float], Tensor], coefficient: float
) -> dict[str, Tensor]:
    """base + coefficient * ``merge(task matrices (N, m, n), noise)`` for matrices, the mean task vector for the others.

    Matrices are float64: what lifts small singular values to the size of large ones lifts their rounding, too. They are
    scaled by a power of two, so that no square overflows. Rows and columns that no expert changed stay as they are, as
    they do in exact arithmetic. ``noise``: see ``_noise``.
    """
    check_experts(experts, base)

    def merged(name: str, x: Tensor, thetas: Iterator[Tensor]) -> Tensor:
        if x.dim() != 2 or not x.numel():
            return x + coefficient * _task_vectors(x, thetas).mean(0)
        thetas = list(thetas)
        vectors = _finite(_task_vectors(x, thetas)).double()
        scale = 2.0 ** math.frexp(min(max(vectors.abs().max().item(), 2.0**-1000), 2.0**1020))[1]
        eps = max(torch.finfo(outline(state)[name].dtype).eps for state in (base, *experts))  # as they are stored
        noise = _noise([theta.double() / scale for theta in (x, *thetas)], eps)
        moved = (vectors != 0).any(0)
        moved = moved.any(1, keepdim=True) & moved.any(0)
        return x + coefficient * torch.where(moved, merge(vectors / scale, noise) * scale, 0).to(x.dtype)

    return _merge_named(base, experts, merged)


def _noise(matrices: Sequence[Tensor], eps: float) -> float:
    """How large a singular value of a task matrix (m x n) may be that is rounding alone: of weights and of the SVD.

    ``eps``: of the coarsest dtype that the weights are stored in, whatever dtype they are computed in.
    Rounding moves an element by up to half the gap between two numbers there, evenly: by a root mean square of gap /
    sqrt(12). The largest singular value of m x n such errors is about that times sqrt(m) + sqrt(n); of a difference of
    two tensors sqrt(2) times as much. Half as much again is allowed for. A rank by numpy's rule, relative to the
    largest singular value, would drop real directions.
    """
    gaps = [torch.where(x != 0, eps * torch.ldexp(torch.ones_like(x), x.frexp().exponent - 1), 0) for x in matrices]
    mean = max(gap.square().mean().item() for gap in gaps) ** 0.5
    norm, sides = max(matrix.norm().item() for matrix in matrices), matrices[0].shape
    largest = (2 / 12) ** 0.5 * mean * sum(side**0.5 for side in sides)
    return max(1.5 * largest, 10 * torch.finfo(torch.float64).eps * norm)


def _polar(matrix: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """The nearest matrix (m x n) whose singular values are one, and those that it had, without those within ``noise``.

    Without them the result is unique, whichever LAPACK runs.
    """
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    kept = s > noise
    return u[:, kept] @ vh[kept], s[kept]


@torch.no_grad()
def _trim_limit(base: State, expert: State, density: float) -> float:
    """The least magnitude that stays when the largest ``density`` of all elements of a task vector do."""
    magnitudes = [(theta - x).abs().reshape(-1) for _, x, (theta,) in _weights(base, [expert])]
    flat = torch.cat(magnitudes) if magnitudes else torch.empty(0, dtype=torch.float32, device="cpu")
    kth = max(1, len(flat) - int(len(flat) * density))
    return flat.kthvalue(kth).values.item() if len(flat) else 0.0
