"""The exercises of notebook 08: descriptors, weights, the fused model, when two rows differ, abstaining, hedging."""

import torch
from torch.nn import functional as F

from dts_mini.core.personal import fusion_weights
from dts_mini.course.exercise import Exercise, Wrong, case, difference
from dts_mini.ours.weightings import abstention, least_regret

NOTEBOOK = "08_unseen_tasks"


def descriptor_of(head: torch.Tensor) -> torch.Tensor:
    """A head (classes, d), rows of any length -> task descriptor (d,) of length one; every class counts the same."""
    return F.normalize(F.normalize(head, dim=1).mean(0), dim=0)


DESCRIPTOR_WRONG = {
    "A class with a long row counts more": lambda head: F.normalize(head.mean(0), dim=0),
    "My descriptor is shorter than one": lambda head: F.normalize(head, dim=1).mean(0),
    "My descriptor has a number for each class": lambda head: F.normalize(F.normalize(head, dim=1).mean(1), dim=0),
    "I normalised the columns": lambda head: F.normalize(F.normalize(head, dim=0).mean(0), dim=0),
}
HEAD = torch.tensor([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0], [0.0, -1.0, 1.0], [2.0, 0.0, 0.0]])


def the_temperature_changes_nothing(candidate):
    if problem := difference(candidate(20 * HEAD), descriptor_of(HEAD)):
        raise Wrong(f"with every row twenty times as long: {problem}")


def my_weights(unseen: torch.Tensor, seen_ones: torch.Tensor) -> torch.Tensor:
    """Descriptors unseen (d,), seen_ones (N, d) -> weights (N,): cosines, negative ones as zero, with the sum one."""
    cosines = (seen_ones @ unseen / (seen_ones.norm(dim=1) * unseen.norm())).clamp(min=0)
    return cosines / cosines.sum()


def _cosines(unseen, seen):
    return F.cosine_similarity(unseen[None], seen)


def _share(x):
    return x / x.sum()


WEIGHTS_WRONG = {
    "A long descriptor gets too large a weight": lambda unseen, seen: _share((seen @ unseen).clamp(min=0)),
    "One of my weights is negative": lambda unseen, seen: _share(_cosines(unseen, seen)),
    "My weights do not sum to one": lambda unseen, seen: _cosines(unseen, seen).clamp(min=0),
    "No weight of mine is zero": lambda unseen, seen: _cosines(unseen, seen).softmax(0),
    "A task that points the other way has a weight": lambda unseen, seen: _share(_cosines(unseen, seen).abs()),
}
ONE, MANY = torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.5]])


def the_core_agrees(candidate):
    unseen, seen = torch.linspace(-1, 2, 5), torch.linspace(-1, 1, 20).view(4, 5).sin() + 0.3
    if problem := difference(candidate(unseen, seen), fusion_weights(unseen, seen)):
        raise Wrong(f"where the core's fusion_weights is asked, too: {problem}")


def fused(base: dict, remainders: list[dict], weights: list[float]) -> dict:
    """base + sum_n weights[n] * remainders[n], a new state dict; the inputs stay as they are."""
    return {name: x + sum(w * r[name] for w, r in zip(weights, remainders, strict=True)) for name, x in base.items()}


def _only_the_last(base, remainders, weights):
    for w, r in zip(weights, remainders, strict=True):
        result = {name: x + w * r[name] for name, x in base.items()}
    return result


def _in_place(base, remainders, weights):
    for w, r in zip(weights, remainders, strict=True):
        for name in base:
            base[name] += w * r[name]
    return base


FUSED_WRONG = {
    "My model lacks the base": lambda base, rs, ws: {
        name: sum(w * r[name] for w, r in zip(ws, rs, strict=True)) for name in base
    },
    "My weights have no effect": lambda base, rs, ws: {
        name: x + sum(r[name] for r in rs) / len(rs) for name, x in base.items()
    },
    "My model moves too little": lambda base, rs, ws: {
        name: x + sum(w * r[name] for w, r in zip(ws, rs, strict=True)) / len(rs) for name, x in base.items()
    },
    "Only the last task counts": _only_the_last,
    "The base has changed": _in_place,
}
BASE = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([[0.5, 0.0], [0.0, -1.0]])}
REMAINDERS = [
    {"w": torch.tensor([2.0, 0.0]), "b": torch.tensor([[0.0, 1.0], [0.0, 0.0]])},
    {"w": torch.tensor([0.0, 4.0]), "b": torch.tensor([[-1.0, 0.0], [2.0, 0.0]])},
    {"w": torch.tensor([-2.0, -4.0]), "b": torch.tensor([[1.0, -1.0], [-2.0, 0.0]])},
]


