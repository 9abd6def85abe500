"""The exercises of notebook 03: four groups, the bits that codes need, ranks for the same bits, the best cut."""

import math

import torch

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "03_thresholding"


# --- codes_of ---


def codes_of(x: torch.Tensor) -> torch.Tensor:
    """Elements (n,) -> codes (n,), integers: 0 strong negative, 1, 2, 3 strong positive; 4 where x is exactly zero."""
    codes = torch.full(x.shape, 4)
    for sign, weak, strong in ((1, 2, 3), (-1, 1, 0)):
        place = torch.nonzero(sign * x > 0).flatten()
        largest_first = place[x[place].abs().argsort(descending=True, stable=True)]
        codes[largest_first] = weak
        codes[largest_first[: len(place) // 2]] = strong
    return codes


def _grouped(x, *, zeros=4, strong=lambda n: n // 2, order=lambda sizes: sizes.argsort(descending=True, stable=True)):
    codes = torch.full(x.shape, zeros)
    for sign, weak, name in ((1, 2, 3), (-1, 1, 0)):
        place = torch.nonzero(sign * x > 0).flatten()
        found = place[order(x[place].abs())]
        codes[found] = weak
        codes[found[: strong(len(place))]] = name
    return codes


def _one_median(x):
    size = x.abs()
    strong = size > size[size > 0].median()
    return torch.where(x > 0, torch.where(strong, 3, 2), torch.where(x < 0, torch.where(strong, 0, 1), 4))


def _zeros_are_positive(x):
    codes, place = codes_of(x), torch.nonzero(x >= 0).flatten()
    found = place[x[place].argsort(descending=True, stable=True)]
    codes[found] = 2
    codes[found[: len(place) // 2]] = 3
    return codes


def _negatives_by_value(x):
    codes = codes_of(x)
    place = torch.nonzero(x < 0).flatten()
    found = place[x[place].argsort(descending=True, stable=True)]
    codes[found] = 1
    codes[found[: len(place) // 2]] = 0
    return codes


def _ties_all_strong(x):
    codes = codes_of(x)
    for sign, name in ((1, 3), (-1, 0)):
        sizes = (sign * x)[sign * x > 0]
        if len(sizes) > 1:
            codes[sign * x >= sizes.sort(descending=True).values[len(sizes) // 2 - 1]] = name
    return codes


CODES_WRONG = {
    "One sign has far more strong elements than the other": _one_median,
    "My exact zeros have a code below 4": _zeros_are_positive,
    "Of three elements of one sign, two are strong": lambda x: _grouped(x, strong=lambda n: (n + 1) // 2),
    "My strong negative elements are the small ones": _negatives_by_value,
    "With equal elements, too many are strong": _ties_all_strong,
}
LOPSIDED = torch.tensor([0.9, 0.8, 0.7, -0.1, 0.6, -0.3, -0.2, -0.05])
ODD = torch.tensor([0.9, -0.1, 0.4, -0.7, 0.2, -0.5])
ZEROS = torch.tensor([0.0, 0.5, -0.2, 0.0, 0.3, -0.6, 0.0])
TIES = torch.tensor([0.5, 0.5, -0.3, 0.5, 0.5, -0.3])


def half_of_each_sign_is_strong(candidate):
    x = torch.randn(101, generator=torch.Generator().manual_seed(0)) + 0.3
    codes = candidate(x)
    for sign, code, name in ((1, 3, "positive"), (-1, 0, "negative")):
        wanted, got = int((sign * x > 0).sum()) // 2, int((codes == code).sum())
        if wanted != got:
            raise Wrong(f"expected {wanted} strong {name} elements of {int((sign * x > 0).sum())}, got {got}")


# --- entropy_bits ---


def entropy_bits(counts: list[int]) -> float:
    """How often each code occurs -> bits a code, on average, that an ideal code for them needs."""
    total = sum(counts)
    shares = [count / total for count in counts if count > 0]
    return -sum(p * math.log2(p) for p in shares)


def _entropy(counts, log=math.log2, sign=-1):
    total = sum(counts)
    return sign * sum(c / total * log(c / total) for c in counts if c)


ENTROPY_WRONG = {
    "My entropy is negative": lambda counts: _entropy(counts, sign=1),
    "My four equal codes need 1.386": lambda counts: _entropy(counts, log=math.log),
    "My entropy stays the same, however uneven the counts are": lambda counts: math.log2(len(counts)),
    "I get an error when a code never occurs": lambda counts: (
        -sum(c / sum(counts) * math.log2(c / sum(counts)) for c in counts)
    ),
    "My entropy is above what equal codes need": lambda counts: (
        -sum(math.log2(c / sum(counts)) for c in counts if c) / max(1, sum(1 for c in counts if c))
    ),
}


def no_code_needs_more_than_equal_shares(candidate):
    for counts in ([3, 1, 4, 1], [1, 2, 3, 4, 5, 6, 7, 8]):
        most, got = math.log2(len(counts)), candidate(counts)
        if not 0 < got < most:
            raise Wrong(f"expected between 0 and {most:g} bits for {len(counts)} codes, got {got:.4g}")


# --- same_bits_rank ---


def same_bits_rank(m: int, n: int, r: int, groups: int) -> int:
    """The largest rank at which an (m, n) matrix with 2, 4 or 8 groups takes no more bits than rank r with four."""
    budget = r * (2 * (m + n) + 32) + 2 * 4 * 32
    bits = groups.bit_length() - 1
    return min(m, n, (budget - 2 * groups * 32) // (bits * (m + n) + 32))


def _rank(m, n, r, groups, *, value=32, scales=32, up=False, most=None):
    budget = r * (2 * (m + n) + value) + 2 * 4 * scales - 2 * groups * scales
    each = (groups.bit_length() - 1) * (m + n) + value
    return min(most or min(m, n), -(-budget // each) if up else budget // each)


RANK_WRONG = {
    "With eight groups I halve the rank": lambda m, n, r, groups: min(m, n, 4 * r // groups),
    "I forget that a component has a singular value": lambda m, n, r, groups: _rank(m, n, r, groups, value=0),
    "I forget that more groups have more scales": lambda m, n, r, groups: _rank(m, n, r, groups, scales=0),
    "My rank takes more bits than there are": lambda m, n, r, groups: _rank(m, n, r, groups, up=True),
    "My rank is above min(m, n)": lambda m, n, r, groups: _rank(m, n, r, groups, most=10**9),
}


def no_more_bits_and_no_rank_left(candidate):
    bits = lambda m, n, r, groups: r * ((groups.bit_length() - 1) * (m + n) + 32) + 2 * groups * 32
    for m, n, r, groups in ((300, 200, 40, 8), (300, 200, 40, 2), (96, 96, 11, 8)):
        found, budget = int(candidate(m, n, r, groups)), bits(m, n, r, 4)
        if bits(m, n, found, groups) > budget:
            raise Wrong(f"expected at most {budget} bits, got {bits(m, n, found, groups)} at rank {found}")
        if bits(m, n, found + 1, groups) <= budget:
            raise Wrong(f"expected the largest rank, got {found}: one component more still fits")


# --- best_cut ---


def best_cut(sizes: torch.Tensor) -> int:
    """Sizes (n,) of one sign's elements, n > 1 -> how many, counted from the largest, to call strong.

    Strong and weak elements each become the mean of their group; the sum of squared errors is to be least.
    """
    x = sizes.double().sort(descending=True).values
    n, strong = len(x), torch.arange(1, len(x))
    sums = x.cumsum(0)
    explained = sums[:-1].square() / strong + (sums[-1] - sums[:-1]).square() / (n - strong)
    return int(explained.argmax()) + 1


def _losses(sizes, power=2, sums=True):
    """What each number of strong elements, from 1 to n - 1, loses."""
    x = sizes.double().sort(descending=True).values
    parts = [(x[:k], x[k:]) for k in range(1, len(x))]
    add = torch.sum if sums else torch.mean
    return torch.stack([sum(add((p - p.mean()).abs() ** power) for p in pair) for pair in parts])


def _widest_gap(sizes):
    x = sizes.double().sort(descending=True).values
    return int((x[:-1] - x[1:]).argmax()) + 1


CUT_WRONG = {
    "I always get half": lambda sizes: len(sizes) // 2,
    "I count the weak elements": lambda sizes: len(sizes) - best_cut(sizes),
    "I am one too low": lambda sizes: best_cut(sizes) - 1,
    "I cut at the mean size": lambda sizes: int((sizes > sizes.mean()).sum()),
    "I cut where the gap is widest": _widest_gap,
    "My two groups count the same, however small one is": lambda sizes: int(_losses(sizes, sums=False).argmin()) + 1,
}
FEW = torch.tensor([0.1, 0.4, 2.35, 1.5, 1.35, 1.4, 0.2, 3.3, 0.45, 2.05, 1.0])  # each mistake cuts elsewhere
TWO_HEAPS = torch.tensor([1.0, 5.0, 1.1, 1.2, 5.2, 0.9, 1.05])
TAIL = torch.linspace(0.02, 0.98, 25).erfinv()  # the positive half of a normal distribution, in even steps


def no_other_cut_loses_less(candidate):
    for sizes in (TAIL, FEW, torch.linspace(0.1, 3, 12) ** 3):
        found, losses = int(candidate(sizes)), _losses(sizes)
        if not 1 <= found < len(sizes):
            raise Wrong(f"expected between 1 and {len(sizes) - 1} strong elements, got {found}")
        if losses[found - 1] > losses.min() + 1e-9:
            raise Wrong(f"expected the squared error {losses.min():.4f}, got {losses[found - 1]:.4f}")


EXERCISES = (
    Exercise(
        name="codes_of",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=codes_of,
        checks=(
            case(codes_of, LOPSIDED),
            case(codes_of, ODD),
            case(codes_of, ZEROS),
            case(codes_of, TIES),
            case(codes_of, torch.tensor([-0.4])),  # half of one, rounded down, is none
            half_of_each_sign_is_strong,
        ),
        hints=(
            (
                "One sign has far more strong elements than the other",
                "You compare all sizes with one median. Each sign is halved by itself: take its elements apart first.",
            ),
            (
                "Of three elements of one sign, two are strong",
                "Half is rounded down: a group of three has one strong element. Whole-number division does it.",
            ),
            (
                "My strong negative elements are the small ones",
                "Strong means large in size. Sort negative elements by their size, not by their value.",
            ),
            (
                "My exact zeros have a code below 4",
                "A zero is neither positive nor negative. "
                "It has the code 4, and it does not count when a sign is halved.",
            ),
            (
                "With equal elements, too many are strong",
                "A comparison with a limit takes all equal elements or none. Sort stably and take the first half.",
            ),
        ),
        wrong=CODES_WRONG,
    ),
    Exercise(
        name="entropy_bits",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=entropy_bits,
        checks=(
            case(entropy_bits, [5, 5, 5, 5]),
            case(entropy_bits, [40, 10, 10, 40]),
            case(entropy_bits, [3, 0, 1, 0]),
            no_code_needs_more_than_equal_shares,
        ),
        hints=(
            ("My entropy is negative", "The logarithm of a share below one is negative. Turn the sign of the sum."),
            ("My four equal codes need 1.386", "That is in nats: you took the natural logarithm. Bits need base two."),
            (
                "My entropy stays the same, however uneven the counts are",
                "Use the share of each code: a code that is rare adds little.",
            ),
            (
                "I get an error when a code never occurs",
                "Zero has no logarithm. A code that never occurs adds nothing to the sum: leave it out.",
            ),
            (
                "My entropy is above what equal codes need",
                "You averaged over the codes. Weigh the logarithm of each share with the share itself.",
            ),
        ),
        wrong=ENTROPY_WRONG,
    ),
    Exercise(
        name="same_bits_rank",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=same_bits_rank,
        checks=(
            case(same_bits_rank, 768, 192, 19, 8),
            case(same_bits_rank, 64, 32, 13, 8),
            case(same_bits_rank, 64, 32, 13, 2),
            case(same_bits_rank, 100, 100, 30, 4),  # four groups again: nothing changes
            case(same_bits_rank, 192, 192, 150, 2),  # more bits than there are components for
            no_more_bits_and_no_rank_left,
        ),
        hints=(
            (
                "With eight groups I halve the rank",
                "You traded groups against groups. Trade bits: a code of eight groups takes three bits, not four.",
            ),
            (
                "I forget that a component has a singular value",
                "A component costs its codes and one singular value of 32 bits, whatever the number of groups.",
            ),
            (
                "I forget that more groups have more scales",
                "Each of the two factors has a scale of 32 bits for every group. Take them off the budget first.",
            ),
            ("My rank takes more bits than there are", "Round down: a component that fits only in part does not fit."),
            ("My rank is above min(m, n)", "A matrix has no more than min(m, n) components. Bits may be left over."),
        ),
        wrong=RANK_WRONG,
    ),
    Exercise(
        name="best_cut",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=15,
        reference=best_cut,
        checks=(
            case(best_cut, FEW),
            case(best_cut, TWO_HEAPS),
            case(best_cut, TAIL),
            case(best_cut, torch.tensor([0.3, 0.8])),
            no_other_cut_loses_less,
        ),
        hints=(
            (
                "I always get half",
                "That is the paper's cut. Try every number of strong elements and see which one loses least.",
            ),
            (
                "I cut at the mean size",
                "The mean is a fair guess, but nothing makes it the best one. Compare all cuts.",
            ),
            (
                "I cut where the gap is widest",
                "A wide gap near the largest element splits off one element. What counts is the error of both groups.",
            ),
            (
                "My two groups count the same, however small one is",
                "Add the squared errors of all elements. A mean over each group gives a tiny group too much weight.",
            ),
            ("I count the weak elements", "Return how many are strong: count from the largest."),
            ("I am one too low", "The first entry of your list of losses belongs to one strong element, not to none."),
        ),
        wrong=CUT_WRONG,
    ),
)
