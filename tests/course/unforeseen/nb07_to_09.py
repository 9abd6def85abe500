"""Answers to the exercises of notebooks 07 to 09."""

import math

import numpy as np
import torch
from torch.nn.functional import cosine_similarity, normalize

from dts_mini.core.paper import dts
from unforeseen import right, wrong

# --- 07: remaining_length ---

right(
    "remaining_length",
    "multiplied out",
    lambda n, c: math.sqrt(1 - 2 * (1 + (n - 1) * c) / n + (n + n * (n - 1) * c) / n**2),
)
right("remaining_length", "numpy", lambda n, cosine: np.sqrt((n - 1) / n * (1 - cosine)))


@right("remaining_length", "from the table of products")
def _(n, cosine):
    products = torch.full((n, n), cosine, dtype=torch.float64).fill_diagonal_(1.0)
    shares = -torch.full((n,), 1 / n, dtype=torch.float64)
    shares[0] += 1
    return (shares @ products @ shares).clamp(min=0).sqrt()


wrong(
    "remaining_length", "no root", lambda n, cosine: (1 - 1 / n) * (1 - cosine), hint="I get the square of the length"
)
wrong(
    "remaining_length",
    "infinitely many",
    lambda n, cosine: math.sqrt(1 - cosine),
    hint="With one task I do not get zero",
)
wrong("remaining_length", "the length of the mean", lambda n, cosine: math.sqrt((1 + (n - 1) * cosine) / n))
wrong("remaining_length", "one less the mean's length", lambda n, c: 1 - math.sqrt(max(0, (1 + (n - 1) * c) / n)))
wrong(
    "remaining_length",
    "as if at right angles",
    lambda n, cosine: math.sqrt(1 - 1 / n),
    hint="My length does not depend on the cosine",
)
wrong("remaining_length", "the mean of the others", lambda n, c: math.sqrt(n * (1 - c) / (n - 1)) if n > 1 else 0.0)
wrong("remaining_length", "all are n", lambda n, c: math.sqrt(max(0, 1 - (1 + n * c) / n)))

# --- 07: remainder ---

right(
    "remainder",
    "a comprehension",
    lambda base, expert, keep_ratio=0.1: {k: dts(expert[k] - base[k], keep_ratio) for k in base},
)


@right("remainder", "a loop")
def _(base, expert, keep_ratio=0.1):
    kept = {}
    for (name, x), start in zip(expert.items(), [base[name] for name in expert], strict=True):
        kept[name] = dts(torch.sub(x, start), keep_ratio=keep_ratio)
    return kept


wrong(
    "remainder",
    "base less expert",
    lambda b, e, keep_ratio=0.1: {k: dts(b[k] - e[k], keep_ratio) for k in b},
    hint="My remainder points back to the base",
)
wrong(
    "remainder",
    "the default ratio",
    lambda b, e, keep_ratio=0.1: {k: dts(e[k] - b[k]) for k in b},
    hint="My keep ratio has no effect",
)
wrong(
    "remainder",
    "a difference of dts",
    lambda b, e, keep_ratio=0.1: {k: dts(e[k], keep_ratio) - dts(b[k], keep_ratio) for k in b},
    hint="I subtract what was compressed before",
)
wrong(
    "remainder",
    "the expert itself",
    lambda b, e, keep_ratio=0.1: {k: dts(e[k], keep_ratio) for k in b},
    hint="I compress the expert, not what it adds",
)
wrong(
    "remainder",
    "not compressed",
    lambda b, e, keep_ratio=0.1: {k: e[k] - b[k] for k in b},
    hint="Nothing is compressed",
)
wrong(
    "remainder",
    "matrices only",
    lambda b, e, keep_ratio=0.1: {k: dts(e[k] - b[k], keep_ratio) for k in b if b[k].dim() == 2},
    hint="Biases are missing from my remainder",
)
wrong("remainder", "with the base", lambda b, e, keep_ratio=0.1: {k: b[k] + dts(e[k] - b[k], keep_ratio) for k in b})
wrong("remainder", "values without names", lambda b, e, keep_ratio=0.1: [dts(e[k] - b[k], keep_ratio) for k in b])


