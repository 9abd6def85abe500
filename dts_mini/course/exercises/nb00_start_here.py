"""The exercises of notebook 00: a head from prompts, and how sure an accuracy and a difference of two are."""

import torch
from torch.nn import functional as F

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "00_start_here"


def head_of(text: torch.Tensor) -> torch.Tensor:
    """Prompt embeddings (classes, prompts, d) -> head (classes, d) of unit rows."""
    unit = F.normalize(text, dim=-1)
    return F.normalize(unit.mean(1), dim=-1)


HEAD_WRONG = {
    "The longer prompt wins": lambda text: F.normalize(text.mean(1), dim=-1),
    "My rows are shorter than one": lambda text: F.normalize(text, dim=-1).mean(1),
    "My head has a row for each prompt": lambda text: F.normalize(F.normalize(text, dim=-1).mean(0), dim=-1),
    "My whole head has length one, not each row": lambda text: F.normalize(F.normalize(text, dim=-1).mean(1), dim=None),
}


def length_of_a_prompt_does_not_count(candidate):
    text = torch.linspace(-1, 1, 24).view(2, 3, 4)
    longer = text * torch.tensor([1.0, 5.0, 0.1])[:, None]
    if not torch.allclose(candidate(text), candidate(longer), atol=1e-5):
        raise Wrong("expected the same head when a prompt's vector is made longer, got another")


def half_width(p: float, n: int) -> float:
    """Half the width of the 95 % interval of an accuracy p in [0, 1] on n images."""
    return 1.96 * (p * (1 - p) / n) ** 0.5


WIDTH_WRONG = {
    "My half-width is far too small, the more so the more images": lambda p, n: 1.96 * (p * (1 - p)) ** 0.5 / n,
    "My half-width is about half of what is expected": lambda p, n: (p * (1 - p) / n) ** 0.5,
    "My half-width is twice what is expected": lambda p, n: 2 * 1.96 * (p * (1 - p) / n) ** 0.5,
    "My half-width does not depend on p": lambda p, n: 1.96 * (0.25 / n) ** 0.5,
}


def four_times_the_images_halve_it(candidate):
    small, large = float(candidate(0.7, 50)), float(candidate(0.7, 200))
    if abs(small / 2 - large) > 1e-4:
        raise Wrong(f"expected four times the images to halve {small:.4f}, got {large:.4f}")


def paired_half_width(first: torch.Tensor, second: torch.Tensor) -> float:
    """Half the width of the 95 % interval of the difference of two accuracies; both (n,) bool: which were right."""
    d = first.float() - second.float()
    return 1.96 * ((d.square().mean() - d.mean().square()) / len(d)).sqrt().item()


def _variance(right):
    p = right.float().mean().item()
    return p * (1 - p) / len(right)


def _spread(d):
    return ((d.square().mean() - d.mean().square()) / len(d)).clamp(min=0).sqrt().item()


PAIRED_WRONG = {
    "It makes no difference to mine which images were right": lambda first, second: (
        1.96 * (_variance(first) + _variance(second)) ** 0.5
    ),
    "My half-width is the sum of two half-widths": lambda first, second: (
        1.96 * (_variance(first) ** 0.5 + _variance(second) ** 0.5)
    ),
    "Mine is the same when the two never agree": lambda first, second: (
        1.96 * _spread((first != second).float())  # the sign of d is lost
    ),
    "I left out the mean of d": lambda first, second: (
        1.96 * ((first != second).float().mean() / len(first)).sqrt().item()
    ),
    "My result is about half of what is expected": lambda first, second: _spread(first.float() - second.float()),
}


def the_order_does_not_count(candidate):
    first, second = torch.arange(12) % 3 == 0, torch.arange(12) % 4 == 0
    one, other = float(candidate(first, second)), float(candidate(second, first))
    if abs(one - other) > 1e-5:
        raise Wrong(f"expected the same half-width when the two change places, got {one:.4f} and {other:.4f}")


