"""The exercises of notebook 02: the value of a group, and the bits of a matrix."""

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


EXERCISES = (
    Exercise(
        name="group_value",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=group_value,
        checks=(
            case(group_value, VALUE_WRONG, torch.tensor([-0.3, -0.5, -0.2, -0.9])),
            case(group_value, VALUE_WRONG, torch.tensor([0.1, 0.2, 0.4])),
            case(group_value, VALUE_WRONG, torch.tensor([-2.0])),  # a group of one is its own value
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
        name="information_bits",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=10,
        reference=information_bits,
        checks=(
            case(information_bits, BITS_WRONG, 768, 192, 19),
            case(information_bits, BITS_WRONG, 40, 60, 1),
            case(information_bits, BITS_WRONG, 64, 64, 64),  # full rank: more codes than the matrix has elements
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
)
