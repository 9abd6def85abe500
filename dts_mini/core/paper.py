"""DTS as its paper says it, on one page: Decomposition, Thresholding, Scaling (arXiv 2512.01461, section 3).

    remainder(base, expert) -> rebuild(base, remainder)                    one task, personalised
    remainders of many tasks, weights(unseen, seen) -> fuse(theta_m, ...)  a task that nobody fine-tuned

The base is the pretrained theta_0 (DTS-T) or a merged theta_m (DTS-D). Nothing is packed or budgeted here: the rest
of the core stores the very same numbers in two bits per element, and a test holds the two equal.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

State = dict[str, Tensor]


def decompose(M: Tensor, keep_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """U, s and V^T of the leading components of a matrix M (m x n): a share ``keep_ratio`` of them, at least one."""
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)  # (m, k), (k,) falling, (k, n); k = min(m, n)
    rank = int((s > s[0] * torch.finfo(s.dtype).eps * max(M.shape)).sum())  # beyond it s is rounding, U and V are noise
    r = max(1, min(int(keep_ratio * len(s) + 1e-9), rank))
    U, s, Vt = U[:, :r], s[:r], Vt[:r]  # (m, r), (r,), (r, n)
    # (u, v) and (-u, -v) are one component but fall into other groups: the largest element of each v is to be positive.
    sign = Vt.gather(1, Vt.abs().argmax(1, keepdim=True)).sign()  # (r, 1)
    # A row of M that is zero has a zero row in U, and a column in V^T; LAPACK leaves rounding there.
    return U * sign.T * (M != 0).any(1, keepdim=True), s, Vt * sign * (M != 0).any(0)


def threshold(x: Tensor) -> Tensor:
    """The group of each element, as a code in x's shape: 0 strong and 1 weak negative, 2 weak and 3 strong positive.

    Of each sign the floor(half) elements of largest magnitude are strong. An element that is zero is in no group: 4.

    >>> threshold(torch.tensor([3.0, 1.0, 0.0, -2.0])).tolist()
    [3, 2, 4, 1]
    """
    flat = x.flatten()
    codes = torch.full(flat.shape, 4, device=x.device)
    for sign, weak, strong in ((1, 2, 3), (-1, 1, 0)):
        order = (sign * flat).argsort(descending=True, stable=True)[: int((sign * flat > 0).sum())]
        half = len(order) // 2
        codes[order[:half]], codes[order[half:]] = strong, weak
    return codes.view_as(x)


def scale(x: Tensor, codes: Tensor) -> Tensor:
    """The value of each code (5,): the group's root mean square ||x_g|| / sqrt(|g|), signed; it keeps the norm.

    >>> scale(x := torch.tensor([3.0, 1.0, 0.0, -2.0]), threshold(x)).tolist()
    [0.0, -2.0, 1.0, 3.0, 0.0]
    """
    values = x.new_zeros(5)  # the code 4 is zero
    for code, sign in enumerate((-1, -1, 1, 1)):
        group = x[codes == code]  # (|g|,)
        if len(group):
            values[code] = sign * group.norm() / len(group) ** 0.5
    return values


def coarse(x: Tensor) -> Tensor:
    """Each element of x becomes its group's value."""
    codes = threshold(x)
    return scale(x, codes)[codes]


def dts(x: Tensor, keep_ratio: float = 0.1) -> Tensor:
    """What is left of one tensor. Only matrices are decomposed; any other tensor is thresholded and scaled as it is."""
    if x.dim() == 0:
        return x
    if x.dim() != 2:
        return coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return coarse(U) * s @ coarse(Vt)  # (m, r) (r,) (r, n) -> (m, n)


def remainder(base: State, expert: State, keep_ratio: float = 0.1) -> State:
    """What is kept of an expert beside its base: DTS of each difference."""
    return {name: dts(expert[name] - base[name], keep_ratio) for name in expert}


def rebuild(base: State, remainder: State) -> State:
    """The approximate expert."""
    return {name: base[name] + remainder[name] for name in base}


def weights(unseen: Tensor, seen: Tensor) -> Tensor:
    """w_n = cos(c_u, c_n) / sum_k cos(c_u, c_k), (N,), from descriptors of what tasks are about: (d,) and (N, d).

    The paper says nothing of negative cosines: they count as zero, and where none is positive all weigh the same.
    """
    cosines = cosine_similarity(unseen[None], seen).clamp(min=0)  # (N,)
    return cosines / cosines.sum() if cosines.any() else torch.full_like(cosines, 1 / len(cosines))


def fuse(base: State, remainders: list[State], weights: Tensor) -> State:
    """The model for an unseen task: a merged model and its experts' remainders, each by its weight."""
    return {name: base[name] + sum(w * r[name] for w, r in zip(weights, remainders, strict=True)) for name in base}
