"""Answers to the exercises of notebooks 10 and 11."""

import heapq
import math

import numpy as np
import torch

from unforeseen import right, wrong

# --- 10: dominated ---


@right("dominated", "each against each")
def _(sizes, errors):
    beaten = []
    for i, (s, e) in enumerate(zip(sizes, errors, strict=True)):
        for t, f in zip(sizes, errors, strict=True):
            if t <= s and f <= e and (t < s or f < e):
                beaten.append(i)
                break
    return beaten


@right("dominated", "from the largest to the smallest")
def _(sizes, errors):
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], -errors[i]))
    points = set(zip(sizes, errors, strict=True))
    beats = lambda q, i: q != (sizes[i], errors[i]) and q[0] <= sizes[i] and q[1] <= errors[i]
    return [i for i in order if any(beats(q, i) for q in points)]


@right("dominated", "a tuple, while it is sorted by size")
def _(sizes, errors):
    beaten, least, size_of_least = [], math.inf, None
    for s, e, i in sorted(zip(sizes, errors, range(len(sizes)), strict=True)):
        if e > least or (e == least and s > size_of_least):
            beaten.append(i)
        elif e < least:
            least, size_of_least = e, s
    return tuple(beaten)


@right("dominated", "numpy")
def _(sizes, errors):
    s, e = np.array(sizes), np.array(errors)
    no_worse = (s[:, None] >= s) & (e[:, None] >= e)
    better = (s[:, None] > s) | (e[:, None] > e)
    return np.flatnonzero((no_worse & better).any(axis=1)).tolist()


def _beaten(sizes, errors, by):
    n = range(len(sizes))
    return [i for i in n if any(i != j and by(sizes[j], errors[j], sizes[i], errors[i]) for j in n)]


wrong(
    "dominated",
    "better in both",
    lambda s, e: _beaten(s, e, lambda t, f, u, g: t < u and f < g),
    hint="A point of the same size but a larger error survives",
)
wrong("dominated", "twins beat each other", lambda s, e: _beaten(s, e, lambda t, f, u, g: t <= u and f <= g))
wrong("dominated", "better in one is enough", lambda s, e: _beaten(s, e, lambda t, f, u, g: t < u or f < g))
wrong("dominated", "smaller, and no worse", lambda s, e: _beaten(s, e, lambda t, f, u, g: t < u and f <= g))
wrong(
    "dominated",
    "those that stay",
    lambda s, e: [
        i for i in range(len(s)) if i not in _beaten(s, e, lambda t, f, u, g: t <= u and f <= g and (t, f) != (u, g))
    ],
    hint="I get the points that nobody beats",
)
wrong(
    "dominated",
    "larger and better",
    lambda s, e: _beaten(s, e, lambda t, f, u, g: t >= u and f <= g and (t, f) != (u, g)),
)


@wrong("dominated", "only the neighbour in the list", hint="A point survives when its neighbours are no better")
def _(sizes, errors):
    return [i for i in range(1, len(sizes)) if sizes[i - 1] <= sizes[i] and errors[i - 1] < errors[i]]


@wrong("dominated", "positions after sorting")
def _(sizes, errors):
    points = sorted(zip(sizes, errors, strict=True))
    return [i for i, (_, e) in enumerate(points) if any(f <= e for _, f in points[:i])]


# --- 10: share_out ---


@right("share_out", "a heap")
def _(values, costs, budget):
    given = [0] * len(values)
    heap = [(-row[0] / cost, k) for k, (row, cost) in enumerate(zip(values, costs, strict=True)) if row]
    heapq.heapify(heap)
    while heap:
        _, k = heapq.heappop(heap)
        if costs[k] > budget:
            break
        budget -= costs[k]
        given[k] += 1
        if given[k] < len(values[k]):
            heapq.heappush(heap, (-values[k][given[k]] / costs[k], k))
    return given


