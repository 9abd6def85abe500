"""The exercises of notebook 03: how much shorter a remainder is over the average, and the weights of fusion."""

import torch

from dts_mini.core.personal import fusion_weights
from dts_mini.course.exercise import Exercise, Wrong, case, difference

NOTEBOOK = "05_personalised_merging"


def remaining_length(n: int, cosine: float) -> float:
    """Length of a task vector minus the mean of all n, as a share of its own; any two have this cosine."""
    return ((1 - 1 / n) * (1 - cosine)) ** 0.5


LENGTH_WRONG = {
    "I get the square of what is expected": lambda n, cosine: (1 - 1 / n) * (1 - cosine),
    "With one task I do not get zero": lambda n, cosine: (1 - cosine) ** 0.5,
    "My length does not depend on the cosine": lambda n, cosine: (1 - 1 / n) ** 0.5,
    "I get more than one": lambda n, cosine: (2 * (1 - cosine)) ** 0.5,
}


def real_vectors_agree(candidate):
    vectors = torch.eye(6) + 0.2
    cosine = torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0).item()
    wanted = ((vectors[0] - vectors.mean(0)).norm() / vectors[0].norm()).item()
    if problem := difference(candidate(6, cosine), wanted):
        raise Wrong(f"measured on six made-up vectors: {problem}")


def my_weights(unseen: torch.Tensor, seen_ones: torch.Tensor) -> torch.Tensor:
    """Descriptors unseen (d,) and seen_ones (N, d) -> weights (N,): cosines, negative ones as zero, with the sum one."""
    cosines = (seen_ones @ unseen / (seen_ones.norm(dim=1) * unseen.norm())).clamp(min=0)
    return cosines / cosines.sum()


def _cosines(unseen, seen):
    return torch.nn.functional.cosine_similarity(unseen[None], seen)


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


EXERCISES = (
    Exercise(
        name="remaining_length",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=7,
        reference=remaining_length,
        checks=(
            case(remaining_length, LENGTH_WRONG, 4, 0.1),
            case(remaining_length, LENGTH_WRONG, 1, 0.3),  # the only vector is the mean
            case(remaining_length, LENGTH_WRONG, 5, 1.0),  # all the same: nothing is left
            real_vectors_agree,
        ),
        hints=(
            (
                "I do not know where to start",
                "Let all have length one. Write the squared length of the difference as products: of the vector with "
                "itself, of the vector with the mean, of the mean with itself.",
            ),
            (
                "My length does not depend on the cosine",
                "Vectors that lean towards each other have more in common with their mean. The product of a vector "
                "with the mean is (1 + (n - 1) cosine) / n.",
            ),
            (
                "With one task I do not get zero",
                "The mean holds 1/n of the vector itself. With one task it is the vector.",
            ),
            ("I get more than one", "This is the distance of two task vectors. The mean lies nearer than another one."),
            ("I get the square of what is expected", "That is the share of the energy. Take the root."),
        ),
        wrong=LENGTH_WRONG,
    ),
    Exercise(
        name="my_weights",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=my_weights,
        checks=(
            case(my_weights, WEIGHTS_WRONG, ONE, MANY),
            case(my_weights, WEIGHTS_WRONG, 3 * ONE, torch.tensor([[0.5, 0.5]])),  # one task has all the weight
            case(my_weights, WEIGHTS_WRONG, ONE, torch.tensor([[0.0, 1.0], [1.0, 0.0]])),  # a right angle: nothing
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
)