@wrong("remainder", "writes the difference into the expert")
def _(base, expert, keep_ratio=0.1):
    for name in expert:
        expert[name] -= base[name]
    return {name: dts(x, keep_ratio) for name, x in expert.items()}


# --- 07: rebuild ---


@right("rebuild", "copies first")
def _(base, remainder):
    expert = {name: x.clone() for name, x in base.items()}
    for name, x in remainder.items():
        expert[name] = (expert[name] + x).to(base[name].dtype)
    return expert


@wrong("rebuild", "the base's own tensor where nothing comes", hint="My expert and the base share memory")
def _(base, remainder):
    return {k: (x + remainder[k]).to(x.dtype) if k in remainder else x for k, x in base.items()}


@right("rebuild", "added in double")
def _(base, remainder):
    out = {}
    for name, x in base.items():
        extra = remainder.get(name)
        out[name] = x.detach().clone() if extra is None else torch.add(x.double(), extra.double()).type_as(x)
    return out


@right("rebuild", "added in the base's format")
def _(base, remainder):
    return {k: x + remainder.get(k, torch.zeros_like(x)).to(x.dtype) for k, x in base.items()}


wrong("rebuild", "needs a remainder for each", lambda b, r: {k: (x + r[k]).to(x.dtype) for k, x in b.items()})
wrong(
    "rebuild",
    "only what has a remainder",
    lambda b, r: {k: (b[k] + x).to(b[k].dtype) for k, x in r.items()},
    hint="Some tensors are missing from my expert",
)
wrong("rebuild", "float32 comes out", lambda b, r: {k: x + r[k] if k in r else x for k, x in b.items()})
wrong("rebuild", "all in float32", lambda b, r: {k: x.float() + r.get(k, 0) for k, x in b.items()})
wrong("rebuild", "all in half", lambda b, r: {k: (x + r.get(k, 0)).half() for k, x in b.items()})


@wrong("rebuild", "a shallow copy, added in place", hint="The base has changed")
def _(base, remainder):
    expert = base.copy()
    for name, x in remainder.items():
        expert[name] += x
    return expert


@wrong("rebuild", "writes into the base's dict", hint="The base has changed")
def _(base, remainder):
    for name, x in remainder.items():
        base[name] = (base[name] + x).to(base[name].dtype)
    return dict(base)


# --- 07: tasks_that_fit ---


@right("tasks_that_fit", "file after file")
def _(budget, model, file):
    left, tasks = budget - model, 0
    while left >= file:
        left -= file
        tasks += 1
    return tasks


