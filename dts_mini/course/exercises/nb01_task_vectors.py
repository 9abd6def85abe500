"""The exercises of notebook 01: Task Arithmetic, the vote of TIES, and what a pair of experts loses to what."""

import torch

from dts_mini.course.exercise import Exercise, Wrong, case, difference

NOTEBOOK = "01_task_vectors"


def my_task_arithmetic(theta_0: dict, experts: list[dict], coefficient: float) -> dict:
    """theta_0 + coefficient * (sum of all task vectors), a new state dict; the inputs stay as they are."""
    return {name: x + coefficient * sum(e[name] - x for e in experts) for name, x in theta_0.items()}


def _in_place(theta_0, experts, coefficient):
    for name, x in theta_0.items():
        x += coefficient * sum(e[name] - x for e in experts)
    return theta_0


ARITHMETIC_WRONG = {
    "My weights are far too large": lambda t, es, c: {n: x + c * sum(e[n] for e in es) for n, x in t.items()},
    "My merge moves too little": lambda t, es, c: {
        n: x + c * sum(e[n] - x for e in es) / len(es) for n, x in t.items()
    },
    "Only the last expert counts": lambda t, es, c: {n: x + c * (es[-1][n] - x) for n, x in t.items()},
    "My merge lacks theta_0": lambda t, es, c: {n: c * sum(e[n] - x for e in es) for n, x in t.items()},
    "theta_0 has changed": _in_place,
}
START = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([[0.5, 0.0], [0.0, -1.0]])}
ENDS = [
    {"b": torch.tensor([[0.5, 1.0], [0.0, -1.0]]), "w": torch.tensor([3.0, 2.0])},
    {"w": torch.tensor([1.0, 6.0]), "b": torch.tensor([[-0.5, 0.0], [2.0, -1.0]])},
]


def one_over_n_is_the_average(candidate):
    found = candidate(START, ENDS, 1 / len(ENDS))
    average = {name: sum(end[name] for end in ENDS) / len(ENDS) for name in START}
    if problem := difference(found, average):
        raise Wrong(f"with the coefficient 1/N: {problem}")


def elect_and_add(trimmed: torch.Tensor) -> torch.Tensor:
    """Trimmed task vectors (N, d) -> (d,): for each element the sum of the values that have the elected sign."""
    elected = trimmed.sum(0).sign()
    elected[elected == 0] = elected.sum().sign()
    return torch.where(trimmed.sign() == elected, trimmed, 0).sum(0)


def _elected(trimmed):
    elected = trimmed.sum(0).sign()
    return torch.where(elected == 0, elected.sum().sign(), elected)


def _with_sign(trimmed, elected):
    return torch.where(trimmed.sign() == elected, trimmed, 0)


ELECT_WRONG = {
    "Many small votes beat a large one in mine": lambda t: _with_sign(t, _elected(t.sign())).sum(0),
    "The losers of the vote still count in my sum": lambda t: t.sum(0),
    "My values are smaller, the more experts there are": lambda t: _with_sign(t, _elected(t)).mean(0),
    "My values are means of those that agree": lambda t: (
        _with_sign(t, _elected(t)).sum(0) / (_with_sign(t, _elected(t)) != 0).sum(0).clamp(min=1)
    ),
    "One expert decides the sign in mine": lambda t: _with_sign(
        t, t.gather(0, t.abs().argmax(0, keepdim=True)).sign()
    ).sum(0),
    "I get one number for each expert": lambda t: _with_sign(t, _elected(t)).sum(1),
    "My elements whose votes cancel are zero": lambda t: _with_sign(t, t.sum(0).sign()).sum(0),
    "Where votes cancel, a few large values decide in mine": lambda t: _with_sign(
        t, torch.where(t.sum(0) == 0, t.sum().sign(), t.sum(0).sign())
    ).sum(0),
}


def the_order_of_the_experts_does_not_count(candidate):
    stack = torch.tensor([[2.0, 0, -1, 3], [-1.0, 4, -1, 0], [-0.5, -1, 5, 0]])
    if problem := difference(candidate(stack.flip(0)), candidate(stack)):
        raise Wrong(f"with the experts in another order: {problem}")


def split_loss(expert: float, halved: float, merged: float) -> tuple[float, float]:
    """(dilution, interference): they add up to the accuracy that merging lost."""
    return expert - halved, halved - merged


SPLIT_WRONG = {
    "My two parts do not add up to the loss": lambda expert, halved, merged: (expert - halved, expert - merged),
    "My two parts are the wrong way round": lambda expert, halved, merged: (halved - merged, expert - halved),
    "My losses are negative": lambda expert, halved, merged: (halved - expert, merged - halved),
    "I cut off negative interference": lambda expert, halved, merged: (expert - halved, max(0.0, halved - merged)),
}


def the_parts_add_up(candidate):
    for accuracies in ((0.9, 0.6, 0.5), (0.8, 0.8, 0.9)):
        total, loss = sum(candidate(*accuracies)), accuracies[0] - accuracies[2]
        if abs(total - loss) > 1e-6:
            raise Wrong(f"expected two parts with the sum {loss:.2f}, got the sum {total:.2f}")


