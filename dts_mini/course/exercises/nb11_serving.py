"""The exercises of notebook 11: a layer without its matrix, for one task and for many; routing."""

import torch

from dts_mini.course.exercise import Exercise, Wrong, case, difference

NOTEBOOK = "11_serving"


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
    "I make the expert's matrix": lambda x, w, u, s, vh: x @ (w + u * s @ vh).T,
    "I make the remainder's matrix": lambda x, w, u, s, vh: x @ w.T + x @ (u * s @ vh).T,
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
LARGE = (  # W x is exactly zero
    torch.tensor([[1.0, 1.0], [-2.0, -2.0]]),
    2.0**26 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]),
    torch.tensor([[0.6], [0.8]]),
    torch.tensor([0.5]),
    torch.tensor([[0.8, 0.6]]),
)


def without_a_remainder_it_is_the_plain_layer(candidate):
    x, w, u, s, vh = TALL
    if not torch.allclose(candidate(x, w, u, torch.zeros_like(s), vh), x @ w.T, atol=1e-5):
        raise Wrong("expected W x when all singular values are zero, got something else")


def a_small_remainder_is_not_lost_in_w(candidate):
    if problem := difference(candidate(*LARGE), low_rank_forward(*LARGE)):
        raise Wrong(f"{problem}: added to a large W, a small remainder is rounded away. Make no matrix")


def no_matrix_of_the_remainder_is_made(candidate):
    huge = 2.0**70  # U diag(s) V^T is beyond float32, and nothing on the right side is
    x, w = torch.full((2, 1), 1 / huge), torch.zeros(1, 1)
    rest = torch.full((1, 1), huge), torch.ones(1), torch.full((1, 1), huge)
    if problem := difference(candidate(x, w, *rest), low_rank_forward(x, w, *rest)):
        raise Wrong(f"{problem}: the matrix U diag(s) V^T does not fit into float32 here. Make no matrix")


def a_token_is_served_alike_alone_and_in_a_batch(candidate):
    x, *rest = TALL
    if not torch.allclose(candidate(x[:1], *rest), candidate(x, *rest)[:1], atol=1e-5):
        raise Wrong("expected the same answer for a token alone and in a batch, got another")


def mixed_forward(
    y: torch.Tensor, x: torch.Tensor, factors: list[tuple[torch.Tensor, torch.Tensor]], tasks: torch.Tensor
) -> torch.Tensor:
    """What the base answers, y = W x (batch, m), and x (batch, n); A (m, r), B (r, n) of each task; tasks (batch,).

    Returns (batch, m): to the base's answer for a sample comes A B x of the sample's own task. y stays as it is.
    """
    result = y.clone()
    for task, (a, b) in enumerate(factors):
        mine = tasks == task
        result[mine] += x[mine] @ b.T @ a.T
    return result


def _first_task(y, x, factors, tasks):
    a, b = factors[int(tasks[0])]
    return y + x @ b.T @ a.T


def _every_task(y, x, factors, tasks):
    return y + sum(x @ b.T @ a.T for a, b in factors)


def _grouped(y, x, factors, tasks):
    return torch.cat([y[tasks == t] + x[tasks == t] @ b.T @ a.T for t, (a, b) in enumerate(factors)])


def _without_base(y, x, factors, tasks):
    return mixed_forward(torch.zeros_like(y), x, factors, tasks)


def _by_place(y, x, factors, tasks):
    result = y.clone()
    for place, (a, b) in enumerate(factors[: len(x)]):
        result[place] += a @ (b @ x[place])
    return result


def _in_place(y, x, factors, tasks):
    y += mixed_forward(torch.zeros_like(y), x, factors, tasks)
    return y


MIXED_WRONG = {
    "All samples get the first one's task": _first_task,
    "Each sample gets every task": _every_task,
    "My samples have changed places": _grouped,
    "My result is the remainders alone": _without_base,
    "I take a sample's place for its task": _by_place,
    "I changed the y that I was given": _in_place,
}
TOKENS = torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 1.0], [2.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
SHARED = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, -1.0]])
BASE = TOKENS @ SHARED.T
THIN = [
    (torch.tensor([[1.0], [0.5]]), torch.tensor([[1.0, 0.0, -1.0]])),
    (torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])),
    (torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0, 0.5, 0.5]])),
]


def the_matrices_agree(candidate):
    tasks = torch.tensor([2, 1, 1, 0])
    wanted = torch.stack([(SHARED + THIN[t][0] @ THIN[t][1]) @ x for t, x in zip(tasks.tolist(), TOKENS, strict=True)])
    if problem := difference(candidate(BASE, TOKENS, THIN, tasks), wanted):
        raise Wrong(f"against each sample with its own matrix: {problem}")


