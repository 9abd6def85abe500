"""The exercises of notebook 04: the value of a group, the best value under weights, and bits from and to a rank."""

import math

import torch

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "04_scaling"


def group_value(x: torch.Tensor) -> torch.Tensor:
    """Elements (n,) of one sign -> their root mean square with that sign, one number."""
    return x.sign()[0] * x.square().mean().sqrt()


VALUE_WRONG = {
    "My value is too small in size": lambda x: x.mean(),
    "My value is positive": lambda x: x.square().mean().sqrt(),
    "My value grows with the size of the group": lambda x: x.sign()[0] * x.norm(),
    "My value is the square of what is expected": lambda x: x.sign()[0] * x.square().mean(),
}


def the_length_is_kept(candidate):
    for x in (torch.linspace(0.1, 2, 9), -torch.linspace(0.5, 3, 6)):
        length, kept = x.norm().item(), abs(float(candidate(x))) * len(x) ** 0.5
        if abs(length - kept) > 1e-3:
            raise Wrong(f"expected {len(x)} equal values as long as x, {length:.3f}, got {kept:.3f}")


def best_value(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Elements (n,) and their weights (n,), not negative -> the v that makes sum(weight * (x - v)^2) least."""
    return (weight * x).sum() / weight.sum()


BEST_WRONG = {
    "My value ignores the weights": lambda x, weight: x.mean(),
    "My value changes when all weights double": lambda x, weight: (weight * x).mean(),
    "My value is too large in size": lambda x, weight: (
        x.sign()[0] * ((weight * x.square()).sum() / weight.sum()).sqrt()
    ),
    "Heavy elements pull my value too far": lambda x, weight: (weight.square() * x).sum() / weight.square().sum(),
    "Elements of weight zero still count": lambda x, weight: (
        ((weight + (weight == 0)) * x).sum() / (weight + (weight == 0)).sum()
    ),
}


def no_value_is_better(candidate):
    x, weight = torch.linspace(0.2, 2, 10), torch.linspace(3, 0.5, 10)
    error = lambda v: (weight * (x - v).square()).sum().item()
    found = float(candidate(x, weight))
    for other in (found - 0.05, found + 0.05):
        if error(other) < error(found):
            raise Wrong(f"expected the value of least weighted error, got {found:.4g}: {other:.4g} has a smaller one")


def information_bits(m: int, n: int, r: int) -> int:
    """Bits of an (m, n) matrix at rank r with four groups: codes of both factors, singular values, scales."""
    codes = 2 * (m + n) * r
    values = 32 * r
    scales = 2 * 4 * 32
    return codes + values + scales


BITS_WRONG = {
    "I am a few hundred bits short": lambda m, n, r: 2 * (m + n) * r + 32 * r,
    "I am 128 bits short": lambda m, n, r: 2 * (m + n) * r + 32 * r + 4 * 32,
    "I am far above": lambda m, n, r: 2 * m * n + 32 * r + 2 * 4 * 32,
    "I am about half above": lambda m, n, r: 3 * (m + n) * r + 32 * r + 2 * 4 * 32,
    "I am short by 32 bits for each component": lambda m, n, r: 2 * (m + n) * r + 2 * 4 * 32,
}


def a_component_more(candidate):
    more = candidate(30, 20, 5) - candidate(30, 20, 4)
    if more != 2 * 50 + 32:
        raise Wrong(f"expected one component more of a 30 x 20 matrix to cost {2 * 50 + 32} bits, got {more}")


def rank_within_bits(m: int, n: int, bits: int) -> int:
    """The largest rank at which an (m, n) matrix takes at most ``bits`` of information; 0 when not even one fits."""
    room = bits - 2 * 4 * 32
    return max(0, min(room // (2 * (m + n) + 32), m, n))


RANK_WRONG = {
    "My rank fits only without the scales": lambda m, n, bits: max(0, min(bits // (2 * (m + n) + 32), m, n)),
    "My rank is one too high": lambda m, n, bits: max(0, min(math.ceil((bits - 256) / (2 * (m + n) + 32)), m, n)),
    "My rank is a fraction": lambda m, n, bits: max(0, min((bits - 256) / (2 * (m + n) + 32), m, n)),
    "My rank is larger than the matrix has components": lambda m, n, bits: max(0, (bits - 256) // (2 * (m + n) + 32)),
    "My rank is negative": lambda m, n, bits: min((bits - 256) // (2 * (m + n) + 32), m, n),
    "My rank is 1 where nothing fits": lambda m, n, bits: max(1, min((bits - 256) // (2 * (m + n) + 32), m, n)),
}


def it_fits_and_one_more_does_not(candidate):
    for bits in (1_000, 2_559, 5_000):
        rank = candidate(50, 30, bits)
        if not information_bits(50, 30, rank) <= bits < information_bits(50, 30, rank + 1):
            raise Wrong(f"expected the largest rank of a 50 x 30 matrix that fits into {bits} bits, got {rank}")


EXERCISES = (
    Exercise(
        name="group_value",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=group_value,
        checks=(
            case(group_value, torch.tensor([-0.3, -0.5, -0.2, -0.9])),
            case(group_value, torch.tensor([0.1, 0.2, 0.4])),
            case(group_value, torch.tensor([-2.0])),  # a group of one is its own value
            the_length_is_kept,
        ),
        hints=(
            ("My value is positive", "Squares forget the sign. Multiply by the sign of any element: x.sign()[0]."),
            (
                "My value is too small in size",
                "You took the mean. Square first, then take the mean, then the root.",
            ),
            (
                "My value grows with the size of the group",
                "You took the root of the sum of squares. Take the root of their mean.",
            ),
            ("My value is the square of what is expected", "The root is missing: .sqrt() after the mean."),
        ),
        wrong=VALUE_WRONG,
    ),
    Exercise(
        name="best_value",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=best_value,
        checks=(
            case(best_value, torch.tensor([-0.3, -0.5, -0.2, -0.9]), torch.tensor([1.0, 2.0, 4.0, 0.5])),
            case(best_value, torch.tensor([0.4, 0.6, 5.0]), torch.tensor([2.0, 1.0, 0.0])),
            case(best_value, torch.tensor([0.1, 0.2, 0.4]), torch.ones(3)),  # equal weights: the mean
            no_value_is_better,
        ),
        hints=(
            (
                "My value ignores the weights",
                "Try weights (1, 3): the value has to lie three times as near to the second element as to the first.",
            ),
            (
                "My value changes when all weights double",
                "Twice the weights make every error twice as large, so the best v stays. Divide by what makes it so.",
            ),
            (
                "My value is too large in size",
                "You kept a length. Here only the error counts: set the derivative with respect to v to zero.",
            ),
            (
                "Heavy elements pull my value too far",
                "In the sum each weight stands once, not squared. It stands once in the derivative too.",
            ),
            ("Elements of weight zero still count", "An element of weight zero adds nothing to the error, whatever v."),
        ),
        wrong=BEST_WRONG,
    ),
    Exercise(
        name="information_bits",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=information_bits,
        checks=(
            case(information_bits, 768, 192, 19),
            case(information_bits, 40, 60, 1),
            case(information_bits, 64, 64, 64),  # full rank: more codes than the matrix has elements
            a_component_more,
        ),
        hints=(
            (
                "I am far above",
                "The codes are those of U (m x r) and V (n x r), two bits each. Nothing of size m x n is stored.",
            ),
            ("I am about half above", "Two bits name four groups. Three bits a code is how the paper counts."),
            ("I am short by 32 bits for each component", "Each component has a singular value, a float of 32 bits."),
            ("I am a few hundred bits short", "Each factor has four scales of its own, 32 bits each."),
            (
                "I am 128 bits short",
                "There are two factors, U and V. Each is thresholded apart and has its own scales.",
            ),
        ),
        wrong=BITS_WRONG,
    ),
    Exercise(
        name="rank_within_bits",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=10,
        reference=rank_within_bits,
        checks=(
            case(rank_within_bits, 768, 192, 37_500),
            case(rank_within_bits, 768, 192, 37_343),  # a bit short of rank 19
            case(rank_within_bits, 768, 192, 37_344),  # and just enough
            case(rank_within_bits, 40, 60, 1_000_000),
            case(rank_within_bits, 30, 20, 100),  # less than the scales alone
            it_fits_and_one_more_does_not,
        ),
        hints=(
            (
                "My rank fits only without the scales",
                "The scales cost the same at every rank. Take them off first; what is left pays for components.",
            ),
            ("My rank is a fraction", "A component is there or not. Divide with //, which rounds down."),
            ("My rank is one too high", "Rounding up overdraws the budget. Round down."),
            (
                "My rank is larger than the matrix has components",
                "An m x n matrix has as many components as its smaller side. A large budget changes nothing there.",
            ),
            ("My rank is negative", "Where not even the scales fit, nothing is kept: the answer is 0."),
            ("My rank is 1 where nothing fits", "The floor of 1 belongs to the keep ratio. A budget may be too small."),
        ),
        wrong=RANK_WRONG,
    ),
)