EXERCISES = (
    Exercise(
        name="my_task_arithmetic",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=my_task_arithmetic,
        checks=(
            case(my_task_arithmetic, START, ENDS, 0.3),
            case(my_task_arithmetic, START, ENDS[:1], 1.0),  # the expert itself
            case(my_task_arithmetic, START, ENDS, 0.0),  # theta_0 itself
            one_over_n_is_the_average,
        ),
        hints=(
            (
                "My weights are far too large",
                "You added the experts and not their task vectors. Subtract theta_0 from each expert first.",
            ),
            ("My merge lacks theta_0", "A sum of task vectors is a direction. Add it to theta_0 to get a model."),
            (
                "Only the last expert counts",
                "Your loop writes the result again for each expert. Sum over the experts first, then write once.",
            ),
            (
                "My merge moves too little",
                "Task Arithmetic sums, it does not average: the coefficient alone says how far to go.",
            ),
            (
                "theta_0 has changed",
                "x += ... writes into the tensor that you were given. x + ... makes a new one.",
            ),
        ),
        wrong=ARITHMETIC_WRONG,
        start="Take one tensor, say theta_0['w']. What does each expert add to it? Write that down for one name, then "
        "do it for every name of theta_0.",
        skeleton="""def my_task_arithmetic(theta_0, experts, coefficient):
    merged = {}
    for name, x in theta_0.items():
        total = sum(... for expert in experts)  # of the task vectors' tensors of this name
        merged[name] = ...
    return merged""",
    ),
    Exercise(
        name="elect_and_add",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=10,
        reference=elect_and_add,
        checks=(
            case(
                elect_and_add,
                torch.tensor([[5.0, 1, 3, 0, -2], [-1.0, 2, -2, 0, -1], [-1.0, 0, -2, 0, 4], [-1.0, 1, -0.5, 0, 0]]),
            ),
            case(elect_and_add, torch.tensor([[2.0, -1, 0, 3], [-2.0, 1, 0, -1]])),  # votes cancel; most are positive
            case(elect_and_add, torch.tensor([[2.0, -1, 0, -3], [-2.0, 1, -2, 1]])),  # most are negative
            case(elect_and_add, torch.tensor([[9.0, -1, -1, 2], [0.0, 0, -1, -2]])),  # two of three, though 9 > 3
            case(elect_and_add, torch.tensor([[1.5, -0.5, 0.0]])),  # one expert: nothing is lost
            the_order_of_the_experts_does_not_count,
        ),
        hints=(
            (
                "I get one number for each expert",
                "Experts are the rows. Sum over the first dimension; a value for each element is left.",
            ),
            (
                "The losers of the vote still count in my sum",
                "This is the plain sum. Set what has not the elected sign to zero first: torch.where helps.",
            ),
            (
                "Many small votes beat a large one in mine",
                "You counted heads. The sign of the *sum* is elected: a vote weighs as much as its value.",
            ),
            (
                "One expert decides the sign in mine",
                "You took the sign of the largest value. Others together can outweigh it: take the sign of the sum.",
            ),
            (
                "My values are smaller, the more experts there are",
                "You divided by the number of experts. The paper adds up; the coefficient comes later.",
            ),
            (
                "My values are means of those that agree",
                "The TIES paper takes this mean, the DTS paper takes the sum. Here it is the sum.",
            ),
            (
                "My elements whose votes cancel are zero",
                "A sum of zero has the sign 0, which no value has. Give such elements the sign that most have.",
            ),
            (
                "Where votes cancel, a few large values decide in mine",
                "You took the sign of the sum of everything. Most *elements* decide: add up their elected signs.",
            ),
        ),
        wrong=ELECT_WRONG,
        start="Begin with one element: a column of the tensor. Which sign has the sum of the column? Which of its "
        "values have that sign? Then do it for all columns at once, without a loop.",
        skeleton="""def elect_and_add(trimmed):
    elected = trimmed.sum(...).sign()  # (d,): -1, 0 or 1
    elected[elected == 0] = ...  # the sign that most elements have elected
    agrees = ...  # (N, d): which values have the elected sign
    return torch.where(agrees, trimmed, 0).sum(...)""",
        pace=(torch.linspace(-1, 1, 80_000).sin().mul(1e4).sin().view(8, 10_000),),
    ),
    Exercise(
        name="split_loss",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=7,
        reference=split_loss,
        checks=(
            case(split_loss, 0.95, 0.90, 0.70),
            case(split_loss, 0.95, 0.80, 0.85),  # a partner that helped
            case(split_loss, 0.90, 0.90, 0.90),
            the_parts_add_up,
        ),
        hints=(
            (
                "My two parts do not add up to the loss",
                "Interference is what is lost beyond halving. "
                "Count it from the halved task vector, not from the expert.",
            ),
            ("My two parts are the wrong way round", "Dilution comes first: the cost of halving alone."),
            ("My losses are negative", "A loss is the higher level minus the lower one: the expert's comes first."),
            (
                "I cut off negative interference",
                "Let it be negative. A partner that reads digits, too, may give back some of what halving took.",
            ),
        ),
        wrong=SPLIT_WRONG,
        start="Put the three accuracies in a row: the expert, its task vector halved, the merge. From one to the next "
        "something is lost; name the two steps.",
        skeleton="""def split_loss(expert, halved, merged):
    dilution = ...
    interference = ...
    return dilution, interference""",
    ),
)
