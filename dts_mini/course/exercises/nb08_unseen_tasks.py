"""The exercises of notebook 08: the weights of seen tasks, the fused model, and when two rows are told apart."""

import torch
from torch.nn import functional as F

from dts_mini.core.personal import fusion_weights
from dts_mini.course.exercise import Exercise, Wrong, case, difference

NOTEBOOK = "08_unseen_tasks"


def weights(unseen: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Descriptors unseen (d,), seen (N, d) -> weights (N,) of sum one: cosines, negative ones as zero, as shares.

    Where no cosine is positive, all weigh the same.
    """
    cosines = (seen @ unseen / (seen.norm(dim=1) * unseen.norm())).clamp(min=0)
    return cosines / cosines.sum() if cosines.any() else torch.full_like(cosines, 1 / len(cosines))


def _cosines(unseen, seen):
    return F.cosine_similarity(unseen[None], seen)


def _share(x):
    return x / x.sum() if (x > 0).any() else torch.full_like(x, 1 / len(x))


WEIGHTS_WRONG = {
    "A long descriptor gets too large a weight": lambda unseen, seen: _share((seen @ unseen).clamp(min=0)),
    "One of my weights is negative": lambda unseen, seen: _cosines(unseen, seen) / _cosines(unseen, seen).sum(),
    "My weights do not sum to one": lambda unseen, seen: _cosines(unseen, seen).clamp(min=0),
    "No weight of mine is zero": lambda unseen, seen: _cosines(unseen, seen).softmax(0),
    "A task that points the other way has a weight": lambda unseen, seen: _share(_cosines(unseen, seen).abs()),
    "I get nan": lambda unseen, seen: (x := _cosines(unseen, seen).clamp(min=0)) / x.sum(),
    "I get zeros where no task is near": lambda unseen, seen: (
        (x := _cosines(unseen, seen).clamp(min=0)) / x.sum().clamp(min=1e-9)
    ),
}
ONE, MANY = torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.5]])
AWAY = torch.tensor([[-1.0, 0.5], [0.0, 2.0], [-3.0, 1.0]])


def the_core_agrees(candidate):
    unseen, seen = torch.linspace(-1, 2, 5), torch.linspace(-1, 1, 20).view(4, 5).sin() + 0.3
    if problem := difference(candidate(unseen, seen), fusion_weights(unseen, seen)):
        raise Wrong(f"where the core's fusion_weights is asked, too: {problem}")


def fuse(base: dict, remainders: list[dict], weights: torch.Tensor) -> dict:
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


FUSE_WRONG = {
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
    "I fuse the remainders, not what they are added to": lambda base, rs, ws: {
        name: sum(w * (x + r[name]) for w, r in zip(ws, rs, strict=True)) for name, x in base.items()
    },
}
BASE = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([[0.5, 0.0], [0.0, -1.0]])}
REMAINDERS = [
    {"w": torch.tensor([2.0, 0.0]), "b": torch.tensor([[0.0, 1.0], [0.0, 0.0]])},
    {"w": torch.tensor([0.0, 4.0]), "b": torch.tensor([[-1.0, 0.0], [2.0, 0.0]])},
    {"w": torch.tensor([-2.0, -4.0]), "b": torch.tensor([[1.0, -1.0], [-2.0, 0.0]])},
]


def equal_weights_give_the_base(candidate):
    if problem := difference(candidate(BASE, REMAINDERS, torch.full((3,), 1 / 3)), BASE):
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
    "I sort each row by itself": lambda ours, other: _verdict(*_ends(ours.sort().values - other.sort().values)),
    "Better and worse are the wrong way round": lambda ours, other: _verdict(*_ends(other - ours)),
    "I never say worse": lambda ours, other: "better" if _ends(ours - other)[0] > 0 else "not told apart",
}
_STEPS = torch.linspace(-1, 1, 401)
SHARED, OWN = 0.03 * (7 * _STEPS).sin(), 0.01 * _STEPS  # what both rows share in a draw, and what one has for itself
BELL = 0.005 * (0.998 * _STEPS).erfinv()  # of its own, as in a normal distribution


EXERCISES = (
    Exercise(
        name="weights",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=weights,
        checks=(
            case(weights, ONE, MANY),
            case(weights, 3 * ONE, torch.tensor([[0.5, 0.5]])),  # one task has all the weight
            case(weights, ONE, torch.tensor([[0.0, 1.0], [1.0, 0.0]])),  # a right angle: nothing
            case(weights, ONE, AWAY),  # no positive cosine
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
            ("I get nan", "Where no cosine is positive you divide zero by zero. By the rule all weigh the same then."),
            (
                "I get zeros where no task is near",
                "By the rule all weigh the same where no cosine is positive: their sum is one there, too.",
            ),
        ),
        wrong=WEIGHTS_WRONG,
        pace=(torch.linspace(-1, 1, 8), torch.linspace(-9, 9, 80_000).sin().view(10_000, 8)),
        start="First the cosine of the unseen descriptor with each row of seen, a tensor (N,). What do negative ones "
        "become?",
        skeleton=(
            "def weights(unseen, seen):\n"
            "    cosines = ...  # (N,), none below zero\n"
            "    if (cosines == 0).all():\n"
            "        return ...\n"
            "    return ..."
        ),
    ),
    Exercise(
        name="fuse",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=fuse,
        checks=(
            case(fuse, BASE, REMAINDERS, torch.tensor([0.5, 0.3, 0.2])),
            case(fuse, BASE, REMAINDERS[:1], torch.ones(1)),  # one task alone: its expert
            case(fuse, BASE, REMAINDERS, torch.tensor([0.5, 0.0, 0.0])),
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
            (
                "I fuse the remainders, not what they are added to",
                "Here the base is multiplied by the sum of the weights. It counts once, whatever they sum to.",
            ),
            ("The base has changed", "x += ... writes into the tensor that you were given. x + ... makes a new one."),
        ),
        wrong=FUSE_WRONG,
        start="One tensor first: to the base's w add the first remainder's w, times the first weight. Then all "
        "remainders, then all names.",
        skeleton=(
            "def fuse(base, remainders, weights):\n"
            "    fused = {}\n"
            "    for name, x in base.items():\n"
            "        step = ...  # over all remainders, each by its weight\n"
            "        fused[name] = ...\n"
            "    return fused"
        ),
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
            case(told_apart, 0.504 + SHARED + OWN, 0.5 + SHARED),
            case(told_apart, 0.502 + SHARED + OWN, 0.5 + SHARED),
            case(told_apart, 0.5 + SHARED + 1.8 * BELL.std() + BELL, 0.5 + SHARED),  # of 95 %, not of 90 %
            case(told_apart, 0.5 + SHARED, 0.5 + SHARED + 2.2 * BELL.std() + BELL),  # 95 % of the draws, not all
        ),
        hints=(
            (
                "I compare two intervals",
                "The two rows answer the same images, so their draws go up and down together. Subtract draw by draw, "
                "then take one interval of the differences.",
            ),
            (
                "I sort each row by itself",
                "Sorting each row tears apart what belongs to one draw. Subtract draw by draw first.",
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
        pace=(torch.linspace(0, 1, 40_000), torch.linspace(1, 0, 40_000)),
        start="What is the difference of the two rows in one draw? Take it in all draws. Where do 95 % of these "
        "differences lie?",
        skeleton=(
            "def told_apart(ours, other):\n"
            "    difference = ...  # (draws,)\n"
            "    low, high = ...  # 2.5 % of the draws lie below, 2.5 % above\n"
            "    if ...:\n"
            '        return "better"\n'
            "    if ...:\n"
            '        return "worse"\n'
            '    return "not told apart"'
        ),
    ),
)
