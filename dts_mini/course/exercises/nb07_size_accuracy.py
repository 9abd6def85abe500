"""The exercise of notebook 07: which points of a curve are beaten."""

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "07_size_accuracy"


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


def the_smallest_and_the_best_survive(candidate):
    found = list(candidate([4.0, 1.0, 2.0], [0.1, 0.9, 0.2]))
    if found:
        raise Wrong(f"expected no position where each point has something that no other has, got {found}")


EXERCISES = (
    Exercise(
        name="dominated",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=dominated,
        checks=(
            case(dominated, DOMINATED_WRONG, [1.0, 3.0, 2.0, 2.0, 4.0], [0.5, 0.2, 0.3, 0.4, 0.25]),
            case(dominated, DOMINATED_WRONG, [1.0, 1.0], [0.5, 0.5]),  # equal points: neither beats the other
            case(dominated, DOMINATED_WRONG, [1.0], [0.5]),  # a single point
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
    ),
)