@right("share_out", "one sorted list")
def _(values, costs, budget):
    offers = [(v / costs[k], k) for k, row in enumerate(values) for v in row]
    given, spent = [0 for _ in values], 0
    for _, k in sorted(offers, key=lambda offer: offer[0], reverse=True):
        if spent + costs[k] > budget:
            return given
        spent += costs[k]
        given[k] = given[k] + 1
    return given


@right("share_out", "numpy, a running sum")
def _(values, costs, budget):
    which = np.concatenate([[k] * len(row) for k, row in enumerate(values)]).astype(int)
    price = np.array(costs)[which]
    order = np.argsort(-np.concatenate(values) / price, kind="stable")
    bought = which[order][np.cumsum(price[order]) <= budget]
    return np.bincount(bought, minlength=len(values)).tolist()


def _bought(values, costs, budget, worth=lambda v, c: v / c, stop=True, fits=lambda cost, left: cost <= left):
    offers = sorted(((worth(v, costs[k]), k) for k, row in enumerate(values) for v in row), key=lambda x: -x[0])
    given = [0] * len(values)
    for _, k in offers:
        if fits(costs[k], budget):
            budget -= costs[k]
            given[k] += 1
        elif stop:
            break
    return given


wrong(
    "share_out",
    "goes on with cheaper ones",
    lambda v, c, b: _bought(v, c, b, stop=False),
    hint="Mine goes on with cheaper ones",
)
wrong("share_out", "by value", lambda v, c, b: _bought(v, c, b, worth=lambda v, c: v), hint="I look at the value alone")
wrong(
    "share_out",
    "the cheapest first",
    lambda v, c, b: _bought(v, c, b, worth=lambda v, c: -c),
    hint="I give the cheapest first",
)
wrong(
    "share_out",
    "an exact fit is no fit",
    lambda v, c, b: _bought(v, c, b, fits=lambda cost, left: cost < left),
    hint="One that just fits is left out",
)
wrong("share_out", "by value times cost", lambda v, c, b: _bought(v, c, b, worth=lambda v, c: v * c))
wrong("share_out", "squared once more", lambda v, c, b: _bought(v, c, b, worth=lambda v, c: v**2 / c))
wrong(
    "share_out",
    "whatever is left pays",
    lambda v, c, b: _bought(v, c, b, fits=lambda cost, left: left > 0),
    hint="Mine overshoots the budget",
)


