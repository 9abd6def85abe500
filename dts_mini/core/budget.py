"""Budgets: bytes asked for, what each byte buys, and the largest choice that fits."""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from torch import Tensor

from dts_mini.core.errors import BudgetError, DTSError


def in_bytes(budget: int | str, model: int) -> int:
    """A budget in bytes: a whole number of them, or a share of the float32 expert's ``model`` bytes, as in "1%"."""
    if isinstance(budget, str) and (share := re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", budget)):
        found = math.floor(float(share[1]) / 100 * model + 1e-9)
    elif isinstance(budget, int) and not isinstance(budget, bool):
        found = budget
    else:
        raise DTSError(f"budget is {budget!r}: give bytes as a whole number, or a share of the expert, as in '1%'")
    if found <= 0:
        raise DTSError(f"budget is {budget!r}: it must be more than nothing")
    return found


def water_fill(values: Mapping[str, Tensor], costs: Mapping[str, float]) -> list[str]:
    """The order in which matrices are given components beyond their first: by what each byte buys, most first.

    ``values``: what each component of a matrix adds (r), falling; ``costs``: bytes of one component of that matrix.
    A prefix of this order is the best choice of all that cost as much: within a matrix components cost alike and
    come by falling value, so that no other set of the same cost has a larger sum (the greedy bound of the
    fractional knapsack, Dantzig 1957). Between two prefixes at most one component's bytes are lost.
    """
    offers = [
        (-value / costs[name], name, number)
        for name in sorted(values)
        for number, value in enumerate(values[name].tolist())
        if number
    ]
    return [name for _, name, _ in sorted(offers)]


def fit(
    size: Callable[[int], int],
    budget: int,
    most: int,
    guess: int,
    estimate: Callable[[int], float] = lambda number: number + 1.0,
) -> int:
    """The largest number in 0..most whose ``size`` in bytes is within the budget, looked for around ``guess``.

    ``size`` grows with the number, so that a larger budget never gives a smaller one; so does ``estimate``, which is
    cheap and to which sizes are about proportional. DTSError where not even ``size(0)`` fits: it says the least
    possible budget.
    """
    sizes: dict[int, int] = {}
    low, high, number = -1, most + 1, min(max(guess, 0), most)  # size(low) fits, size(high) does not
    while high - low > 1:
        sizes[number] = size(number)
        low, high = (number, high) if sizes[number] <= budget else (low, number)
        if len(sizes) % 4:
            wish = _crossing(sizes, budget, number, estimate)
            number = max(low + 1, low + bisect_right(range(low + 1, high), wish, key=estimate))
        else:
            number = (low + high) // 2
    if low < 0:
        raise BudgetError(f"a budget of {budget:,} bytes is too small here: the least possible is {sizes[0]:,} bytes")
    return low


class Sized(Protocol):
    """What has a size in bytes: a delta."""

    def size(self) -> int: ...


Made = TypeVar("Made", bound=Sized)


def largest(
    make: Callable[[int], Made],
    budget: int,
    most: int,
    guess: int,
    estimate: Callable[[int], float] = lambda number: number + 1.0,
) -> Made:
    """``make(number)`` of the largest number in 0..most that has its size within the budget; errors as ``fit``."""
    fits: list[Made] = []  # the last one that fitted is the largest

    def size(number: int) -> int:
        made = make(number)
        if (found := made.size()) <= budget:
            fits[:] = [made]
        return found

    fit(size, budget, most, guess, estimate)
    return fits[0]


def _crossing(sizes: Mapping[int, int], budget: int, last: int, estimate: Callable[[int], float]) -> float:
    """The estimate at which sizes come to the budget, by a straight line through the last number and the one nearest
    to it; after one number alone, through nothing."""
    here = estimate(last)
    if len(sizes) == 1:
        return here * budget / max(sizes[last], 1)
    near = min((number for number in sizes if number != last), key=lambda number: abs(number - last))
    rise = sizes[last] - sizes[near]
    return here + (budget - sizes[last]) * (here - estimate(near)) / rise if rise else math.inf
