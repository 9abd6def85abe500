"""Answers to the exercises of notebook 02."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch

from unforeseen import right, wrong

# --- leading ---


@right("leading", "the old svd, which gives V")
def leading(M, r):
    U, s, V = torch.svd(M)
    return U[:, :r], s[:r], V[:, :r].T


@right("leading", "a list, from numpy")
def _(M, r):
    U, s, Vt = np.linalg.svd(M.numpy())
    return [torch.tensor(U[:, :r]), torch.tensor(s[:r]), torch.tensor(Vt[:r, :])]


@right("leading", "picks of a full svd")
def _(M, r):
    U, s, Vt = torch.linalg.svd(M, full_matrices=True)
    first = torch.arange(r)
    return U.index_select(1, first), s.index_select(0, first), Vt.index_select(0, first)


@wrong("leading", "columns of V^T", hint="My V^T has r columns")
def _(M, r):
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)
    return U[:, :r], s[:r], Vt[:, :r]


@wrong("leading", "V, not V^T", hint="My third result is V, not its transpose")
def _(M, r):
    U, s, V = torch.svd(M)
    return U[:, :r], s[:r], V[:, :r]


@wrong("leading", "s as a matrix")
def _(M, r):
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)
    return U[:, :r], torch.diag(s[:r]), Vt[:r]


@wrong("leading", "one component more")
def _(M, r):
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)
    return U[:, : r + 1], s[: r + 1], Vt[: r + 1]


@wrong("leading", "the last components", hint="My singular values are the smallest ones")
def _(M, r):
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)
    return U[:, -r:], s[-r:], Vt[-r:]


@wrong("leading", "the product")
def _(M, r):
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)
    return U[:, :r] * s[:r] @ Vt[:r]


# --- rank_for_energy ---


@right("rank_for_energy", "a while loop")
def _(s, share):
    energy, total, held, r = (s.double() ** 2).tolist(), (s.double() ** 2).sum().item(), 0.0, 0
    while r < len(energy) and (r == 0 or held < share * total):
        held += energy[r]
        r += 1
    return r


@right("rank_for_energy", "searchsorted, a 0-d tensor")
def _(s, share):
    energy = s.double().square().cumsum(0)
    return torch.searchsorted(energy, share * energy[-1]).clamp(max=len(s) - 1) + 1


@right("rank_for_energy", "numpy")
def _(s, share):
    energy = np.cumsum(s.numpy().astype(float) ** 2)
    return min(int((energy < share * energy[-1]).sum()) + 1, len(energy))


@wrong("rank_for_energy", "values, not energies", hint="My rank grows too fast with the share")
def _(s, share):
    held = s.cumsum(0)
    return int((held < share * held[-1]).sum()) + 1


@wrong("rank_for_energy", "the position, not the number", hint="My rank is one too small")
def _(s, share):
    held = (s**2).cumsum(0) / (s**2).sum()
    return int((held >= share).nonzero()[0])


@wrong("rank_for_energy", "one more where it is exact")
def _(s, share):
    held = (s**2).cumsum(0) / (s**2).sum()
    return min(int((held <= share).sum()) + 1, len(s))


@wrong("rank_for_energy", "rank 0 for nothing")
def _(s, share):
    total, held = (s**2).sum(), 0.0
    for r in range(len(s) + 1):
        if held >= share * total:
            return r
        held += s[r] ** 2
    return len(s)


@wrong("rank_for_energy", "a share of the number of components")
def _(s, share):
    return max(1, math.ceil(share * len(s)))


@wrong("rank_for_energy", "the largest rank that holds less")
def _(s, share):
    held = (s**2).cumsum(0) / (s**2).sum()
    return max(int((held < share).sum()), 1)


# --- truncation_error ---


@right("truncation_error", "norms")
def _(s, rank):
    whole = torch.linalg.norm(s)
    return (torch.linalg.norm(s[rank:]) / whole).item() if whole > 0 else 0


@right("truncation_error", "what is kept, taken from one")
def _(s, rank):
    s = s.double()
    total = (s**2).sum()
    if total == 0:
        return 0.0
    return math.sqrt(max(0.0, 1 - ((s[:rank] ** 2).sum() / total).item()))


@right("truncation_error", "numpy, a sum with a start")
def _(s, rank):
    squares = [float(x) ** 2 for x in s]
    return np.sqrt(sum(squares[rank:], 0.0) / (sum(squares) or 1.0))


@wrong("truncation_error", "zero by zero", hint="My error of a zero matrix is nan")
def _(s, rank):
    return ((s[rank:] ** 2).sum() / (s**2).sum()).sqrt().item()


@wrong("truncation_error", "s_{r+1} read as an index", hint="My error is that of the next rank")
def _(s, rank):
    total = (s**2).sum()
    return 0.0 if total == 0 else ((s[rank + 1 :] ** 2).sum() / total).sqrt().item()


@wrong("truncation_error", "no root", hint="My error is below the true one, whatever the rank")
def _(s, rank):
    total = (s**2).sum().item()
    return (s[rank:] ** 2).sum().item() / total if total else 0.0


@wrong("truncation_error", "what is kept", hint="My error grows with the rank")
def _(s, rank):
    total = (s**2).sum()
    return 0.0 if total == 0 else ((s[:rank] ** 2).sum() / total).sqrt().item()


@wrong("truncation_error", "sums of values", hint="My error depends on how I add up")
def _(s, rank):
    return 0.0 if s.sum() == 0 else (s[rank:].sum() / s.sum()).item()


@wrong("truncation_error", "one less the root of what is kept")
def _(s, rank):
    total = (s**2).sum()
    return 0.0 if total == 0 else 1 - ((s[:rank] ** 2).sum() / total).sqrt().item()


@wrong("truncation_error", "not relative", hint="My error is above 1")
def _(s, rank):
    return (s[rank:] ** 2).sum().sqrt().item()


# --- settle_signs ---


@right("settle_signs", "row by row")
def settle_signs(U, Vt):
    U, Vt = U.clone(), Vt.clone()
    for i, row in enumerate(Vt):
        if row[row.abs().argmax()] < 0:
            U[:, i], Vt[i] = -U[:, i], -row.clone()
    return U, Vt


@right("settle_signs", "gathered")
def _(U, Vt):
    place = Vt.abs().max(dim=1, keepdim=True).indices
    sign = torch.where(Vt.gather(1, place) < 0, -1.0, 1.0).to(Vt.dtype)
    return U * sign.T, sign * Vt


@right("settle_signs", "the highest against the lowest")
def _(U, Vt):
    turn = (Vt.amax(1) < -Vt.amin(1)).to(Vt.dtype)
    D = torch.diag(1 - 2 * turn)
    return [U @ D, D @ Vt]


@wrong("settle_signs", "U stays", hint="I flipped V^T alone")
def _(U, Vt):
    sign = Vt.gather(1, Vt.abs().argmax(1, keepdim=True)).sign()
    return U, Vt * sign


@wrong("settle_signs", "the largest is always positive", hint="Rows of mine keep a large negative element")
def _(U, Vt):
    sign = Vt.max(1).values.sign()
    return U * sign, Vt * sign[:, None]


@wrong("settle_signs", "decided by U", hint="I look at U")
def _(U, Vt):
    sign = U.gather(0, U.abs().argmax(0, keepdim=True)).sign()
    return U * sign, Vt * sign.T


@wrong("settle_signs", "decided by the sum", hint="I look at the sum of a row")
def _(U, Vt):
    sign = torch.where(Vt.sum(1) < 0, -1, 1)
    return U * sign, Vt * sign[:, None]


@wrong("settle_signs", "columns of V^T")
def _(U, Vt):
    sign = Vt.gather(0, Vt.abs().argmax(0, keepdim=True)).sign()[0][: len(Vt)]
    return U * sign, Vt * sign[:, None]


@wrong("settle_signs", "everything is made positive")
def _(U, Vt):
    return U.abs(), Vt.abs()


@wrong("settle_signs", "in place")
def _(U, Vt):
    for i in range(len(Vt)):
        if Vt[i, Vt[i].abs().argmax()] < 0:
            U[:, i] *= -1
            Vt[i] *= -1
    return U, Vt


# --- decompose ---


@right("decompose", "by the five rules")
def decompose(M, keep_ratio):
    m, n = M.shape
    r = max(1, math.floor(keep_ratio * min(m, n) + 1e-9))
    U, s, Vt = leading(M, r)
    keep = int((s > s[0] * torch.finfo(s.dtype).eps * max(m, n)).sum())
    keep = max(keep, 1)
    U, Vt = settle_signs(U[:, :keep], Vt[:keep])
    U[M.abs().sum(1) == 0] = 0
    Vt[:, M.abs().sum(0) == 0] = 0
    return U, s[:keep], Vt


@right("decompose", "a rank by fractions, zeros by a product")
def _(M, keep_ratio):
    r = int(Fraction(keep_ratio).limit_denominator(10**6) * min(M.shape)) or 1
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)
    cut = s[0].item() * torch.finfo(s.dtype).eps * max(M.shape)
    kept = [i for i in range(r) if i == 0 or s[i].item() > cut]
    U, s, Vt = U[:, kept], s[kept], Vt[kept]
    U, Vt = settle_signs(U * M.ne(0).any(1, keepdim=True), Vt * M.ne(0).any(0, keepdim=True))
    return U, s, Vt


@right("decompose", "decimals, everything written out")
def _(M, keep_ratio):
    r = max(int(Decimal(str(keep_ratio)) * min(M.shape)), 1)
    U, s, V = torch.svd(M)
    while r > 1 and s[r - 1] <= s[0] * torch.finfo(s.dtype).eps * max(M.shape):
        r -= 1
    U, s, V = U[:, :r].clone(), s[:r], V[:, :r].clone()
    for i in range(r):
        if V[V[:, i].abs().argmax(), i] < 0:
            U[:, i] *= -1
            V[:, i] *= -1
    for i in range(M.shape[0]):
        if (M[i] == 0).all():
            U[i] = 0
    for j in range(M.shape[1]):
        if (M[:, j] == 0).all():
            V[j] = 0
    return U, s, V.T


def _rules(M, r, slack=None, settle=settle_signs, zeros=True):
    """``decompose`` for a rank, with one rule done otherwise."""
    U, s, Vt = leading(M, r)
    slack = torch.finfo(s.dtype).eps * max(M.shape) if slack is None else slack
    keep = max(1, int((s > s[0] * slack).sum()))
    U, Vt = settle(U[:, :keep], Vt[:keep])
    if zeros:
        U, Vt = U * M.ne(0).any(1, keepdim=True), Vt * M.ne(0).any(0)
    return U, s[:keep], Vt


@wrong("decompose", "28 components of 100", hint="Of 50 components 0.58 are 28")
def _(M, keep_ratio):
    return _rules(M, max(1, int(keep_ratio * min(M.shape))))


@wrong("decompose", "rounded to the nearest rank", hint="My rank is rounded to the nearest")
def _(M, keep_ratio):
    return _rules(M, max(1, round(keep_ratio * min(M.shape))))


@wrong("decompose", "rounded up", hint="My rank is rounded up")
def _(M, keep_ratio):
    return _rules(M, max(1, math.ceil(keep_ratio * min(M.shape) - 1e-9)))


@wrong("decompose", "no component is kept", hint="A small keep ratio leaves me nothing")
def _(M, keep_ratio):
    r = math.floor(keep_ratio * min(M.shape) + 1e-9)
    return _rules(M, r) if r else leading(M, 0)


@wrong("decompose", "rounding is kept", hint="I keep components that are rounding")
def _(M, keep_ratio):
    return _rules(M, max(1, math.floor(keep_ratio * min(M.shape) + 1e-9)), slack=0.0)


@wrong("decompose", "a row of zeros is only nearly zero", hint="Rows of zeros come back with dust in them")
def _(M, keep_ratio):
    return _rules(M, max(1, math.floor(keep_ratio * min(M.shape) + 1e-9)), zeros=False)


@wrong("decompose", "signs as they come")
def _(M, keep_ratio):
    return _rules(M, max(1, math.floor(keep_ratio * min(M.shape) + 1e-9)), settle=lambda U, Vt: (-U, -Vt))


@wrong("decompose", "the share of the longer side", hint="I keep too many components")
def _(M, keep_ratio):
    return _rules(M, max(1, math.floor(keep_ratio * max(M.shape) + 1e-9)))


@wrong("decompose", "a matrix of zeros loses its one component")
def _(M, keep_ratio):
    U, s, Vt = _rules(M, max(1, math.floor(keep_ratio * min(M.shape) + 1e-9)))
    kept = s > s[0] * torch.finfo(s.dtype).eps * max(M.shape)
    return U[:, kept], s[kept], Vt[kept]