right("tasks_that_fit", "a number of numpy", lambda budget, model, file: np.maximum(0, (budget - model) // file))
right("tasks_that_fit", "a 0-d tensor", lambda b, m, f: torch.tensor((b - m) // f).clamp(min=0))
wrong(
    "tasks_that_fit",
    "less than none",
    lambda budget, model, file: (budget - model) // file,
    hint="I get less than no task",
)
wrong("tasks_that_fit", "rounded towards zero", lambda budget, model, file: int((budget - model) / file))
wrong(
    "tasks_that_fit",
    "a model for each",
    lambda budget, model, file: budget // (model + file),
    hint="I get far too few tasks",
)
wrong("tasks_that_fit", "a part of a task", lambda budget, model, file: max(0, (budget - model) / file))
wrong(
    "tasks_that_fit",
    "rounded",
    lambda budget, model, file: max(0, round((budget - model) / file)),
    hint="My last task does not quite fit",
)
wrong("tasks_that_fit", "the model needs no file", lambda budget, model, file: max(0, (budget - model) // file + 1))
wrong(
    "tasks_that_fit", "the model is free", lambda budget, model, file: budget // file, hint="I get a few tasks too many"
)
wrong(
    "tasks_that_fit",
    "an exact fit is no fit",
    lambda b, m, f: max(0, (b - m - 1) // f),
    hint="A task that fits exactly is left out",
)

# --- 08: weights ---


@right("weights", "task by task")
def _(unseen, seen):
    cosines = [max(0.0, float(unseen @ row) / float(unseen.norm() * row.norm())) for row in seen]
    total = sum(cosines)
    return torch.tensor([c / total if total > 0 else 1 / len(seen) for c in cosines])


@right("weights", "cosine_similarity")
def _(unseen, seen):
    w = cosine_similarity(unseen[None], seen).clip(min=0)
    return w / w.sum() if w.any() else torch.full_like(w, 1 / len(w))


@right("weights", "relu of products, made a sum of one")
def _(unseen, seen):
    w = torch.relu(normalize(seen, dim=1) @ unseen)
    if w.sum() == 0:
        w = torch.ones(len(seen))
    return w / w.sum()


@wrong("weights", "products, not cosines", hint="A long descriptor gets too large a weight")
def _(unseen, seen):
    w = (seen @ unseen).clamp(min=0)
    return w / w.sum() if w.sum() > 0 else torch.ones_like(w) / len(w)


@wrong("weights", "none is positive", hint="I get nan")
def _(unseen, seen):
    w = cosine_similarity(unseen[None], seen).clamp(min=0)
    return w / w.sum()


@wrong("weights", "all zero where none is positive", hint="I get zeros where no task is near")
def _(unseen, seen):
    w = cosine_similarity(unseen[None], seen).clamp(min=0)
    return w / w.sum().clamp(min=1e-12)


@wrong("weights", "negative ones are subtracted")
def _(unseen, seen):
    c = cosine_similarity(unseen[None], seen)
    return c / c.sum() if (c > 0).any() else torch.ones_like(c) / len(c)


@wrong("weights", "sizes of cosines", hint="A task that points the other way has a weight")
def _(unseen, seen):
    c = cosine_similarity(unseen[None], seen).abs()
    return c / c.sum()


@wrong("weights", "softmax", hint="No weight of mine is zero")
def _(unseen, seen):
    return cosine_similarity(unseen[None], seen).softmax(0)


@wrong("weights", "shares first, zeros then")
def _(unseen, seen):
    c = cosine_similarity(unseen[None], seen)
    return (c / c.sum()).clamp(min=0) if (c > 0).any() else torch.ones_like(c) / len(c)


@wrong("weights", "equal as soon as one is negative")
def _(unseen, seen):
    c = cosine_similarity(unseen[None], seen)
    return c / c.sum() if (c > 0).all() else torch.ones_like(c) / len(c)


# --- 08: fuse ---


@right("fuse", "remainder by remainder")
def _(base, remainders, weights):
    fused = {name: x.clone() for name, x in base.items()}
    for w, remainder in zip(weights.tolist(), remainders, strict=True):
        for name, x in remainder.items():
            fused[name] += w * x
    return fused


@right("fuse", "tensordot")
def _(base, remainders, weights):
    return {k: x + torch.tensordot(weights, torch.stack([r[k] for r in remainders]), dims=1) for k, x in base.items()}


@right("fuse", "a generator")
def _(base, remainders, weights):
    return {k: base[k] + sum(weights[n] * remainders[n][k] for n in range(len(remainders))) for k in base}


@wrong("fuse", "into the base", hint="The base has changed")
def _(base, remainders, weights):
    for w, remainder in zip(weights, remainders, strict=True):
        for name in base:
            base[name] += w * remainder[name]
    return base


@wrong("fuse", "into a remainder")
def _(base, remainders, weights):
    fused = remainders[0]
    for name in fused:
        fused[name] *= weights[0]
        for w, remainder in zip(weights[1:], remainders[1:], strict=True):
            fused[name] += w * remainder[name]
        fused[name] += base[name]
    return fused


@wrong("fuse", "the base once for each")
def _(base, remainders, weights):
    return {k: sum(w * (x + r[k]) for w, r in zip(weights, remainders, strict=True)) + x for k, x in base.items()}


@wrong("fuse", "divided by their number", hint="My model moves too little")
def _(base, remainders, weights):
    mean = lambda k: sum(w * r[k] for w, r in zip(weights, remainders, strict=True)) / len(remainders)
    return {k: x + mean(k) for k, x in base.items()}


@wrong("fuse", "one short")
def _(base, remainders, weights):
    return {k: x + sum(weights[n] * remainders[n][k] for n in range(len(remainders) - 1)) for k, x in base.items()}


@wrong("fuse", "the nearest alone")
def _(base, remainders, weights):
    return {k: x + weights.max() * remainders[int(weights.argmax())][k] for k, x in base.items()}


@wrong("fuse", "no base", hint="My model lacks the base")
def _(base, remainders, weights):
    return {k: sum(w * r[k] for w, r in zip(weights, remainders, strict=True)) for k in base}


# --- 08: told_apart ---


@right("told_apart", "percentiles of numpy")
def _(ours, other):
    low, high = np.percentile((ours - other).numpy(), [2.5, 97.5])
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


@right("told_apart", "counted draws")
def _(ours, other):
    d = (ours - other).sort().values
    n = len(d)
    low, high = d[int(0.025 * (n - 1))], d[math.ceil(0.975 * (n - 1))]
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "not told apart"


@right("told_apart", "quantiles of torch")
def _(ours, other):
    low, high = torch.quantile(ours.double() - other.double(), torch.tensor([0.025, 0.975], dtype=torch.float64))
    if low <= 0 <= high:
        return "not told apart"
    return "better" if low > 0 else "worse"


@right("told_apart", "the mean and 1.96 standard deviations")
def _(ours, other):
    d = ours - other
    if d.mean().abs() <= 1.96 * d.std():
        return "not told apart"
    return "better" if d.mean() > 0 else "worse"


@wrong("told_apart", "two intervals that overlap", hint="I compare two intervals")
def _(ours, other):
    edges = torch.tensor([0.025, 0.975], dtype=ours.dtype)
    (a, b), (c, d) = ours.quantile(edges), other.quantile(edges)
    return "better" if a > d else "worse" if b < c else "not told apart"


@wrong("told_apart", "sorted apart from each other", hint="I sort each row by itself")
def _(ours, other):
    d = ours.sort().values - other.sort().values
    low, high = np.percentile(d.numpy(), [2.5, 97.5])
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


@wrong("told_apart", "an interval of 90 %")
def _(ours, other):
    low, high = np.percentile((ours - other).numpy(), [5, 95])
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


@wrong("told_apart", "the means alone")
def _(ours, other):
    d = (ours - other).mean()
    return "better" if d > 0 else "worse" if d < 0 else "not told apart"


@wrong("told_apart", "the error of the mean of the draws")
def _(ours, other):
    d = ours - other
    half = 1.96 * d.std() / len(d) ** 0.5
    return "better" if d.mean() > half else "worse" if d.mean() < -half else "not told apart"


@wrong("told_apart", "never worse", hint="I never say worse")
def _(ours, other):
    return "better" if np.percentile((ours - other).numpy(), 2.5) > 0 else "not told apart"


@wrong("told_apart", "the other way round", hint="Better and worse are the wrong way round")
def _(ours, other):
    low, high = np.percentile((other - ours).numpy(), [2.5, 97.5])
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


@wrong("told_apart", "every draw")
def _(ours, other):
    return "better" if (ours > other).all() else "worse" if (ours < other).all() else "not told apart"


# --- 09: sharpened ---


@right("sharpened", "the formula")
def _(unseen, seen, p):
    c = cosine_similarity(unseen[None], seen).clamp(min=0)
    if c.max() == 0:
        return torch.full((len(seen),), 1 / len(seen))
    return c**p / (c**p).sum()


@right("sharpened", "in lists")
def _(unseen, seen, p):
    cosines = [float(row @ unseen / row.norm() / unseen.norm()) for row in seen]
    top = max(cosines)
    if top <= 0:
        return torch.ones(len(seen)) / len(seen)
    powers = [(max(c, 0.0) / top) ** p for c in cosines]
    return torch.tensor([power / sum(powers) for power in powers])


@right("sharpened", "normalised by hand, in double")
def _(unseen, seen, p):
    c = torch.relu(normalize(seen.double(), dim=-1) @ normalize(unseen.double(), dim=0))
    w = torch.where(c.sum() > 0, c, torch.ones_like(c)).pow(p)
    return (w / w.sum()).to(seen.dtype)


@wrong("sharpened", "the power before the zero")
def _(unseen, seen, p):
    w = (cosine_similarity(unseen[None], seen) ** p).clamp(min=0)
    return w / w.sum() if w.sum() > 0 else torch.ones_like(w) / len(w)


@wrong("sharpened", "no shares after the power")
def _(unseen, seen, p):
    c = cosine_similarity(unseen[None], seen).clamp(min=0)
    return (c / c.sum()) ** p if c.sum() > 0 else torch.ones_like(c) / len(c)


@wrong("sharpened", "softmax, sharpened", hint="I sharpen by a softmax")
def _(unseen, seen, p):
    return (p * cosine_similarity(unseen[None], seen)).softmax(0)


@wrong("sharpened", "nothing is known", hint="I get nan")
def _(unseen, seen, p):
    w = cosine_similarity(unseen[None], seen).clamp(min=0) ** p
    return w / w.sum()


@wrong("sharpened", "left out even at p = 0", hint="At sharpness zero some tasks weigh nothing")
def _(unseen, seen, p):
    c = cosine_similarity(unseen[None], seen)
    w = torch.where(c > 0, c.clamp(min=0) ** p, 0.0)
    return w / w.sum() if w.sum() > 0 else torch.ones_like(c) / len(c)


@wrong("sharpened", "multiplied, not raised", hint="A sharpness of two does not square")
def _(unseen, seen, p):
    w = cosine_similarity(unseen[None], seen).clamp(min=0) * p
    return w / w.sum() if w.sum() > 0 else torch.ones_like(w) / len(w)


@wrong("sharpened", "products, not cosines")
def _(unseen, seen, p):
    w = (seen @ unseen).clamp(min=0)
    return w**p / (w**p).sum() if w.sum() > 0 else torch.ones_like(w) / len(w)


# --- 09: fuse_from ---


@right("fuse_from", "every candidate, from below")
def _(near, gains):
    best, found = -math.inf, None
    for t in [*sorted(near), max(near) + 0.01]:
        total = sum(g for x, g in zip(near, gains, strict=True) if x >= t)
        if total > best:
            best, found = total, t
    return found


@right("fuse_from", "min of a key")
def _(near, gains):
    total = lambda t: math.fsum(g for x, g in zip(near, gains, strict=True) if x >= t)
    return min([max(near) + 0.01, *near], key=lambda t: (-total(t), t))


@right("fuse_from", "running sums, a 0-d tensor")
def _(near, gains):
    near, gains = torch.tensor(near, dtype=torch.float64), torch.tensor(gains, dtype=torch.float64)
    candidates = torch.cat([near.unique(), near.max().view(1) + 0.01])
    totals = ((near[None] >= candidates[:, None]) * gains).sum(1)
    return candidates[totals.argmax()]


def _totals(near, gains, candidates, over=lambda x, t: x >= t):
    return [(sum(g for x, g in zip(near, gains, strict=True) if over(x, t)), t) for t in candidates]


wrong(
    "fuse_from",
    "of equally good ones the largest",
    lambda near, gains: max(_totals(near, gains, [*near, max(near) + 0.01]))[1],
    hint="Of equal thresholds I take the largest",
)
wrong(
    "fuse_from",
    "something is always fused",
    lambda near, gains: max(_totals(near, gains, near), key=lambda x: (x[0], -x[1]))[1],
    hint="My method never abstains from all of them",
)
wrong(
    "fuse_from",
    "above, not at the threshold",
    lambda near, gains: max(
        _totals(near, gains, [*near, max(near) + 0.01], lambda x, t: x > t), key=lambda x: (x[0], -x[1])
    )[1],
    hint="I fuse only what is nearer than the threshold",
)
wrong(
    "fuse_from",
    "infinity for none",
    lambda near, gains: max(_totals(near, gains, [*near, math.inf]), key=lambda x: (x[0], -x[1]))[1],
)
wrong(
    "fuse_from",
    "below the threshold",
    lambda near, gains: max(
        _totals(near, gains, [*near, max(near) + 0.01], lambda x, t: x <= t), key=lambda x: (x[0], -x[1])
    )[1],
)
wrong("fuse_from", "the best task's nearness", lambda near, gains: near[gains.index(max(gains))])
wrong(
    "fuse_from", "the best sum, not where", lambda near, gains: max(_totals(near, gains, [*near, max(near) + 0.01]))[0]
)


@wrong("fuse_from", "the nearest that gained", hint="I take the smallest nearness that gained")
def _(near, gains):
    return min([x for x, g in zip(near, gains, strict=True) if g > 0], default=max(near) + 0.01)


@wrong("fuse_from", "the largest mean gain", hint="I take the mean gain, not the sum")
def _(near, gains):
    def mean(t):
        fused = [g for x, g in zip(near, gains, strict=True) if x >= t]
        return sum(fused) / len(fused) if fused else 0.0

    return min([*near, max(near) + 0.01], key=lambda t: (-mean(t), t))


# --- 09: safest ---


@right("safest", "max of a key")
def _(accuracies, better):
    return max(accuracies, key=lambda a: min(x - y for x, y in zip(accuracies[a], better, strict=True)))


@right("safest", "a table")
def _(accuracies, better):
    shares = list(accuracies)
    table = torch.tensor([accuracies[a] for a in shares], dtype=torch.float64)
    return shares[(table - torch.tensor(better, dtype=torch.float64)).amin(1).argmax()]


@right("safest", "a loop, numpy")
def _(accuracies, better):
    best, worst = None, -np.inf
    for share, row in accuracies.items():
        fall = np.max(np.array(better) - np.array(row))
        if -fall > worst:
            best, worst = share, -fall
    return np.float64(best)


wrong(
    "safest",
    "the best mean",
    lambda a, b: max(a, key=lambda s: sum(x - y for x, y in zip(a[s], b, strict=True))),
    hint="I take the best mean",
)
wrong("safest", "the highest accuracy", lambda a, b: max(a, key=lambda s: min(a[s])), hint="I forget the better model")
wrong("safest", "the largest gain", lambda a, b: max(a, key=lambda s: max(x - y for x, y in zip(a[s], b, strict=True))))
wrong(
    "safest",
    "falls of zero are equal",
    lambda a, b: max(a, key=lambda s: min(min(0, x - y) for x, y in zip(a[s], b, strict=True))),
)
wrong(
    "safest",
    "sizes of differences",
    lambda a, b: min(a, key=lambda s: max(abs(x - y) for x, y in zip(a[s], b, strict=True))),
    hint="A gain counts like a loss",
)
wrong(
    "safest", "the fall, not the share", lambda a, b: max(min(x - y for x, y in zip(a[s], b, strict=True)) for s in a)
)
wrong(
    "safest",
    "the furthest fall",
    lambda a, b: min(a, key=lambda s: min(x - y for x, y in zip(a[s], b, strict=True))),
    hint="I take the share that falls furthest",
)
wrong(
    "safest",
    "the sum of the falls",
    lambda a, b: max(a, key=lambda s: sum(min(0, x - y) for x, y in zip(a[s], b, strict=True))),
    hint="I add up the losses",
)
