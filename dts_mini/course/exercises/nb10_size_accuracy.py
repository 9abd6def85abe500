"""The exercises of notebook 10: which points of a curve are beaten, a budget shared out, and how low a code can go."""

import math

from dts_mini.course.exercise import Exercise, Wrong, case, difference

NOTEBOOK = "10_size_accuracy"


def dominated(sizes: list[float], errors: list[float]) -> list[int]:
    """Positions of the points that another point beats: neither larger nor worse, and better in at least one."""
    points = list(zip(sizes, errors, strict=True))
    beats = lambda a, b: a != b and a[0] <= b[0] and a[1] <= b[1]
    return [i for i, point in enumerate(points) if any(beats(other, point) for other in points)]


def _where(sizes, errors, beats):
    points = list(zip(sizes, errors, strict=True))
    return [i for i, point in enumerate(points) if any(beats(other, point) for other in points)]


DOMINATED_WRONG = {
    "Every point is beaten in mine, even a single one": lambda s, e: _where(
        s, e, lambda a, b: a[0] <= b[0] and a[1] <= b[1]
    ),
    "A point of the same size but a larger error survives": lambda s, e: _where(
        s, e, lambda a, b: a[0] < b[0] and a[1] < b[1]
    ),
    "I get the points that nobody beats": lambda s, e: [i for i in range(len(s)) if i not in dominated(s, e)],
    "Mine looks at the error alone": lambda s, e: _where(s, e, lambda a, b: a[1] < b[1]),
    "A point survives when its neighbours are no better": lambda s, e: [
        i for i in range(1, len(s)) if s[i - 1] <= s[i] and e[i - 1] <= e[i] and (s[i - 1], e[i - 1]) != (s[i], e[i])
    ],
}


def beaten(*points: list[float]):
    """A check: these sizes and errors, the positions in any order."""

    def run(candidate):
        found = candidate(*points)
        if isinstance(found, list | tuple) and all(isinstance(i, int) for i in found):
            found = sorted(found)
        if problem := difference(found, dominated(*points)):
            raise Wrong(problem)
        if difference(candidate.after, points):
            raise Wrong("expected the inputs to stay as they are, got changed ones")

    return run


def the_smallest_and_the_best_survive(candidate):
    found = list(candidate([4.0, 1.0, 2.0], [0.1, 0.9, 0.2]))
    if found:
        raise Wrong(f"expected no position where each point has something that no other has, got {found}")


def share_out(values: list[list[float]], costs: list[float], budget: float) -> list[int]:
    """Components given to each matrix: one after another by value per byte, until the next one no longer fits.

    ``values``: what each component of a matrix buys, falling. ``costs``: the bytes of one component of each matrix.
    """
    offers = sorted((-value / costs[i], i) for i, own in enumerate(values) for value in own)
    ranks = [0] * len(values)
    for _, i in offers:
        if costs[i] > budget:
            break
        budget -= costs[i]
        ranks[i] += 1
    return ranks


def _shared(values, costs, budget, price=lambda value, cost: value / cost, late=False, on=False, less=False):
    offers = sorted((-price(value, costs[i]), i) for i, own in enumerate(values) for value in own)
    ranks = [0] * len(values)
    for _, i in offers:
        if not late and (costs[i] > budget or (less and costs[i] == budget)):
            if on:
                continue
            break
        budget -= costs[i]
        ranks[i] += 1
        if late and budget <= 0:
            break
    return ranks


def _in_turn(values, costs, budget):
    ranks = [0] * len(values)
    for rank in range(max(map(len, values))):
        for i, own in enumerate(values):
            if rank < len(own) and costs[i] <= budget:
                budget -= costs[i]
                ranks[i] += 1
    return ranks


SHARE_WRONG = {
    "I look at the value alone": lambda v, c, b: _shared(v, c, b, price=lambda value, cost: value),
    "I give the cheapest first": lambda v, c, b: _shared(v, c, b, price=lambda value, cost: -cost),
    "Mine overshoots the budget": lambda v, c, b: _shared(v, c, b, late=True),
    "Mine goes on with cheaper ones": lambda v, c, b: _shared(v, c, b, on=True),
    "One that just fits is left out": lambda v, c, b: _shared(v, c, b, less=True),
    "All matrices get alike in mine": _in_turn,
}


def the_budget_is_kept(candidate):
    ranks = candidate([[9.0, 4.0, 1.0], [8.0, 2.0]], [3.0, 5.0], 10.0)
    spent = sum(rank * cost for rank, cost in zip(ranks, (3.0, 5.0), strict=True))
    if spent > 10:
        raise Wrong(f"expected at most 10 bytes, but the ranks {list(ranks)} take {spent:g}")


def water_level(variances: list[float], level: float) -> tuple[float, float]:
    """Bits and squared error of the best code of independent Gaussian numbers, all with the error ``level`` at most."""
    rate = sum(math.log2(variance / level) / 2 for variance in variances if variance > level)
    return rate, sum(min(variance, level) for variance in variances)


def _level(variances, level, half=0.5, floor=True, error=min, root=False, log=math.log2):
    ratio = lambda variance: math.sqrt(variance / level) if root else variance / level
    rates = [half * log(ratio(variance)) for variance in variances]
    return sum(max(rate, 0.0) if floor else rate for rate in rates), sum(error(v, level) for v in variances)


