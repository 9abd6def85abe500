"""The exercises of notebook 13: a body and its head, tensors stored twice, descriptors' moves, words' moves, gains."""

import torch
from torch.nn import functional as F

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "13_language"


def body_and_head(state: dict[str, torch.Tensor], head: str) -> tuple[dict, dict]:
    """A classifier's state dict, and the name of its head's module, such as "score" -> (body, head), two state dicts.

    To the head belong "score.weight", "score.dense.bias" and so on, under their own names; all else is the body's.
    ``state`` itself stays as it was.
    """
    body = {name: tensor for name, tensor in state.items() if not name.startswith(head + ".")}
    return body, {name: tensor for name, tensor in state.items() if name not in body}


def _halves(state, is_head, rename=lambda name: name):
    body = {name: tensor for name, tensor in state.items() if not is_head(name)}
    return body, {rename(name): tensor for name, tensor in state.items() if is_head(name)}


def _taken_out(state, head):
    names = [name for name in state if name.startswith(head + ".")]
    return state, {name: state.pop(name) for name in names}


BODY_WRONG = {
    "A tensor of the body went with the head": lambda state, head: _halves(state, lambda name: name.startswith(head)),
    "Whatever has the head's name somewhere went with it": lambda state, head: _halves(
        state, lambda name: head + "." in name
    ),
    "My head comes first": lambda state, head: body_and_head(state, head)[::-1],
    "My head's names are cut": lambda state, head: _halves(
        state, lambda name: name.startswith(head + "."), lambda name: name[len(head) + 1 :]
    ),
    "I changed the state dict that I was given": _taken_out,
    "My body still has the head": lambda state, head: (dict(state), body_and_head(state, head)[1]),
}
CLASSIFIER = {
    "score.weight": torch.ones(2, 2),
    "model.embed.weight": torch.zeros(3, 2),
    "model.score.weight": torch.full((1, 2), 2.0),
    "scored.bias": torch.tensor([3.0]),
    "score.dense.bias": torch.tensor([4.0]),
}
ENCODER = {"encoder.weight": torch.eye(2), "classifier.out_proj.weight": torch.ones(3, 2)}


def both_halves_are_the_whole(candidate):
    body, head = candidate(CLASSIFIER, "score")
    if len(body) + len(head) != len(CLASSIFIER):
        raise Wrong(f"expected each of the {len(CLASSIFIER)} tensors in one half, got {len(body)} and {len(head)}")


def stored_once(state: dict[str, torch.Tensor]) -> dict[str, str]:
    """For each tensor that repeats an earlier one, bit for bit and in its shape: the name of the first of them.

    {"head.weight": "embedding.weight"} says that the head's weight is the embedding, stored once more.
    """
    copies, first = {}, []
    for name, tensor in state.items():
        same = next((other for other in first if torch.equal(state[other], tensor)), None)
        if same is None:
            first.append(name)
        else:
            copies[name] = same
    return copies


def _copies(state, same, pick=lambda names: names[0]):
    copies, seen = {}, []
    for name, tensor in state.items():
        like = [other for other in seen if same(state[other], tensor)]
        if like:
            copies[name] = pick(like)
        seen.append(name)
    return copies


ONCE_WRONG = {
    "All tensors of one shape are copies in mine": lambda state: _copies(state, lambda a, b: a.shape == b.shape),
    "Tensors of equal sums are copies in mine": lambda state: _copies(
        state, lambda a, b: a.shape == b.shape and a.sum() == b.sum()
    ),
    "Nearly equal tensors are copies in mine": lambda state: _copies(
        state, lambda a, b: a.shape == b.shape and torch.allclose(a, b, atol=1e-3)
    ),
    "Shapes make no difference in mine": lambda state: _copies(
        state, lambda a, b: a.numel() == b.numel() and torch.equal(a.flatten(), b.flatten())
    ),
    "The third copy names the second": lambda state: _copies(state, torch.equal, lambda names: names[-1]),
    "Every tensor names itself": lambda state: {name: stored_once(state).get(name, name) for name in state},
    "Mine names the copy, not the first": lambda state: {first: copy for copy, first in stored_once(state).items()},
}
LANGUAGE = {
    "embedding": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "a": torch.tensor([[4.0, 3.0], [2.0, 1.0]]),
    "b": torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "c": torch.tensor([[1.0, 2.0], [3.0, 4.00001]]),  # near enough for torch.allclose
    "head": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "again": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
}


