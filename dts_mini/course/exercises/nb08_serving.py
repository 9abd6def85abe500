"""The exercise of notebook 08: an expert's layer without its matrix."""

import torch

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "08_serving"


def low_rank_forward(
    x: torch.Tensor, w: torch.Tensor, u: torch.Tensor, s: torch.Tensor, vh: torch.Tensor
) -> torch.Tensor:
    """x (tokens, n), W (m, n), U (m, r), s (r), V^T (r, n) -> (tokens, m): W x + U (s * (V^T x)) for each token."""
    return x @ w.T + (x @ vh.T * s) @ u.T


FORWARD_WRONG = {
    "My result does not depend on s": lambda x, w, u, s, vh: x @ w.T + (x @ vh.T) @ u.T,
    "My result is the remainder alone": lambda x, w, u, s, vh: (x @ vh.T * s) @ u.T,
    "I have mixed up W and its transpose": lambda x, w, u, s, vh: x @ w + (x @ vh.T * s) @ u.T,
    "The singular values count twice": lambda x, w, u, s, vh: x @ w.T + (x @ vh.T * s.square()) @ u.T,
    "My rows and columns have changed places": lambda x, w, u, s, vh: (x @ w.T + (x @ vh.T * s) @ u.T).T,
}
SQUARE = (
    torch.tensor([[1.0, 2.0], [0.5, -1.0]]),
    torch.tensor([[0.0, 1.0], [-2.0, 3.0]]),
    torch.tensor([[0.6], [0.8]]),
    torch.tensor([3.0]),
    torch.tensor([[1.0, 0.0]]),
)
TALL = (
    torch.linspace(-1, 1, 12).view(4, 3),
    torch.linspace(0, 2, 15).view(5, 3),
    torch.linspace(-1, 0.5, 10).view(5, 2),
    torch.tensor([2.0, 0.5]),
    torch.linspace(1, -1, 6).view(2, 3),
)


def without_a_remainder_it_is_the_plain_layer(candidate):
    x, w, u, s, vh = TALL
    if not torch.allclose(candidate(x, w, u, torch.zeros_like(s), vh), x @ w.T, atol=1e-5):
        raise Wrong("expected W x when all singular values are zero, got something else")


def a_token_is_served_alike_alone_and_in_a_batch(candidate):
    x, *rest = TALL
    if not torch.allclose(candidate(x[:1], *rest), candidate(x, *rest)[:1], atol=1e-5):
        raise Wrong("expected the same answer for a token alone and in a batch, got another")


EXERCISES = (
    Exercise(
        name="low_rank_forward",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=low_rank_forward,
        checks=(
            case(low_rank_forward, FORWARD_WRONG, *SQUARE),
            case(low_rank_forward, FORWARD_WRONG, *TALL),
            without_a_remainder_it_is_the_plain_layer,
            a_token_is_served_alike_alone_and_in_a_batch,
        ),
        hints=(
            (
                "My rows and columns have changed places",
                "Tokens are the rows of x, and they stay the rows. So what stands left in the formula stands right here.",
            ),
            (
                "I have mixed up W and its transpose",
                "A token is a row of x: for all rows together, W x is written with the transpose of W, on the right.",
            ),
            ("My result is the remainder alone", "The expert is base and remainder: W x belongs to the sum."),
            (
                "My result does not depend on s",
                "Between V^T and U each of the r numbers is multiplied by its singular value.",
            ),
            (
                "The singular values count twice",
                "Multiply by s once, on the way from V^T to U. U and V^T hold no singular values here.",
            ),
        ),
        wrong=FORWARD_WRONG,
    ),
)
