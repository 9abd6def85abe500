"""The exercises of notebook 09: sharper weights, where to abstain, and how far to go."""

import torch
from torch.nn import functional as F

from dts_mini.course.exercise import Exercise, Wrong, case, difference
from dts_mini.ours.weightings import abstention, least_regret

NOTEBOOK = "09_hedging"


def sharpened(unseen: torch.Tensor, seen: torch.Tensor, p: float) -> torch.Tensor:
    """Descriptors unseen (d,), seen (N, d) -> weights (N,) of sum one: cosines, negative ones as zero, to the power p.

    Where no cosine is positive, all weigh the same.
    """
    cosines = (seen @ unseen / (seen.norm(dim=1) * unseen.norm())).clamp(min=0)
    powers = cosines**p if cosines.any() else torch.ones_like(cosines)
    return powers / powers.sum()


def _positive(unseen, seen):
    return F.cosine_similarity(unseen[None], seen).clamp(min=0)


def _share(x):
    return x / x.sum() if x.any() else torch.full_like(x, 1 / len(x))


SHARPENED_WRONG = {
    "I take the power after the shares": lambda unseen, seen, p: _share(_positive(unseen, seen)) ** p,
    "My sharpness has no effect": lambda unseen, seen, p: _share(_positive(unseen, seen)),
    "A sharpness of two does not square": lambda unseen, seen, p: _share(p * _positive(unseen, seen)),
    "I sharpen by a softmax": lambda unseen, seen, p: (p * F.cosine_similarity(unseen[None], seen)).softmax(0),
    "A task that points the other way comes back": lambda unseen, seen, p: _share(
        F.cosine_similarity(unseen[None], seen) ** p
    ),
    "At sharpness zero some tasks weigh nothing": lambda unseen, seen, p: _share(
        torch.where((x := _positive(unseen, seen)) > 0, x**p, 0.0)
    ),
    "I get nan": lambda unseen, seen, p: (x := _positive(unseen, seen) ** p) / x.sum(),
}
ONE, MANY = torch.tensor([2.0, 0.0]), torch.tensor([[2.0, 0.5], [1.0, 1.0], [-1.0, 0.5]])
AWAY = torch.tensor([[-1.0, 0.5], [0.0, 2.0], [-3.0, 1.0]])


def a_high_power_leaves_the_nearest(candidate):
    found = candidate(ONE, MANY, 50.0)
    if problem := difference(found, torch.tensor([1.0, 0.0, 0.0])):
        raise Wrong(f"at sharpness 50, where the nearest task has all the weight: {problem}")


def fuse_from(near: list[float], gains: list[float]) -> float:
    """Nearness and gain of fusing, one number per task -> the threshold t: fuse where nearness >= t.

    The one with the largest summed gain of the tasks that are fused; of equally good ones the smallest. The candidates
    are the nearnesses themselves and, for fusing none of these tasks, the largest of them plus 0.01.
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
    "I take the smallest nearness that gained": lambda near, gains: min(
        [n for n, g in zip(near, gains, strict=True) if g > 0], default=max(near) + 0.01
    ),
}


def the_core_chooses_alike(candidate):
    near, gains = [0.3, 0.5, 0.2, 0.9], [-0.01, 0.02, 0.01, 0.1]
    if problem := difference(candidate(near, gains), abstention(near, gains)):
        raise Wrong(f"where the core's abstention is asked, too: {problem}")


def safest(accuracies: dict[float, list[float]], better: list[float]) -> float:
    """{share: accuracy on each task}, and each task's better model's accuracy -> the share that falls least below it.

    What counts is the task on which a share falls furthest; a gain elsewhere does not make up for it. Where a share
    falls nowhere, its smallest gain counts.
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
        name="sharpened",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=sharpened,
        checks=(
            case(sharpened, ONE, MANY, 1.0),
            case(sharpened, ONE, MANY, 2.0),
            case(sharpened, ONE, MANY, 0.0),  # all the same, negative ones too
            case(sharpened, ONE, AWAY, 3.0),  # no positive cosine
            a_high_power_leaves_the_nearest,
        ),
        hints=(
            ("My sharpness has no effect", "Take the power of each cosine before you divide by the sum."),
            (
                "I take the power after the shares",
                "Powers of shares do not sum to one. First the power of each cosine, then the shares.",
            ),
            ("A sharpness of two does not square", "A factor drops out of shares. Take a power: x**p."),
            ("I sharpen by a softmax", "The formula has powers of cosines, no exponentials."),
            (
                "A task that points the other way comes back",
                "The square of a negative cosine is positive. Make negative ones zero first.",
            ),
            (
                "At sharpness zero some tasks weigh nothing",
                "By the formula zero to the power zero is one, as torch has it: at p = 0 all tasks weigh the same.",
            ),
            ("I get nan", "Where no cosine is positive you divide zero by zero. By the rule all weigh the same then."),
        ),
        wrong=SHARPENED_WRONG,
        pace=(torch.linspace(-1, 1, 8), torch.linspace(-9, 9, 80_000).sin().view(10_000, 8), 2.0),
        start="Begin as in notebook 08, with the cosines (N,), none below zero. Where does the power stand in the "
        "formula?",
        skeleton=(
            "def sharpened(unseen, seen, p):\n"
            "    cosines = ...  # (N,), none below zero\n"
            "    if (cosines == 0).all():\n"
            "        return ...\n"
            "    powers = ...\n"
            "    return ..."
        ),
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
                "I take the smallest nearness that gained",
                "All tasks above a threshold are fused, the losing ones too. Sum their gains for every candidate.",
            ),
            (
                "I take the mean gain, not the sum",
                "A task that is not fused gains nothing, but it counts. Maximise the sum over all tasks.",
            ),
            ("Of equal thresholds I take the largest", "max() keeps the first of equals: go through them in order."),
        ),
        wrong=FUSE_WRONG,
        start="List the candidates first. For one candidate t: which tasks are fused, and what do they gain together?",
        skeleton=(
            "def fuse_from(near, gains):\n"
            "    candidates = ...  # rising, so that of equals the smallest comes first\n"
            "    def gained(t):\n"
            "        return sum(gain for n, gain in zip(near, gains) if ...)\n"
            "    return max(candidates, key=gained)"
        ),
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
        start="One share first: on each task, how far does it fall below the better model? Which of these falls "
        "counts?",
        skeleton=(
            "def safest(accuracies, better):\n"
            "    falls = {}\n"
            "    for share, row in accuracies.items():\n"
            "        falls[share] = ...  # on the task where it falls furthest\n"
            "    return ..."
        ),
    ),
)