def equal_weights_give_the_base(candidate):
    if problem := difference(candidate(BASE, REMAINDERS, [1 / 3] * 3), BASE):
        raise Wrong(f"with remainders that sum to zero and equal weights: {problem}")


def told_apart(ours: torch.Tensor, other: torch.Tensor) -> str:
    """Paired bootstrap draws (draws,) of two accuracies -> "better", "worse" or "not told apart", for ``ours``.

    Better or worse only where the whole 95 % interval of the difference lies on one side of zero.
    """
    low, high = (ours - other).quantile(torch.tensor([0.025, 0.975])).tolist()
    if low > 0:
        return "better"
    return "worse" if high < 0 else "not told apart"


def _verdict(low, high):
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def _ends(draws, tail=0.025):
    return draws.quantile(torch.tensor([tail, 1 - tail])).tolist()


def _two_intervals(ours, other):
    (low, high), (other_low, other_high) = _ends(ours), _ends(other)
    return _verdict(low - other_high, high - other_low)


TOLD_WRONG = {
    "My interval is too narrow": lambda ours, other: _verdict(*_ends(ours - other, 0.25)),
    "I look at the mean alone": lambda ours, other: "better" if ours.mean() > other.mean() else "worse",
    "I compare two intervals": _two_intervals,
    "Better and worse are the wrong way round": lambda ours, other: _verdict(*_ends(other - ours)),
    "I never say worse": lambda ours, other: "better" if _ends(ours - other)[0] > 0 else "not told apart",
}
_STEPS = torch.linspace(-1, 1, 401)
SHARED, OWN = 0.03 * (7 * _STEPS).sin(), 0.01 * _STEPS  # what both rows share in a draw, and what one has for itself


def fuse_from(near: list[float], gains: list[float]) -> float:
    """Nearness and gain of fusing, a number each a task -> the threshold t: fuse where nearness >= t.

    The one with the largest summed gain of the tasks that are fused; of equally good ones the least. The candidates are
    the nearnesses themselves and, for fusing none of these tasks, the largest of them plus 0.01.
    """
    candidates = sorted([*near, max(near) + 0.01])
    return max(candidates, key=lambda t: sum(gain for n, gain in zip(near, gains, strict=True) if n >= t))


def _gained(near, gains, t):
    return sum(gain for n, gain in zip(near, gains, strict=True) if n >= t)


FUSE_WRONG = {
    "My method never abstains from all of them": lambda near, gains: max(
        sorted(near), key=lambda t: _gained(near, gains, t)
    ),
    "I fuse only what is nearer than the threshold": lambda near, gains: max(
        sorted([*near, max(near) + 0.01]), key=lambda t: sum(g for n, g in zip(near, gains, strict=True) if n > t)
    ),
    "Of equal thresholds I take the largest": lambda near, gains: max(
        sorted([*near, max(near) + 0.01], reverse=True), key=lambda t: _gained(near, gains, t)
    ),
    "I take the mean gain, not the sum": lambda near, gains: max(
        sorted([*near, max(near) + 0.01]),
        key=lambda t: _gained(near, gains, t) / max(1, sum(n >= t for n in near)),
    ),
    "I take the least nearness that gained": lambda near, gains: min(
        [n for n, g in zip(near, gains, strict=True) if g > 0], default=max(near) + 0.01
    ),
}


def the_core_chooses_alike(candidate):
    near, gains = [0.3, 0.5, 0.2, 0.9], [-0.01, 0.02, 0.01, 0.1]
    if problem := difference(candidate(near, gains), abstention(near, gains)):
        raise Wrong(f"where the core's abstention is asked, too: {problem}")