EXERCISES = (
    Exercise(
        name="head_of",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=head_of,
        checks=(
            case(head_of, torch.tensor([[[4.0, 0], [0, 1]], [[0, 2], [0, 3]], [[-1, 0], [-3, -3]]])),
            case(head_of, torch.tensor([[[3.0, 4.0]]])),  # one class, one prompt
            length_of_a_prompt_does_not_count,
        ),
        hints=(
            (
                "My head has a row for each prompt",
                "Average over the prompts, the second dimension. One row for each class is left.",
            ),
            (
                "The longer prompt wins",
                "You averaged before you normalised. Make each prompt a unit vector first: F.normalize(..., dim=-1).",
            ),
            (
                "My rows are shorter than one",
                "The mean of unit vectors is shorter than they are. Normalise once more at the end.",
            ),
            (
                "My whole head has length one, not each row",
                "Normalise along the last dimension: dim=-1. Each class gets its own length.",
            ),
        ),
        wrong=HEAD_WRONG,
        start="Two things happen, in this order: each prompt becomes a unit vector, then the prompts of a class become "
        "one vector. Which dimension holds the prompts, and which the numbers of a vector?",
        skeleton="""def head_of(text):
    unit = F.normalize(text, dim=...)  # (classes, prompts, d): each prompt has length one
    mean = unit.mean(...)  # (classes, d)
    return ...  # each row has length one again""",
        pace=(torch.linspace(-1, 1, 40 * 50 * 8).view(40, 50, 8),),
    ),
    Exercise(
        name="half_width",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=half_width,
        checks=(
            case(half_width, 0.9, 400),
            case(half_width, 1.0, 50),  # all right: nothing varies
            case(half_width, 0.5, 1),
            four_times_the_images_halve_it,
        ),
        hints=(
            (
                "My half-width is far too small, the more so the more images",
                "You divided by n after you took the root. The n belongs under it.",
            ),
            (
                "My half-width is about half of what is expected",
                "This is one standard error. A 95 % interval reaches 1.96 of them to each side.",
            ),
            ("My half-width is twice what is expected", "This is the whole width. Return the reach to one side."),
            (
                "My half-width does not depend on p",
                "You took the worst case, p = 0.5. Use p (1 - p): it is zero where every image is right.",
            ),
        ),
        wrong=WIDTH_WRONG,
        start="The formula of the standard error stands above. Write it down, then ask how many of them an interval "
        "reaches to one side.",
        skeleton="""def half_width(p, n):
    standard_error = (... / n) ** 0.5
    return ... * standard_error""",
    ),
    Exercise(
        name="paired_half_width",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=6,
        reference=paired_half_width,
        checks=(
            case(paired_half_width, torch.arange(20) < 15, torch.arange(20) < 9),
            case(paired_half_width, torch.arange(10) < 6, torch.arange(10) >= 6),  # they never agree
            case(paired_half_width, torch.arange(8) < 5, torch.arange(8) < 5),  # they always agree
            the_order_does_not_count,
        ),
        hints=(
            (
                "It makes no difference to mine which images were right",
                "You treated the two as measured on different images. Subtract image by image first, then take means.",
            ),
            (
                "My half-width is the sum of two half-widths",
                "Errors do not simply add up, and these two are not independent. Begin with one d for each image.",
            ),
            (
                "Mine is the same when the two never agree",
                "d has a sign: only the first right is 1, only the second right is -1. `first != second` forgets it.",
            ),
            (
                "I left out the mean of d",
                "Under the root stands a variance: the mean of the squares less the square of the mean.",
            ),
            (
                "My result is about half of what is expected",
                "This is one standard error. A 95 % interval reaches 1.96 of them to each side.",
            ),
        ),
        wrong=PAIRED_WRONG,
        start="Make the numbers d first: from two tensors of True and False one of 1, 0 and -1. Torch does not "
        "subtract True from False, so turn both into numbers before.",
        skeleton="""def paired_half_width(first, second):
    d = ...  # (n,): 1, 0 or -1
    variance = ... - d.mean() ** 2
    return 1.96 * (...) ** 0.5""",
        pace=(torch.arange(20_000) % 3 == 0, torch.arange(20_000) % 4 == 0),
    ),
)