def subspace_share(x: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Inputs x (batch, n), a task's vectors V (r, n) -> (batch,): how much of x lies along V, against chance.

    ||V x||^2 / ||x||^2, divided by what a random direction would have in the mean, ||V||^2 / n.
    """
    along = (x @ vectors.T).square().sum(1) / x.square().sum(1)
    return along / (vectors.square().sum() / x.shape[1])


SHARE_WRONG = {
    "A long input lies more along V": lambda x, v: (x @ v.T).square().sum(1) / (v.square().sum() / x.shape[1]),
    "A task with many vectors always wins": lambda x, v: (x @ v.T).square().sum(1) / x.square().sum(1),
    "My share is the root of what it should be": lambda x, v: (
        (x @ v.T).norm(dim=1) / x.norm(dim=1) / (v.norm() / x.shape[1] ** 0.5)
    ),
    "I have a number for each vector, not for each input": lambda x, v: (
        ((x @ v.T) / x.norm(dim=1, keepdim=True)).square().sum(0) / (v.square().sum() / x.shape[1])
    ),
    "Positive and negative cancel": lambda x, v: (
        (x @ v.T).sum(1).square() / x.square().sum(1) / (v.square().sum() / x.shape[1])
    ),
}
INPUTS = torch.tensor([[2.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, -1.0], [0.0, 0.0, 3.0, 4.0]])
ALONG = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.6, 0.0, 0.8]])

EXERCISES = (
    Exercise(
        name="low_rank_forward",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=low_rank_forward,
        checks=(
            case(low_rank_forward, *SQUARE),
            case(low_rank_forward, *TALL),
            without_a_remainder_it_is_the_plain_layer,
            a_token_is_served_alike_alone_and_in_a_batch,
            a_small_remainder_is_not_lost_in_w,
            no_matrix_of_the_remainder_is_made,
        ),
        hints=(
            (
                "My rows and columns have changed places",
                "Tokens are the rows of x, and they stay the rows. "
                "So what stands left in the formula stands right here.",
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
            (
                "I make the expert's matrix",
                "That is the left side: the right result by the long way. On the right V^T x comes first, r numbers.",
            ),
            (
                "I make the remainder's matrix",
                "U diag(s) V^T is as large as W. Multiply x by V^T first: then you never hold more than r numbers.",
            ),
        ),
        wrong=FORWARD_WRONG,
        pace=(torch.ones(20_000, 3), *TALL[1:]),
        start="Go through the formula from the right, with shapes: x is (tokens, n). What is V^T x, for all rows?",
        skeleton="""def low_rank_forward(x, w, u, s, vh):
    thin = ...  # V^T x of every token: (tokens, r)
    return x @ w.T + ...""",
    ),
    Exercise(
        name="mixed_forward",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=mixed_forward,
        checks=(
            case(mixed_forward, BASE, TOKENS, THIN, torch.tensor([1, 0, 2, 1])),
            case(mixed_forward, BASE[:3], TOKENS[:3], THIN, torch.tensor([2, 2, 2])),  # a batch of one task
            case(mixed_forward, BASE[:1], TOKENS[:1], THIN, torch.tensor([1])),
            the_matrices_agree,
        ),
        hints=(
            (
                "All samples get the first one's task",
                "Go through the tasks. For each, tasks == task says which rows of x are its own.",
            ),
            ("Each sample gets every task", "Add a task's remainder to its own rows alone: those where tasks == task."),
            (
                "My samples have changed places",
                "If you gather the samples of a task, put their results back where they came from.",
            ),
            ("My result is the remainders alone", "Every sample keeps the base's answer: start from y."),
            (
                "I take a sample's place for its task",
                "The third sample is not of the third task. Its task is tasks[2].",
            ),
            ("I changed the y that I was given", "Others may still read the base's answers: begin with y.clone()."),
        ),
        wrong=MIXED_WRONG,
        pace=(torch.zeros(20_000, 2), torch.ones(20_000, 3), THIN, torch.arange(20_000) % len(THIN)),
        start="Write it for a batch of one task: two thin products, added to y. Then give it that task's rows alone.",
        skeleton="""def mixed_forward(y, x, factors, tasks):
    result = y.clone()
    for task, (a, b) in enumerate(factors):
        mine = ...
        result[mine] += ...
    return ...""",
    ),
    Exercise(
        name="subspace_share",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=7,
        reference=subspace_share,
        checks=(
            case(subspace_share, INPUTS, ALONG),
            case(subspace_share, INPUTS, torch.eye(4)),  # all directions: exactly chance
            case(subspace_share, 10 * INPUTS[:2], ALONG[:1]),
            case(subspace_share, INPUTS, torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])),  # no unit vectors
        ),
        hints=(
            ("A long input lies more along V", "Divide by the squared length of each input."),
            (
                "A task with many vectors always wins",
                "Along r unit vectors in n dimensions a random direction has r / n in the mean: divide by ||V||^2 / n.",
            ),
            ("My share is the root of what it should be", "Energies are squares: use squared lengths throughout."),
            ("I have a number for each vector, not for each input", "Sum over the vectors: dim=1 of x @ V.T."),
            ("Positive and negative cancel", "Square each product before you sum over the vectors."),
        ),
        wrong=SHARE_WRONG,
        pace=(torch.ones(20_000, 4), ALONG),
        start="Take one input and one unit vector v: the share of x along v is (v x)^2 / ||x||^2. Then sum over all v.",
        skeleton="""def subspace_share(x, vectors):
    products = x @ vectors.T  # (batch, r)
    share = ...  # (batch,)
    chance = ...
    return share / chance""",
    ),
)