LEVEL_WRONG = {
    "My bits are twice as many": lambda v, level: _level(v, level, half=1.0),
    "My bits can be negative": lambda v, level: _level(v, level, floor=False),
    "All my errors are the level": lambda v, level: _level(v, level, error=lambda variance, level: level),
    "I took standard deviations": lambda v, level: _level(v, level, root=True),
    "My bits are too few by a third": lambda v, level: _level(v, level, log=math.log),
    "My errors and bits change places": lambda v, level: water_level(v, level)[::-1],
}


def above_all_variances_nothing_is_coded(candidate):
    rate, error = candidate([1.0, 0.5], 2.0)
    if abs(rate) > 1e-9 or abs(error - 1.5) > 1e-9:
        raise Wrong(f"expected no bits and an error of 1.5 when the level is above all variances, got {rate}, {error}")


EXERCISES = (
    Exercise(
        name="dominated",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=dominated,
        checks=(
            beaten([1.0, 3.0, 2.0, 2.0, 4.0], [0.5, 0.2, 0.3, 0.4, 0.25]),
            beaten([1.0, 1.0], [0.5, 0.5]),  # equal points: neither beats the other
            beaten([1.0], [0.5]),  # a single point
            beaten([2.0, 1.0], [0.5, 0.5]),  # as good, and larger
            the_smallest_and_the_best_survive,
        ),
        hints=(
            (
                "I get the points that nobody beats",
                "You return the good ones. The question is for the positions of those that are beaten.",
            ),
            (
                "Mine looks at the error alone",
                "A point with a larger error may still be the smallest. It is beaten only by one that is no larger.",
            ),
            (
                "Every point is beaten in mine, even a single one",
                "A point is neither larger nor worse than itself. Ask in addition that one of the two is better.",
            ),
            (
                "A point of the same size but a larger error survives",
                "You ask to be better in both. It is enough to be better in one and no worse in the other.",
            ),
            (
                "A point survives when its neighbours are no better",
                "The points come in no order. Compare each one with all others.",
            ),
        ),
        wrong=DOMINATED_WRONG,
        start="Take two points by hand. When does the first beat the second? Write that as one condition on two pairs.",
        skeleton="""def dominated(sizes, errors):
    points = list(zip(sizes, errors, strict=True))
    beats = lambda a, b: ...
    return [i for i, point in enumerate(points) if any(beats(other, point) for other in points)]""",
    ),
    Exercise(
        name="share_out",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=10,
        reference=share_out,
        checks=(
            case(share_out, [[9.0, 9.0, 8.0], [8.0, 7.0, 1.0]], [3.0, 2.0], 8.0),
            case(share_out, [[2.0, 1.0]], [3.0], 2.0),  # not even one fits
            case(share_out, [[8.0, 7.0], [3.0, 1.0]], [4.0, 2.0], 7.0),  # the next does not fit, a cheaper one would
            case(share_out, [[2.0, 1.0]], [3.0], 6.0),  # both fit, to the byte
            case(share_out, [[9.0, 7.0, 2.0], [8.0, 4.0]], [1.0, 3.0], 4.0),  # a large one buys more, not by the byte
            the_budget_is_kept,
        ),
        hints=(
            (
                "I look at the value alone",
                "A component of a large matrix costs more bytes. Divide its value by its cost.",
            ),
            ("I give the cheapest first", "A cheap component may buy next to nothing. Divide the value by the cost."),
            ("Mine overshoots the budget", "Look whether the next component still fits before you give it."),
            (
                "Mine goes on with cheaper ones",
                "That is another rule, and it spends a few bytes more. Here you stop at the first that does not fit: "
                "the text's argument, that nothing of the same cost is better, holds at this point.",
            ),
            (
                "One that just fits is left out",
                "A component whose cost is just what is left fits: stop where cost > left.",
            ),
            (
                "All matrices get alike in mine",
                "That is one keep ratio for all. Put all components of all matrices into one list, and sort that.",
            ),
        ),
        wrong=SHARE_WRONG,
        start="Make one list of all components of all matrices: what a byte of each buys, and whose it is. Sort it.",
        skeleton="""def share_out(values, costs, budget):
    offers = sorted(...)  # the best first
    ranks = [0] * len(values)
    for _, i in offers:
        if ...:
            break
        ...
    return ...""",
    ),
    Exercise(
        name="water_level",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=10,
        reference=water_level,
        checks=(
            case(water_level, [4.0, 1.0, 0.1], 0.5),
            case(water_level, [2.0, 2.0], 0.25),
            above_all_variances_nothing_is_coded,
        ),
        hints=(
            (
                "My bits are twice as many",
                "A bit halves the standard deviation of the error, so its variance falls by four.",
            ),
            ("My bits are too few by a third", "A bit is a logarithm to the base 2: math.log2, not math.log."),
            ("My bits can be negative", "Below the level a number gets no bits at all. Never fewer."),
            (
                "All my errors are the level",
                "A number whose variance is below the level is not coded. Then its error is its own variance.",
            ),
            ("I took standard deviations", "Compare variances with the level: both are squares."),
            ("My errors and bits change places", "Return the bits first, then the squared error."),
        ),
        wrong=LEVEL_WRONG,
        start="Take one number. Is its variance above the level? Write down its bits and its error in both cases.",
        skeleton="""def water_level(variances, level):
    bits = error = 0.0
    for variance in variances:
        if variance > level:
            bits += ...
            error += ...
        else:
            error += ...
    return bits, error""",
    ),
)