def safest(accuracies: dict[float, list[float]], better: list[float]) -> float:
    """{share: accuracy a task}, and a task's better model's accuracy -> the share that falls least below it.

    What counts is the task on which a share falls furthest; a gain elsewhere does not make up for it.
    """
    fall = lambda share: max(b - a for a, b in zip(accuracies[share], better, strict=True))
    return min(accuracies, key=fall)


def _leads(row, better):
    return [a - b for a, b in zip(row, better, strict=True)]


SAFEST_WRONG = {
    "I take the best mean": lambda rows, better: max(rows, key=lambda s: sum(rows[s])),
    "I forget the better model": lambda rows, better: max(rows, key=lambda s: min(rows[s])),
    "I take the share that falls furthest": lambda rows, better: min(rows, key=lambda s: min(_leads(rows[s], better))),
    "A gain counts like a loss": lambda rows, better: min(rows, key=lambda s: max(map(abs, _leads(rows[s], better)))),
    "I add up the losses": lambda rows, better: max(
        rows, key=lambda s: sum(min(x, 0) for x in _leads(rows[s], better))
    ),
}

SHARE_ROWS = {0.0: [0.4, 0.8], 0.2: [0.6, 0.4], 0.4: [0.5, 0.7], 0.6: [0.7, 0.9], 0.8: [0.8, 0.8], 1.0: [0.9, 0.8]}


def the_core_is_as_safe(candidate):
    rows, better = {0.5: [0.6, 0.62], 0.75: [0.7, 0.55], 1.0: [0.9, 0.4]}, [0.75, 0.65]
    if problem := difference(candidate(rows, better), least_regret(rows, better)):
        raise Wrong(f"where the core's least_regret is asked, too: {problem}")


