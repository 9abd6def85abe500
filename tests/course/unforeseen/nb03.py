"""Answers to the exercises of notebook 03."""

import math
from collections import defaultdict

import numpy as np
import torch

from unforeseen import right, wrong

# --- threshold ---


@right("threshold", "sign by sign")
def threshold(x):
    flat = x.flatten()
    codes = torch.full(flat.shape, 4)
    for sign, strong, weak in ((1, 3, 2), (-1, 0, 1)):
        where = (flat * sign > 0).nonzero().flatten()
        order = flat[where].abs().argsort(descending=True, stable=True)
        codes[where] = weak
        codes[where[order[: len(where) // 2]]] = strong
    return codes.reshape(x.shape)


@right("threshold", "lists of Python")
def _(x):
    flat = x.flatten().tolist()
    codes = [4] * len(flat)
    up = sorted((i for i, v in enumerate(flat) if v > 0), key=lambda i: -flat[i])
    down = sorted((i for i, v in enumerate(flat) if v < 0), key=lambda i: flat[i])
    for k, i in enumerate(up):
        codes[i] = 3 if k < len(up) // 2 else 2
    for k, i in enumerate(down):
        codes[i] = 0 if k < len(down) // 2 else 1
    return torch.tensor(codes, dtype=torch.uint8).view(x.shape)


@right("threshold", "ranks by numpy")
def _(x):
    a = x.numpy().ravel()
    out = np.full(a.shape, 4, dtype=np.int32)
    for mask, strong, weak in ((a > 0, 3, 2), (a < 0, 0, 1)):
        size = np.where(mask, np.abs(a), -1)
        rank = np.argsort(np.argsort(-size, kind="stable"), kind="stable")
        out[mask] = np.where(rank[mask] < mask.sum() // 2, strong, weak)
    return torch.from_numpy(out.reshape(tuple(x.shape)))


def _by_cut(x, up, down, zero=4):
    codes = torch.full(x.shape, zero)
    codes[x > 0], codes[x < 0] = 2, 1
    codes[(x > 0) & (x > up)] = 3
    codes[(x < 0) & (x < down)] = 0
    return codes


@wrong("threshold", "torch.median, and equal elements", hint="With equal elements, too few are strong")
def _(x):
    up = x[x > 0].median() if (x > 0).any() else 0.0
    down = -(-x[x < 0]).median() if (x < 0).any() else 0.0
    return _by_cut(x, up, down)


@wrong("threshold", "at the median counts as strong")
def _(x):
    codes = torch.full(x.shape, 4)
    if (x > 0).any():
        codes[x > 0] = torch.where(x[x > 0] >= x[x > 0].median(), 3, 2)
    if (x < 0).any():
        codes[x < 0] = torch.where(x[x < 0] <= x[x < 0].median(), 0, 1)
    return codes


@wrong("threshold", "one median of all sizes", hint="One sign has far more strong elements than the other")
def _(x):
    cut = x[x != 0].abs().median() if (x != 0).any() else 0.0
    return _by_cut(x, cut, -cut)


@wrong("threshold", "zeros are weak and positive", hint="My exact zeros are weak and positive")
def _(x):
    codes = threshold(x)
    codes[codes == 4] = 2
    return codes


@wrong("threshold", "the negative ones the wrong way round")
def _(x):
    codes = threshold(x)
    return torch.where(codes < 2, 1 - codes, codes)


wrong(
    "threshold",
    "row by row",
    lambda x: torch.stack([threshold(row) for row in x]) if x.dim() > 1 else threshold(x),
    hint="Each row of mine is halved by itself",
)
wrong("threshold", "flat", lambda x: threshold(x).flatten(), hint="My codes come back in one row")
wrong("threshold", "codes with a point", lambda x: threshold(x).float())


@wrong("threshold", "half rounded up", hint="Of three elements of one sign, two are strong")
def _(x):
    flat, codes = x.flatten(), torch.full((x.numel(),), 4)
    for sign, strong, weak in ((1, 3, 2), (-1, 0, 1)):
        where = (flat * sign > 0).nonzero().flatten()
        order = where[flat[where].abs().argsort(descending=True, stable=True)]
        half = math.ceil(len(order) / 2)
        codes[order[:half]], codes[order[half:]] = strong, weak
    return codes.view(x.shape)


@wrong("threshold", "of equal elements the last are strong", hint="Of equal elements, my last ones are strong")
def _(x):
    flat, codes = x.flatten(), torch.full((x.numel(),), 4)
    for sign, strong, weak in ((1, 3, 2), (-1, 0, 1)):
        where = (flat * sign > 0).nonzero().flatten()
        order = where[flat[where].abs().argsort(stable=True)]
        cut = len(order) - len(order) // 2
        codes[order[:cut]], codes[order[cut:]] = weak, strong
    return codes.view(x.shape)


# --- averaged ---


@right("averaged", "group by group")
def _(x, codes):
    out = torch.zeros_like(x)
    for code in codes.unique():
        out[codes == code] = x[codes == code].mean()
    return out


@right("averaged", "element by element")
def _(x, codes):
    groups = defaultdict(list)
    for value, code in zip(x.flatten().tolist(), codes.flatten().tolist(), strict=True):
        groups[code].append(value)
    means = {code: sum(values) / len(values) for code, values in groups.items()}
    return torch.tensor([means[code] for code in codes.flatten().tolist()]).reshape(x.shape)


@right("averaged", "counted")
def _(x, codes):
    c = codes.flatten().long()
    total = torch.zeros(5, dtype=x.dtype).scatter_add_(0, c, x.flatten())
    return (total / torch.bincount(c, minlength=5).clamp(min=1))[codes.long()]


@wrong("averaged", "means of sizes", hint="My negative elements have become positive")
def _(x, codes):
    out = torch.zeros_like(x)
    for code in range(4):
        if (codes == code).any():
            out[codes == code] = x[codes == code].abs().mean()
    return out


@wrong("averaged", "in place")
def _(x, codes):
    for code in range(4):
        x[codes == code] = x[codes == code].mean()
    return x


@wrong("averaged", "medians", hint="My values are the groups' middle elements")
def _(x, codes):
    out = torch.zeros_like(x)
    for code in codes.unique():
        out[codes == code] = x[codes == code].median()
    return out


@wrong("averaged", "one group is forgotten")
def _(x, codes):
    out = torch.zeros_like(x)
    for code in range(3):
        if (codes == code).any():
            out[codes == code] = x[codes == code].mean()
    return out


@wrong("averaged", "an empty group spoils all")
def _(x, codes):
    out = torch.zeros_like(x)
    for code in range(4):
        out += (codes == code) * x[codes == code].mean()
    return out


@wrong("averaged", "divided by all elements", hint="My values are far too small")
def _(x, codes):
    return sum((codes == code) * ((codes == code) * x).mean() for code in range(5))


# --- entropy_bits ---


@right("entropy_bits", "torch")
def _(counts):
    p = torch.tensor([c for c in counts if c > 0], dtype=torch.float64)
    p = p / p.sum()
    return -(p * p.log2()).sum()


@right("entropy_bits", "numpy, natural logarithms")
def _(counts):
    n = np.array(counts, dtype=float)
    p = n[n > 0] / n.sum()
    return (p * np.log(1 / p)).sum() / np.log(2)


@right("entropy_bits", "log n less the mean")
def _(counts):
    n = sum(counts)
    return math.log2(n) - sum(c * math.log(c, 2) for c in counts if c) / n


@wrong("entropy_bits", "nats", hint="My four equal codes need 1.386")
def _(counts):
    n = sum(counts)
    return -sum(c / n * math.log(c / n) for c in counts if c)


@wrong("entropy_bits", "log of zero", hint="I get an error when a code never occurs")
def _(counts):
    n = sum(counts)
    return -sum(c / n * math.log2(c / n) for c in counts)


@wrong("entropy_bits", "bits of all codes")
def _(counts):
    n = sum(counts)
    return -sum(c * math.log2(c / n) for c in counts if c)


@wrong("entropy_bits", "whole bits")
def _(counts):
    n = sum(counts)
    return math.ceil(-sum(c / n * math.log2(c / n) for c in counts if c))


@wrong("entropy_bits", "as if equally frequent")
def _(counts):
    return math.log2(sum(c > 0 for c in counts))


@wrong("entropy_bits", "the mean over the codes", hint="My entropy is above what equal codes need")
def _(counts):
    p = [c / sum(counts) for c in counts if c]
    return sum(-math.log2(each) for each in p) / len(p)


# --- best_cut ---


@right("best_cut", "all cuts, the first best")
def _(sizes):
    sizes = sizes.sort(descending=True).values.double()
    errors = []
    for k in range(1, len(sizes)):
        strong, weak = sizes[:k], sizes[k:]
        errors.append(((strong - strong.mean()) ** 2).sum().item() + ((weak - weak.mean()) ** 2).sum().item())
    return errors.index(min(errors)) + 1


@right("best_cut", "all cuts, the last best")
def _(sizes):
    ordered = sorted(sizes.tolist(), reverse=True)
    best, found = float("inf"), 1
    for k in range(1, len(ordered)):
        error = np.var(ordered[:k]) * k + np.var(ordered[k:]) * (len(ordered) - k)
        if error <= best:
            best, found = error, k
    return found


@right("best_cut", "running sums, a 0-d tensor")
def _(sizes):
    x = sizes.double().sort(descending=True).values
    n = len(x)
    k = torch.arange(1, n)
    left = x.cumsum(0)[:-1]
    gain = left**2 / k + (x.sum() - left) ** 2 / (n - k)
    return gain.argmax() + 1


def _errors(x):
    variance = lambda part: ((part - part.mean()) ** 2).sum().item()
    return [variance(x[:k]) + variance(x[k:]) for k in range(1, len(x))]


@wrong("best_cut", "not sorted")
def _(sizes):
    return int(np.argmin(_errors(sizes))) + 1


@wrong("best_cut", "counted from the smallest", hint="I count the weak elements")
def _(sizes):
    return int(np.argmin(_errors(sizes.sort().values))) + 1


@wrong("best_cut", "the position", hint="I am one too low")
def _(sizes):
    return int(np.argmin(_errors(sizes.sort(descending=True).values)))


wrong("best_cut", "the median", lambda sizes: len(sizes) // 2, hint="I always get half")


@wrong("best_cut", "mean errors are added", hint="My two groups count the same, however small one is")
def _(sizes):
    x = sizes.sort(descending=True).values
    variances = [x[:k].var(unbiased=False) + x[k:].var(unbiased=False) for k in range(1, len(x))]
    return int(torch.stack(variances).argmin()) + 1


@wrong("best_cut", "larger than the mean", hint="I cut at the mean size")
def _(sizes):
    return int((sizes > sizes.mean()).sum())


@wrong("best_cut", "one strong element is not tried")
def _(sizes):
    errors = _errors(sizes.sort(descending=True).values)
    return int(np.argmin(errors[1:])) + 2 if len(errors) > 1 else 1


@wrong("best_cut", "the size at the cut")
def _(sizes):
    x = sizes.sort(descending=True).values
    return x[int(np.argmin(_errors(x)))].item()


@wrong("entropy_bits", "numpy, nan for a code that never occurs", hint="My entropy is nan when a code never occurs")
def _(counts):
    p = np.array(counts) / np.sum(counts)
    with np.errstate(all="ignore"):
        return -np.sum(p * np.log2(p))


@right("entropy_bits", "torch, nan left out")
def _(counts):
    p = torch.tensor(counts) / sum(counts)
    return -(p * p.log2()).nansum()


# --- grouped ---


def _sorted_parts(x, splits):
    """Each sign sorted by size, halved as often as asked (the larger half rounded down), each part its mean."""
    flat = x.flatten()
    result = torch.zeros_like(flat)
    for sign in (1, -1):
        parts = [(sign * flat).argsort(descending=True, stable=True)[: int((sign * flat > 0).sum())]]
        for _ in range(splits):
            parts = [half for part in parts for half in (part[: len(part) // 2], part[len(part) // 2 :])]
        for part in parts:
            if len(part):
                result[part] = flat[part].mean()
    return result.view(x.shape)


@right("grouped", "sorted and halved, without threshold")
def _(x, groups):
    return _sorted_parts(x, {2: 0, 4: 1, 8: 2}[groups])


@right("grouped", "codes of 0 to 7, then a loop over them")
def _(x, groups):
    codes = threshold(x)
    if groups == 2:
        codes = torch.where(codes < 4, 4 * (codes // 2), 99)
    elif groups == 8:
        finer = torch.full_like(codes, 99)
        for code in range(4):
            inner = threshold(torch.where(codes == code, x, torch.zeros_like(x)))
            finer = torch.where(inner < 4, 2 * code + (inner % 3 == 0).int(), finer)
        codes = finer
    else:
        codes = torch.where(codes < 4, codes, 99)
    out = torch.zeros_like(x)
    for code in codes.unique().tolist():
        if code != 99:
            out[codes == code] = x[codes == code].mean()
    return out


@right("grouped", "two groups by the sign itself")
def _(x, groups):
    if groups == 2:
        out = torch.zeros_like(x)
        out[x > 0], out[x < 0] = x[x > 0].mean(), x[x < 0].mean()
        return out.nan_to_num()
    return _sorted_parts(x, groups.bit_length() - 2)


@wrong("grouped", "one size for both signs")
def _(x, groups):
    return x.sign() * x.abs().mean() if groups == 2 else _sorted_parts(x, groups.bit_length() - 2)


@wrong("grouped", "eight bins of equal width")
def _(x, groups):
    width = x.abs().max() / (groups // 2)
    return x.sign() * ((x.abs() / width).floor() + 0.5) * width


@wrong("grouped", "halves of the rest: the strong ones alone are halved again")
def _(x, groups):
    if groups < 8:
        return _sorted_parts(x, groups.bit_length() - 2)
    codes = threshold(x)
    strong = x.where((codes == 0) | (codes == 3), 0)
    return _sorted_parts(strong, 1) + _sorted_parts(x - strong, 0)


@wrong("grouped", "always four", hint="The number of groups changes nothing")
def _(x, groups):
    return _sorted_parts(x, 1)


@wrong("grouped", "the group's number", hint="I get codes")
def _(x, groups):
    return threshold(x)


@wrong("grouped", "the sign as True and False", hint="With two groups my zeros are positive")
def _(x, groups):
    if groups > 2:
        return _sorted_parts(x, groups.bit_length() - 2)
    out, low = x.clone(), x < 0
    out[low], out[~low] = x[low].mean(), x[~low].mean()
    return out


@wrong("grouped", "zeros taken for positive")
def _(x, groups):
    found = _sorted_parts(x, groups.bit_length() - 2)
    return torch.where(x == 0, found[x > 0].min() if (x > 0).any() else 0.0, found)


# --- same_bits_rank ---

BITS = {2: 1, 4: 2, 8: 3}


@right("same_bits_rank", "counting up, no more than the matrix has")
def _(m, n, r, groups):
    bits = lambda rank, g: rank * ((m + n) * BITS[g] + 32) + 2 * g * 32 if rank else 0
    best = 0
    for rank in range(1, min(m, n) + 1):
        if bits(rank, groups) <= bits(r, 4):
            best = rank
    return best


@right("same_bits_rank", "divided, a float")
def _(m, n, r, groups):
    budget = 2 * r * (m + n) + 32 * r + 2 * 4 * 32
    each = math.log2(groups) * (m + n) + 32
    return max(0.0, min(min(m, n), (budget - 64 * groups) // each))


@right("same_bits_rank", "counting down")
def _(m, n, r, groups):
    cost = lambda rank, g: (m * rank + rank * n) * (g.bit_length() - 1) + 32 * rank + 32 * g + 32 * g
    rank = min(m, n)
    while rank > 0 and cost(rank, groups) > cost(r, 4):
        rank -= 1
    return rank


def _rank(m, n, r, groups, scales=2, value=32, bits=BITS):
    budget = r * ((m + n) * bits[4] + value) + scales * 4 * 32
    return min(m, n, (budget - scales * groups * 32) // ((m + n) * bits[groups] + value))


wrong(
    "same_bits_rank",
    "no scales",
    lambda m, n, r, g: _rank(m, n, r, g, scales=0),
    hint="I forget that more groups have more scales",
)
wrong(
    "same_bits_rank",
    "the scales of one factor",
    lambda m, n, r, g: max(0, _rank(m, n, r, g, scales=1)),
    hint="I count the scales of one factor",
)
wrong(
    "same_bits_rank",
    "no singular values",
    lambda m, n, r, g: max(0, _rank(m, n, r, g, value=0)),
    hint="I forget that a component has a singular value",
)
wrong("same_bits_rank", "half the groups", lambda m, n, r, g: max(0, _rank(m, n, r, g, bits={2: 1, 4: 2, 8: 4})))
wrong("same_bits_rank", "codes alone", lambda m, n, r, g: min(m, n, r * 2 // BITS[g]))


@wrong("same_bits_rank", "rounded")
def _(m, n, r, groups):
    each = (m + n) * BITS[groups] + 32
    return min(m, n, max(0, round((r * ((m + n) * 2 + 32) + 256 - 64 * groups) / each)))


@wrong("same_bits_rank", "more than the matrix has", hint="My rank is above min(m, n)")
def _(m, n, r, groups):
    budget = r * (2 * (m + n) + 32) + 256 - 64 * groups
    return max(0, budget // ((m + n) * BITS[groups] + 32))


wrong("same_bits_rank", "below zero", _rank, hint="My rank is negative")
wrong("same_bits_rank", "at least one", lambda m, n, r, g: max(1, _rank(m, n, r, g)))