def moved_cosines(unseen: torch.Tensor, seen: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Descriptors of a new task (d) and of N seen ones (N, d), all fine-tuned from ``start`` (d) -> (N,).

    The cosine between how the new task's descriptor has *moved* from the start, and how each seen task's has.
    """
    return torch.cosine_similarity((unseen - start)[None], seen - start, dim=1)


MOVED_WRONG = {
    "My start is still in it": lambda unseen, seen, start: torch.cosine_similarity(unseen[None], seen, dim=1),
    "I left the start in one of the two": lambda unseen, seen, start: torch.cosine_similarity(
        (unseen - start)[None], seen, dim=1
    ),
    "Long moves count more in mine": lambda unseen, seen, start: (seen - start) @ (unseen - start),
    "Opposite moves are near in mine": lambda unseen, seen, start: moved_cosines(unseen, seen, start).abs(),
    "Mine add up to one": lambda unseen, seen, start: F.softmax(moved_cosines(unseen, seen, start), 0),
    "I took the mean of the tasks for the start": lambda unseen, seen, start: moved_cosines(unseen, seen, seen.mean(0)),
}
START = torch.tensor([3.0, 1.0, 0.0])
MOVED = START + torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [-1.0, -1.0, 0.5]])


def the_start_alone_says_nothing(candidate):
    away = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = [candidate(start + away[0], start + away, start) for start in (torch.zeros(3), 9 * START)]
    if not torch.allclose(*found, atol=1e-4):
        raise Wrong(f"expected the same cosines from any start, got {found[0].tolist()} and {found[1].tolist()}")


def moved_words(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """An embedding (words, d) before and after fine-tuning -> (words,), true where anything of a word's row has moved.

    A row that came back bit for bit has not moved.
    """
    return (before != after).any(dim=1)


WORDS_WRONG = {
    "All of a row must have moved in mine": lambda before, after: (before != after).all(dim=1),
    "Mine looks along the columns": lambda before, after: (before != after).any(dim=0),
    "Moves that cancel are none in mine": lambda before, after: (after - before).sum(dim=1) != 0,
    "Small moves are none in mine": lambda before, after: ~torch.isclose(before, after, atol=1e-3).all(dim=1),
    "I compare lengths": lambda before, after: before.norm(dim=1) != after.norm(dim=1),
    "Mine is a number": lambda before, after: (before != after).any(dim=1).float().mean(),
    "Mine says which stayed": lambda before, after: (before == after).all(dim=1),
}
EMBEDDING = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [1.0, -1.0], [5.0, 5.0], [2.0, 3.0], [4.0, 1.0]])
MOVES = torch.tensor([[0.0, 0.0], [0.5, -0.5], [0.0, 1e-6], [-2.0, 2.0], [1.0, 1.0], [0.7, 0.0], [0.0, 0.7]])
READ = EMBEDDING + MOVES


def gain_kept(first: torch.Tensor, found: torch.Tensor, experts: torch.Tensor) -> float:
    """Accuracies (tasks,) of the pretrained model, of another one and of the experts -> what is kept of the gain.

    In the mean over the tasks: 0 for the pretrained model, 1 for the experts, below 0 for what does worse than both.
    """
    return ((found.mean() - first.mean()) / (experts.mean() - first.mean())).item()


GAIN_WRONG = {
    "I take the mean of the tasks' shares": lambda first, found, experts: (
        ((found - first) / (experts - first)).mean().item()
    ),
    "Mine is a share of the experts' accuracy": lambda first, found, experts: (found.mean() / experts.mean()).item(),
    "Mine is what was lost": lambda first, found, experts: 1 - gain_kept(first, found, experts),
    "Mine is the gain itself": lambda first, found, experts: (found.mean() - first.mean()).item(),
    "Mine is never below zero": lambda first, found, experts: max(0.0, gain_kept(first, found, experts)),
    "I divide by the pretrained model's": lambda first, found, experts: (
        (found.mean() - first.mean()) / first.mean()
    ).item(),
}
GAINS = (torch.tensor([0.5, 0.7, 0.6]), torch.tensor([0.8, 0.7, 0.7]), torch.tensor([0.9, 0.71, 0.79]))


def both_ends_are_right(candidate):
    first, _, experts = GAINS
    for model, wanted in ((first, 0.0), (experts, 1.0)):
        if abs((found := float(candidate(first, model, experts))) - wanted) > 1e-5:
            raise Wrong(f"expected {wanted} for the {'experts' if wanted else 'pretrained model'}, got {found:.3g}")


EXERCISES = (
    Exercise(
        name="body_and_head",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=body_and_head,
        checks=(
            case(body_and_head, CLASSIFIER, "score"),
            case(body_and_head, ENCODER, "classifier"),
            case(body_and_head, ENCODER, "score"),  # there is none
            both_halves_are_the_whole,
        ),
        hints=(
            ("My head comes first", "Return the body first, then the head."),
            ("My body still has the head", "Each tensor belongs to one half only."),
            (
                "A tensor of the body went with the head",
                'Look at "scored.bias". Of the module "score" are the names that begin with "score" and a dot.',
            ),
            (
                "Whatever has the head's name somewhere went with it",
                "Look at \"model.score.weight\": it lies in the body. The head's names *begin* with the module's name.",
            ),
            (
                "My head's names are cut",
                "Keep the names whole, so that body | head is a state dict of the model again.",
            ),
            ("I changed the state dict that I was given", "Fill two new dicts. The model may still need its own."),
        ),
        wrong=BODY_WRONG,
        start="Which names belong to the head? Write that as a condition on one name, and try it on a few.",
        skeleton="""def body_and_head(state, head):
    body = {name: tensor for name, tensor in state.items() if ...}
    return body, ...""",
    ),
    Exercise(
        name="stored_once",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=stored_once,
        checks=(
            case(stored_once, LANGUAGE),
            case(stored_once, {"a": torch.zeros(2), "b": torch.ones(2)}),  # no copies
            case(stored_once, {"x": torch.ones(2), "y": torch.ones(2), "z": torch.ones(1, 2)}),
            case(stored_once, {}),
        ),
        hints=(
            ("All tensors of one shape are copies in mine", "Compare their numbers, too: torch.equal looks at both."),
            ("Tensors of equal sums are copies in mine", "Two tensors may have one sum. Compare all of their numbers."),
            ("Nearly equal tensors are copies in mine", "A copy has the same bits: torch.equal, not torch.allclose."),
            ("Shapes make no difference in mine", "A vector is no matrix, even with the same numbers in it."),
            ("Every tensor names itself", "Only tensors that repeat an *earlier* one belong into the result."),
            ("Mine names the copy, not the first", "Keys are the copies; the value is the name that came first."),
            ("The third copy names the second", "Compare with those that repeat nothing: the second is a copy itself."),
        ),
        wrong=ONCE_WRONG,
        start="Go through the tensors in order, and keep a list of the names of those that repeat nothing so far.",
        skeleton="""def stored_once(state):
    copies, first = {}, []
    for name, tensor in state.items():
        same = ...  # the name in `first` of a tensor that is equal, or None
        if same is None:
            ...
        else:
            ...
    return ...""",
    ),
    Exercise(
        name="moved_cosines",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=moved_cosines,
        checks=(
            case(moved_cosines, START + torch.tensor([1.0, 0.0, 0.0]), MOVED, START),
            case(moved_cosines, START + torch.tensor([1.0, -2.0, 0.5]), MOVED, START),
            case(moved_cosines, MOVED[1], MOVED[:1], START),  # a single seen task
            the_start_alone_says_nothing,
        ),
        hints=(
            ("My start is still in it", "Take the start off both: what is left is how each of them has moved."),
            (
                "I left the start in one of the two",
                "Both sides of a cosine are moves: take the start off the other, too.",
            ),
            ("Long moves count more in mine", "A cosine has no lengths: divide by both of them."),
            (
                "Opposite moves are near in mine",
                "A move in the opposite direction has a negative cosine. Keep its sign.",
            ),
            ("Mine add up to one", "These are no weights yet, only cosines: each by itself."),
            (
                "I took the mean of the tasks for the start",
                "The start is given: the layer before any fine-tuning. The mean of the tasks has moved as well.",
            ),
        ),
        wrong=MOVED_WRONG,
        pace=(torch.ones(3), torch.linspace(-9, 9, 30_000).sin().view(10_000, 3), START),
        start="How has the new task's descriptor moved? Subtract. Do the same for each row of the seen ones.",
        skeleton="""def moved_cosines(unseen, seen, start):
    new = ...  # (d,)
    old = ...  # (N, d)
    return torch.cosine_similarity(..., old, dim=1)""",
    ),
    Exercise(
        name="moved_words",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=4,
        reference=moved_words,
        checks=(
            case(moved_words, EMBEDDING, READ),
            case(moved_words, EMBEDDING, EMBEDDING),  # none
            case(moved_words, EMBEDDING[:, :1], READ[:, :1]),
        ),
        hints=(
            ("All of a row must have moved in mine", "One number that differs is enough: any, not all."),
            ("Mine looks along the columns", "There is an answer for each word, that is, for each row."),
            ("Moves that cancel are none in mine", "A move up and one down add up to none. Compare number by number."),
            ("Small moves are none in mine", "Ask whether they are equal, not whether they are near."),
            ("I compare lengths", "A row may turn and keep its length. Compare its numbers."),
            ("Mine is a number", "Return one answer per word; the mean is taken later."),
            ("Mine says which stayed", "True is for the words that moved."),
        ),
        wrong=WORDS_WRONG,
        start="Compare the two matrices number by number first. What shape has that?",
        skeleton="""def moved_words(before, after):
    differs = ...  # (words, d)
    return ...  # (words,)""",
    ),
    Exercise(
        name="gain_kept",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=gain_kept,
        checks=(
            case(gain_kept, *GAINS),
            case(gain_kept, torch.tensor([0.5]), torch.tensor([0.4]), torch.tensor([0.75])),  # worse than both
            both_ends_are_right,
        ),
        hints=(
            (
                "I take the mean of the tasks' shares",
                "A task with next to no gain would count as much as any: take the means of the accuracies first.",
            ),
            (
                "Mine is a share of the experts' accuracy",
                "The pretrained model is to have 0: take its accuracy off above and below.",
            ),
            ("Mine is what was lost", "What is kept and what is lost add up to 1: return the other."),
            ("Mine is the gain itself", "Divide by the gain of the experts."),
            ("Mine is never below zero", "Keep the sign: a merge may do worse than the pretrained model."),
            (
                "I divide by the pretrained model's",
                "Divide by the whole way, from the pretrained model to the experts.",
            ),
        ),
        wrong=GAIN_WRONG,
        start="How far is it from the pretrained model to the experts, in the mean? And how far has this model gone?",
        skeleton="""def gain_kept(first, found, experts):
    way = experts.mean() - ...
    gone = ...
    return (gone / way).item()""",
    ),
)
