"""The exercises of notebook 07: how long a remainder is, what is kept of an expert, rebuilding, what fits on a disk."""

import torch

from dts_mini.core.paper import dts
from dts_mini.course.exercise import Exercise, Wrong, case, difference

NOTEBOOK = "07_personalised_merging"


def remaining_length(n: int, cosine: float) -> float:
    """Length of a task vector minus the mean of all n, as a share of its own; any two have this cosine."""
    # At length one, the mean's product with each vector is (1 + (n - 1) cosine) / n, and so is its product with
    # itself. The squared length of the difference is one minus that: (1 - 1/n) (1 - cosine).
    return ((1 - 1 / n) * (1 - cosine)) ** 0.5


LENGTH_WRONG = {
    "I get the square of the length": lambda n, cosine: (1 - 1 / n) * (1 - cosine),
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


def remainder(base: dict, expert: dict, keep_ratio: float = 0.1) -> dict:
    """What is kept of an expert beside its base: ``dts`` of the difference of each tensor, by its name."""
    return {name: dts(expert[name] - base[name], keep_ratio) for name in expert}


def _each(change):
    """A wrong ``remainder`` with this in the place of the comprehension's value."""
    return lambda base, expert, keep_ratio=0.1: {n: change(base[n], expert[n], keep_ratio) for n in expert}


REMAINDER_WRONG = {
    "I compress the expert, not what it adds": _each(lambda b, e, k: dts(e, k)),
    "My remainder points back to the base": _each(lambda b, e, k: dts(b - e, k)),
    "Nothing is compressed": _each(lambda b, e, k: e - b),
    "My keep ratio has no effect": _each(lambda b, e, k: dts(e - b)),
    "I subtract what was compressed before": _each(lambda b, e, k: dts(e, k) - dts(b, k)),
    "Biases are missing from my remainder": lambda base, expert, keep_ratio=0.1: {
        name: dts(expert[name] - x, keep_ratio) for name, x in base.items() if x.dim() > 1
    },
}
_draw = torch.Generator().manual_seed(7)
FROM = {"w": torch.randn(12, 10, generator=_draw), "b": torch.randn(6, generator=_draw)}
TO = {name: x + 0.1 * torch.randn(x.shape, generator=_draw) for name, x in FROM.items()}


def an_expert_that_did_not_move_leaves_nothing(candidate):
    for name, kept in candidate(FROM, FROM).items():
        if kept.any():
            raise Wrong(f"expected zeros under {name!r} of an expert that is the base, got {kept.flatten()[0]:.4g}")


def rebuild(base: dict, remainder: dict) -> dict:
    """base + remainder, in the base's dtypes, as a new state dict; a tensor without a remainder is the base's."""
    return {name: (x + remainder[name]).to(x.dtype) if name in remainder else x.clone() for name, x in base.items()}


def _into_the_base(base, remainder):
    for name, change in remainder.items():
        base[name] += change
    return base


REBUILD_WRONG = {
    "Some tensors are missing from my expert": lambda base, remainder: {
        name: (base[name] + change).to(base[name].dtype) for name, change in remainder.items()
    },
    "My expert is only the remainder": lambda base, remainder: {
        name: remainder.get(name, x).to(x.dtype) for name, x in base.items()
    },
    "The base has changed": _into_the_base,
    "My tensors have another dtype": lambda base, remainder: {
        name: x + remainder[name] if name in remainder else x.clone() for name, x in base.items()
    },
    "My expert and the base share memory": lambda base, remainder: {
        name: (x + remainder[name]).to(x.dtype) if name in remainder else x for name, x in base.items()
    },
}
BASE = {
    "w": torch.tensor([[1.0, -2.0], [0.5, 4.0]]),
    "b": torch.tensor([0.25, 1.0], dtype=torch.float16),
    "steps": torch.tensor(7),
}
REMAINDER = {"w": torch.tensor([[0.5, 0.0], [-0.25, 1.0]]), "b": torch.tensor([0.5, -0.5])}


def dtypes_are_the_bases(candidate):
    for name, tensor in candidate(BASE, REMAINDER).items():
        if tensor.dtype != BASE[name].dtype:
            raise Wrong(f"expected {BASE[name].dtype} under {name!r}, got {tensor.dtype}")


def memory_is_its_own(candidate):
    found = candidate(BASE, REMAINDER)
    base, _ = candidate.after
    for name, tensor in base.items():
        if found[name].data_ptr() == tensor.data_ptr():
            raise Wrong(f"expected a new tensor under {name!r}, got the base's")


def tasks_that_fit(budget: int, model: int, file: int) -> int:
    """How many tasks fit into a budget when they share one model and each adds a file; all three in bytes."""
    return max(0, (budget - model) // file)


FIT_WRONG = {
    "I get a few tasks too many": lambda budget, model, file: budget // file,
    "I get far too few tasks": lambda budget, model, file: max(0, budget // (model + file)),
    "My last task does not quite fit": lambda budget, model, file: max(0, round((budget - model) / file)),
    "I get less than no task": lambda budget, model, file: (budget - model) // file,
    "A task that fits exactly is left out": lambda budget, model, file: max(0, (budget - model - 1) // file),
}


def what_fits_fits(candidate):
    for budget, model, file in ((10_000, 4_000, 700), (5_000, 4_000, 1), (4_100, 4_000, 99)):
        tasks = candidate(budget, model, file)
        if not model + tasks * file <= budget < model + (tasks + 1) * file:
            raise Wrong(f"expected the most tasks that fit into {budget} bytes, got {tasks}")


EXERCISES = (
    Exercise(
        name="remaining_length",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=10,
        reference=remaining_length,
        checks=(
            case(remaining_length, 4, 0.1),
            case(remaining_length, 1, 0.3),  # the only vector is the mean
            case(remaining_length, 5, 1.0),  # all the same: nothing is left
            real_vectors_agree,
        ),
        hints=(
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
            ("I get the square of the length", "That is the share of the energy. Take the root."),
        ),
        wrong=LENGTH_WRONG,
        start="Let all have length one. Write the squared length of the difference as three products: of the vector "
        "with itself, of the vector with the mean, of the mean with itself.",
        skeleton=(
            "def remaining_length(n, cosine):\n"
            "    with_the_mean = ...  # the product of one vector with the mean of all n\n"
            "    mean_with_itself = ...\n"
            "    return (1 - 2 * with_the_mean + mean_with_itself) ** 0.5"
        ),
    ),
    Exercise(
        name="remainder",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=remainder,
        checks=(
            case(remainder, FROM, TO),
            case(remainder, FROM, TO, 0.5),
            case(remainder, TO, FROM, 0.3),
            an_expert_that_did_not_move_leaves_nothing,
        ),
        hints=(
            ("Nothing is compressed", "expert - base is the whole difference. What makes it small is dts(...)."),
            (
                "I compress the expert, not what it adds",
                "An expert is mostly its base, which is stored already. Subtract first, then compress.",
            ),
            (
                "I subtract what was compressed before",
                "DTS of a difference is not the difference of two DTS: it keeps what is strong in its own input. "
                "Subtract first.",
            ),
            ("My remainder points back to the base", "It is to be added to the base: expert minus base."),
            ("My keep ratio has no effect", "dts takes the keep ratio as its second argument. Hand it on."),
            ("Biases are missing from my remainder", "Go through all names. dts knows what to do with each shape."),
        ),
        wrong=REMAINDER_WRONG,
        start="A state dict is a dict of names and tensors. Make one with the expert's names. What is each value?",
        skeleton=(
            "def remainder(base, expert, keep_ratio=0.1):\n"
            "    kept = {}\n"
            "    for name in expert:\n"
            "        difference = ...\n"
            "        kept[name] = ...\n"
            "    return kept"
        ),
    ),
    Exercise(
        name="rebuild",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=rebuild,
        checks=(
            case(rebuild, BASE, REMAINDER),
            case(rebuild, BASE, {}),  # an expert that did not move
            dtypes_are_the_bases,
            memory_is_its_own,
        ),
        hints=(
            (
                "Some tensors are missing from my expert",
                "Go through the base, not through the remainder: an expert has every tensor, changed or not.",
            ),
            ("My expert is only the remainder", "A remainder is a difference. Add it to the base's tensor."),
            (
                "The base has changed",
                "x += ... writes into the base, and the next task is rebuilt from the wrong model. Make new tensors.",
            ),
            (
                "My tensors have another dtype",
                "float16 plus float32 is float32 in torch. Put each sum back into the dtype of the base's tensor.",
            ),
            (
                "My expert and the base share memory",
                "A tensor that is handed on is the base's own: who changes one changes both. Hand on a copy.",
            ),
        ),
        wrong=REBUILD_WRONG,
        start="Make a dict with the names of the base. What is each tensor's value, with a remainder and without one?",
        skeleton=(
            "def rebuild(base, remainder):\n"
            "    expert = {}\n"
            "    for name, x in base.items():\n"
            "        if name in remainder:\n"
            "            expert[name] = ...  # in which dtype?\n"
            "        else:\n"
            "            expert[name] = ...  # whose memory?\n"
            "    return expert"
        ),
    ),
    Exercise(
        name="tasks_that_fit",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=tasks_that_fit,
        checks=(
            case(tasks_that_fit, 10_800, 4_000, 700),
            case(tasks_that_fit, 4_000 + 3 * 700, 4_000, 700),  # to the last byte
            case(tasks_that_fit, 3_000, 4_000, 700),  # not even the shared model
            what_fits_fits,
        ),
        hints=(
            ("I get a few tasks too many", "The shared model takes its space first."),
            ("I get far too few tasks", "The model is shared: it is stored once, not once for each task."),
            ("My last task does not quite fit", "Part of a file is of no use. Round down."),
            ("A task that fits exactly is left out", "A budget may be used up to its last byte."),
            ("I get less than no task", "Where not even the shared model fits, the answer is zero."),
        ),
        wrong=FIT_WRONG,
        start="What of the budget is left for files, once the shared model is stored?",
        skeleton=(
            "def tasks_that_fit(budget, model, file):\n"
            "    for_files = ...\n"
            "    whole_files = ...  # part of a file is of no use\n"
            "    return max(0, whole_files)"
        ),
    ),
)