EXERCISES = (
    Exercise(
        name="descriptor_of",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=descriptor_of,
        checks=(
            case(descriptor_of, HEAD),
            case(descriptor_of, torch.tensor([[0.0, 5.0]])),  # one class: its own direction
            the_temperature_changes_nothing,
        ),
        hints=(
            ("My descriptor has a number for each class", "Average over the classes: over the rows, not along them."),
            (
                "A class with a long row counts more",
                "Before you average, give every row the length one. A head's rows carry CLIP's temperature.",
            ),
            ("I normalised the columns", "A class is a row. Its length is taken over dim=1."),
            (
                "My descriptor is shorter than one",
                "The mean of unit vectors that point different ways is shorter than they are. Normalise once more.",
            ),
        ),
        wrong=DESCRIPTOR_WRONG,
    ),
    Exercise(
        name="my_weights",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=my_weights,
        checks=(
            case(my_weights, ONE, MANY),
            case(my_weights, 3 * ONE, torch.tensor([[0.5, 0.5]])),  # one task has all the weight
            case(my_weights, ONE, torch.tensor([[0.0, 1.0], [1.0, 0.0]])),  # a right angle: nothing
            the_core_agrees,
        ),
        hints=(
            (
                "A long descriptor gets too large a weight",
                "A cosine is a product of unit vectors: divide by both lengths.",
            ),
            ("My weights do not sum to one", "Divide by the sum of all, as the formula does."),
            ("No weight of mine is zero", "No softmax here: the paper divides the cosines by their sum."),
            ("One of my weights is negative", "Use clamp(min=0) before you divide by the sum."),
            ("A task that points the other way has a weight", "Use clamp(min=0), not abs: a negative cosine is zero."),
        ),
        wrong=WEIGHTS_WRONG,
    ),
    Exercise(
        name="fused",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=fused,
        checks=(
            case(fused, BASE, REMAINDERS, [0.5, 0.3, 0.2]),
            case(fused, BASE, REMAINDERS[:1], [1.0]),  # one task alone: its expert
            case(fused, BASE, REMAINDERS, [0.0, 0.0, 0.0]),
            equal_weights_give_the_base,
        ),
        hints=(
            ("My model lacks the base", "A sum of remainders is a direction. Add it to the base to get a model."),
            (
                "Only the last task counts",
                "Your loop writes the result anew for each task. Sum over the tasks first, then write once.",
            ),
            ("My weights have no effect", "Multiply each remainder by its own weight before you add it."),
            (
                "My model moves too little",
                "The weights sum to one already. Do not divide by the number of tasks again.",
            ),
            ("The base has changed", "x += ... writes into the tensor that you were given. x + ... makes a new one."),
        ),
        wrong=FUSED_WRONG,
    ),
    Exercise(
        name="told_apart",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=10,
        reference=told_apart,
        checks=(
            case(told_apart, 0.52 + SHARED + OWN, 0.5 + SHARED),  # clear, though two intervals overlap
            case(told_apart, 0.5 + SHARED + OWN, 0.7 + SHARED),
            case(told_apart, 0.5 + SHARED, 0.5 + SHARED),  # the same row twice
            case(told_apart, 0.507 + SHARED + OWN, 0.5 + SHARED),  # likely better, not surely
        ),
        hints=(
            (
                "I compare two intervals",
                "The two rows answer the same images, so their draws go up and down together. Subtract draw by draw, "
                "then take one interval of the differences.",
            ),
            ("I look at the mean alone", "A mean is never exactly zero. Ask on which side of zero the interval lies."),
            (
                "My interval is too narrow",
                "Of all draws 95 % lie in the interval: 2.5 % lie below it and 2.5 % above it.",
            ),
            ("I never say worse", "There are two sides. What does it mean when the upper end is below zero?"),
            ("Better and worse are the wrong way round", "Better is said of ours: subtract the other one from it."),
        ),
        wrong=TOLD_WRONG,
    ),
    Exercise(
        name="fuse_from",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=fuse_from,
        checks=(
            case(fuse_from, [0.1, 0.4, 0.9], [-0.2, 0.1, 0.3]),
            case(fuse_from, [0.2, 0.5], [-0.1, -0.3]),  # nothing gains: above all of them
            case(fuse_from, [0.3, 0.6, 0.8], [0.02, -0.3, 0.1]),  # a small gain below a great loss
            case(fuse_from, [0.2, 0.4, 0.6], [0.5, 0.0, 0.25]),
            case(fuse_from, [0.2, 0.4, 0.6], [0.25, -0.25, 0.5]),  # two thresholds gain alike
            the_core_chooses_alike,
        ),
        hints=(
            (
                "My method never abstains from all of them",
                "Add one more candidate just above the largest nearness: with it, none of these tasks is fused.",
            ),
            ("I fuse only what is nearer than the threshold", "A task exactly at the threshold is fused: use >=."),
            (
                "I take the least nearness that gained",
                "All tasks above a threshold are fused, the losing ones too. Sum their gains for every candidate.",
            ),
            (
                "I take the mean gain, not the sum",
                "A task that is not fused gains nothing, but it counts. Maximise the sum over all tasks.",
            ),
            ("Of equal thresholds I take the largest", "max() keeps the first of equals: go through them in order."),
        ),
        wrong=FUSE_WRONG,
    ),
    Exercise(
        name="safest",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=6,
        reference=safest,
        checks=(
            case(safest, SHARE_ROWS, [0.4, 0.6]),  # every mistake has its own answer
            case(safest, {0.0: [0.5, 0.5], 1.0: [0.9, 0.3]}, [0.5, 0.5]),  # a great gain, a loss
            case(safest, {0.0: [0.5, 0.6], 1.0: [0.45, 0.8]}, [0.5, 0.8]),  # a low bar, a high one
            case(safest, {0.0: [0.4, 0.4, 0.4], 1.0: [0.5, 0.5, 0.3]}, [0.5, 0.5, 0.5]),
            the_core_is_as_safe,
        ),
        hints=(
            ("I take the best mean", "A promise holds for every task. Take a share's worst task, not its mean."),
            (
                "I forget the better model",
                "A task may be hard for every model. Subtract from each task's accuracy that of the better model.",
            ),
            ("I take the share that falls furthest", "You want the smallest of the largest falls: a min of a max."),
            ("A gain counts like a loss", "No abs here: above the better model nothing is wrong."),
            ("I add up the losses", "Of a share's losses only the largest counts: max over the tasks, not sum."),
        ),
        wrong=SAFEST_WRONG,
    ),
)