@wrong("share_out", "matrix after matrix")
def _(values, costs, budget):
    given = []
    for row, cost in zip(values, costs, strict=True):
        n = min(len(row), int(budget // cost))
        given.append(n)
        budget -= n * cost
    return given


@wrong("share_out", "the same for all")
def _(values, costs, budget):
    r = int(budget // sum(costs))
    return [min(r, len(row)) for row in values]


# --- 10: water_level ---


@right("water_level", "number by number")
def _(variances, level):
    bits = error = 0
    for v in variances:
        if v > level:
            bits += math.log(v / level, 2) / 2
            error += level
        else:
            error += v
    return bits, error


@right("water_level", "clamped, tensors")
def _(variances, level):
    v = torch.tensor(variances, dtype=torch.float64)
    return [(v / level).clamp(min=1).log2().sum() / 2, v.clamp(max=level).sum()]


@right("water_level", "numpy")
def _(variances, level):
    v = np.array(variances)
    return np.log2(np.sqrt(np.maximum(v, level) / level)).sum(), np.minimum(v, level).sum()


def _water(variances, level, log=math.log2, factor=0.5, floor=0.0, left=min):
    bits = sum(max(floor, factor * log(v / level)) if v > 0 else 0.0 for v in variances)
    return bits, sum(left(v, level) for v in variances)


wrong("water_level", "nats", lambda v, level: _water(v, level, log=math.log), hint="My bits are too few by a third")
wrong("water_level", "not halved", lambda v, level: _water(v, level, factor=1.0), hint="My bits are twice as many")
wrong(
    "water_level", "bits below zero", lambda v, level: _water(v, level, floor=-math.inf), hint="My bits can be negative"
)
wrong(
    "water_level",
    "every error is the level",
    lambda v, level: _water(v, level, left=lambda v, level: level),
    hint="All my errors are the level",
)
wrong("water_level", "no error where it is coded", lambda v, t: _water(v, t, left=lambda v, t: 0.0 if v > t else v))
wrong(
    "water_level", "the other order", lambda v, level: _water(v, level)[::-1], hint="My errors and bits change places"
)
wrong("water_level", "means", lambda v, level: tuple(total / len(v) for total in _water(v, level)))
wrong("water_level", "nothing where it is not coded", lambda v, t: (_water(v, t)[0], t * sum(x > t for x in v)))
wrong(
    "water_level",
    "standard deviations",
    lambda v, t: (sum(math.log2(x / t**2) / 2 for x in v if x > t**2), _water(v, t)[1]),
)

# --- 11: low_rank_forward ---

right("low_rank_forward", "in rows", lambda x, w, u, s, vh: x @ w.T + (x @ vh.T) * s @ u.T)
right(
    "low_rank_forward",
    "linear layers",
    lambda x, w, u, s, vh: (
        torch.nn.functional.linear(x, w) + torch.nn.functional.linear(torch.nn.functional.linear(x, vh), u * s)
    ),
)
right(
    "low_rank_forward",
    "einsum",
    lambda x, w, u, s, vh: torch.einsum("tn,mn->tm", x, w) + torch.einsum("tn,rn,r,mr->tm", x, vh, s, u),
)


@right("low_rank_forward", "token by token")
def _(x, w, u, s, vh):
    return torch.stack([w @ token + u @ (s * (vh @ token)) for token in x])


wrong("low_rank_forward", "tokens as columns", lambda x, w, u, s, vh: w @ x + u @ (s[:, None] * (vh @ x)))
wrong(
    "low_rank_forward",
    "transposed at the end",
    lambda x, w, u, s, vh: w @ x.T + u @ (s[:, None] * (vh @ x.T)),
    hint="My rows and columns have changed places",
)
wrong(
    "low_rank_forward",
    "s is forgotten",
    lambda x, w, u, s, vh: x @ w.T + x @ vh.T @ u.T,
    hint="My result does not depend on s",
)
wrong(
    "low_rank_forward",
    "s twice",
    lambda x, w, u, s, vh: x @ w.T + (x @ (s[:, None] * vh).T * s) @ u.T,
    hint="The singular values count twice",
)
wrong(
    "low_rank_forward", "no base", lambda x, w, u, s, vh: (x @ vh.T * s) @ u.T, hint="My result is the remainder alone"
)
wrong(
    "low_rank_forward",
    "the matrix is made",
    lambda x, w, u, s, vh: x @ (w + u @ torch.diag(s) @ vh).T,
    hint="I make the expert's matrix",
)
wrong("low_rank_forward", "the base is added to", lambda x, w, u, s, vh: x @ w.add_(u * s @ vh).T)

# --- 11: mixed_forward ---


@right("mixed_forward", "sample by sample")
def _(y, x, factors, tasks):
    rows = []
    for i in range(len(x)):
        A, B = factors[tasks[i]]
        rows.append(y[i] + A @ (B @ x[i]))
    return torch.stack(rows)


@right("mixed_forward", "task by task")
def _(y, x, factors, tasks):
    out = y.clone()
    for k, (A, B) in enumerate(factors):
        mine = tasks == k
        out[mine] += x[mine] @ B.T @ A.T
    return out


@right("mixed_forward", "index_add, of the tasks that occur")
def _(y, x, factors, tasks):
    out = y
    for k in tasks.unique().tolist():
        rows = (tasks == k).nonzero().squeeze(1)
        A, B = factors[k]
        out = out.index_add(0, rows, torch.einsum("mr,rn,bn->bm", A, B, x[rows]))
    return out


@wrong("mixed_forward", "into y", hint="I changed the y that I was given")
def _(y, x, factors, tasks):
    for i, k in enumerate(tasks.tolist()):
        A, B = factors[k]
        y[i] += A @ (B @ x[i])
    return y


@wrong("mixed_forward", "a factor for each sample, in order")
def _(y, x, factors, tasks):
    return torch.stack([y[i] + A @ (B @ x[i]) for i, (A, B) in enumerate(factors)])


@wrong("mixed_forward", "every task for every sample", hint="Each sample gets every task")
def _(y, x, factors, tasks):
    return y + sum(x @ B.T @ A.T for A, B in factors)


@wrong("mixed_forward", "the first sample's task for all", hint="All samples get the first one's task")
def _(y, x, factors, tasks):
    A, B = factors[tasks[0]]
    return y + x @ B.T @ A.T


@wrong("mixed_forward", "y is forgotten", hint="My result is the remainders alone")
def _(y, x, factors, tasks):
    return torch.stack([factors[k][0] @ (factors[k][1] @ x[i]) for i, k in enumerate(tasks.tolist())])


@wrong("mixed_forward", "sorted by task, and left so", hint="My samples have changed places")
def _(y, x, factors, tasks):
    parts = []
    for k, (A, B) in enumerate(factors):
        parts.append(y[tasks == k] + x[tasks == k] @ B.T @ A.T)
    return torch.cat(parts)


@wrong("mixed_forward", "all of one rank")
def _(y, x, factors, tasks):
    A = torch.stack([a for a, _ in factors])[tasks]
    B = torch.stack([b for _, b in factors])[tasks]
    return y + (A @ (B @ x[:, :, None])).squeeze(-1)


# --- 11: subspace_share ---


@right("subspace_share", "the formula")
def _(x, vectors):
    along = (x @ vectors.T).square().sum(-1) / x.square().sum(-1)
    return along / (vectors.square().sum() / x.shape[-1])


@right("subspace_share", "input by input")
def _(x, vectors):
    chance = float(vectors.norm() ** 2) / vectors.shape[1]
    return torch.tensor([float((vectors @ one).norm() ** 2 / one.norm() ** 2) / chance for one in x])


@right("subspace_share", "vector by vector")
def _(x, vectors):
    total = sum((x @ v) ** 2 for v in vectors)
    return x.shape[1] * total / (torch.linalg.norm(x, dim=1) ** 2 * sum(v @ v for v in vectors))


wrong(
    "subspace_share",
    "no chance",
    lambda x, v: (x @ v.T).square().sum(1) / x.square().sum(1),
    hint="A task with many vectors always wins",
)
wrong(
    "subspace_share",
    "unit vectors taken for granted",
    lambda x, v: (x @ v.T).square().sum(1) / x.square().sum(1) * x.shape[1] / len(v),
)
wrong(
    "subspace_share",
    "lengths, not squares",
    lambda x, v: (x @ v.T).norm(dim=1) / x.norm(dim=1) / (v.norm() / x.shape[1] ** 0.5),
    hint="My share is the root of what it should be",
)
wrong(
    "subspace_share",
    "one number for the batch",
    lambda x, v: (x @ v.T).square().sum() / x.square().sum() * x.shape[1] / v.square().sum(),
)
wrong(
    "subspace_share",
    "the length of the batch",
    lambda x, v: (x @ v.T).square().sum(1) / x.norm() ** 2 * x.shape[1] / v.norm() ** 2,
)
wrong(
    "subspace_share",
    "the spectral norm",
    lambda x, v: (x @ v.T).norm(dim=1) ** 2 / x.norm(dim=1) ** 2 * x.shape[1] / torch.linalg.matrix_norm(v, 2) ** 2,
)
wrong(
    "subspace_share",
    "the size of the batch for n",
    lambda x, v: (x @ v.T).square().sum(1) / x.square().sum(1) * len(x) / v.square().sum(),
)
wrong(
    "subspace_share",
    "a mean over the vectors",
    lambda x, v: (x @ v.T).square().mean(1) / x.square().sum(1) * x.shape[1] / v.square().sum(),
)
