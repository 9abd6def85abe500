"""The exercises of notebook 12: what the layout of the attention weights costs, leaks, and a map of names."""

import torch
from torch import Tensor

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "12_full_scale"


def attention_bits(d: int, rank: int, fused: bool) -> int:
    """Bits of the q, k and v weights of one block, each d x d: 2 per code, 32 per singular value, one rank for both.

    Fused they are one 3d x d matrix, split they are three matrices.
    """
    matrices = [(3 * d, d)] if fused else [(d, d)] * 3
    return sum(2 * rank * (m + n) + 32 * rank for m, n in matrices)


BITS_WRONG = {
    "Both layouts cost the same in mine": lambda d, rank, fused: 3 * (4 * rank * d + 32 * rank),
    "My fused matrix costs as much as three split ones with one s": lambda d, rank, fused: (
        2 * rank * 6 * d + 32 * rank * (1 if fused else 3)
    ),
    "I forgot the singular values": lambda d, rank, fused: 2 * rank * (4 * d if fused else 6 * d),
    "I counted U and left V out": lambda d, rank, fused: 2 * rank * 3 * d + 32 * rank * (1 if fused else 3),
    "Mine are bytes": lambda d, rank, fused: attention_bits(d, rank, fused) // 8,
    "I counted whole matrices, not their components": lambda d, rank, fused: (
        2 * 3 * d * d + 32 * rank * (1 if fused else 3)
    ),
}


def split_is_three_times_one_square(candidate):
    one = 2 * 5 * (16 + 16) + 32 * 5
    if (found := int(candidate(16, 5, False))) != 3 * one:
        raise Wrong(f"expected three times {one} for three split 16 x 16 matrices at rank 5, got {found}")


def leaked(train: list[bytes], test: list[bytes]) -> int:
    """How many of the test images stand among the training images, byte for byte, wherever they stand there."""
    seen = set(train)
    return sum(image in seen for image in test)


LEAKED_WRONG = {
    "I compared them one by one in order": lambda train, test: sum(a == b for a, b in zip(train, test, strict=False)),
    "Mine is a share": lambda train, test: leaked(train, test) / len(test) if test else 0.0,
    "I count training images": lambda train, test: sum(image in set(test) for image in train),
    "Mine counts two equal test images once": lambda train, test: len(set(train) & set(test)),
    "Mine is true or false": lambda train, test: bool(set(train) & set(test)),
}


def split_attention(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """'X.attn.in_proj_weight' (3d, d) and '..._bias' (3d,) -> 'X.self_attn.{q,k,v}_proj.weight' (d, d), '.bias' (d,).

    Queries come first, then keys, then values. Other tensors keep their names. ``state`` itself stays as it was.
    """
    result = {}
    for name, tensor in state.items():
        block, found, kind = name.rpartition("attn.in_proj_")
        if not found:
            result[name] = tensor
            continue
        for part, third in zip("qkv", tensor.chunk(3), strict=True):
            result[f"{block}self_attn.{part}_proj.{kind}"] = third
    return result


def _split(state, order="qkv", cut=lambda tensor: tensor.chunk(3), kinds=("weight", "bias")):
    result = {}
    for name, tensor in state.items():
        block, found, kind = name.rpartition("attn.in_proj_")
        if not found or kind not in kinds:
            result[name] = tensor
            continue
        for part, third in zip(order, cut(tensor), strict=True):
            result[f"{block}self_attn.{part}_proj.{kind}"] = third
    return result


def _emptied(state):
    result = _split(state)
    for name in [name for name in state if "in_proj_" in name]:
        state.pop(name)
    return result


SPLIT_WRONG = {
    "I took every third row": lambda state: _split(state, cut=lambda tensor: [tensor[i::3] for i in range(3)]),
    "I cut the columns": lambda state: _split(state, cut=lambda tensor: tensor.chunk(3, dim=-1)),
    "Mine are keys, queries, values": lambda state: _split(state, order="kqv"),
    "My biases are still fused": lambda state: _split(state, kinds=("weight",)),
    "I lost the other tensors": lambda state: {name: x for name, x in _split(state).items() if "self_attn" in name},
    "My names lost their block": lambda state: {
        name[name.find("self_attn") :] if "self_attn" in name else name: x for name, x in _split(state).items()
    },
    "I changed the state dict that I was given": _emptied,
}


def _attention() -> dict[str, Tensor]:
    """Two small blocks whose rows tell where they come from, and tensors that are none of attention's."""
    state = {"conv1.weight": torch.ones(2, 2)}
    for block in range(2):
        weight = torch.arange(9.0).repeat_interleave(3).view(9, 3) + 10 * block
        state |= {
            f"blocks.{block}.attn.in_proj_weight": weight,
            f"blocks.{block}.attn.in_proj_bias": weight[:, 0] + 0.5,
        }
        state[f"blocks.{block}.attn.out_proj.weight"] = torch.full((3, 3), float(block))
    return state


def names_are_those_of_transformers(candidate):
    found, expected = candidate(_attention()), split_attention(_attention())
    if not isinstance(found, dict):
        raise Wrong(f"expected a dict of names and tensors, got {type(found).__name__}")
    if found.keys() != expected.keys():
        name = next(iter(expected.keys() - found.keys() or found.keys() - expected.keys()))
        what = "a tensor" if name in expected else "no tensor"
        raise Wrong(f"expected {what} {name!r}, got {', '.join(found) or 'nothing'}")


def values_are_the_thirds(candidate):
    found, expected = candidate(_attention()), split_attention(_attention())
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape or not found[name].equal(tensor):
            raise Wrong(f"{name}: expected {tensor.tolist()}, got {found[name].tolist()}")


def the_given_state_dict_stays(candidate):
    candidate(_attention())
    (given,) = candidate.after
    if lost := _attention().keys() - given.keys():
        raise Wrong(f"expected the given state dict to keep {min(lost)!r}, got one without it")


EXERCISES = (
    Exercise(
        name="attention_bits",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=attention_bits,
        checks=(
            case(attention_bits, 768, 230, True),
            case(attention_bits, 768, 230, False),
            case(attention_bits, 4, 1, True),
            split_is_three_times_one_square,
        ),
        hints=(
            ("Mine are bytes", "The question is for bits. Leave the division by eight for later."),
            (
                "I counted whole matrices, not their components",
                "Nothing of size d x d is stored. U has rank columns and V has rank columns.",
            ),
            ("I counted U and left V out", "An m x n matrix leaves rank * m codes in U and rank * n codes in V."),
            ("I forgot the singular values", "Each matrix keeps rank singular values, of 32 bits each."),
            (
                "Both layouts cost the same in mine",
                "Your result does not use `fused`. Write down the shapes of the matrices for both layouts first.",
            ),
            (
                "My fused matrix costs as much as three split ones with one s",
                "Look at V. The fused matrix has a single V, with d rows; three split ones have one each.",
            ),
        ),
        wrong=BITS_WRONG,
        start="Write down the shapes of the matrices in both layouts. How many codes and singular values has each?",
        skeleton="""def attention_bits(d, rank, fused):
    matrices = [(3 * d, d)] if fused else ...
    return sum(... for m, n in matrices)""",
    ),
    Exercise(
        name="leaked",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=leaked,
        checks=(
            case(leaked, [b"a", b"a", b"a", b"b", b"c"], [b"c", b"x", b"c", b"a"]),
            case(leaked, [b"a", b"a", b"b"], [b"b", b"a"]),
            case(leaked, [b"a"], [b"b", b"x"]),
            case(leaked, [], [b"a"]),
            case(leaked, [b"ab", b"cd"], [b"bc", b"cd", b"a"]),  # whole images, not bytes in a row
        ),
        hints=(
            (
                "I compared them one by one in order",
                "A leaked image can stand anywhere in the training split. Look each one up in a set.",
            ),
            ("Mine is true or false", "A check that only says yes cannot say how bad it is. Count."),
            ("Mine is a share", "The question is for a number of images."),
            ("I count training images", "The test images are the ones whose accuracy is in doubt: go through those."),
            (
                "Mine counts two equal test images once",
                "Two equal test images that both stand in training are two wrong entries of the accuracy.",
            ),
        ),
        wrong=LEAKED_WRONG,
        pace=([number.to_bytes(4) for number in range(6_000)], [number.to_bytes(4) for number in range(3_000, 9_000)]),
        faster="look each image up in a set, not in a list",
        start="Take one test image: does it stand anywhere in the training split? Then count over all test images.",
        skeleton="""def leaked(train, test):
    seen = set(train)
    return ...""",
    ),
    Exercise(
        name="split_attention",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=split_attention,
        checks=(names_are_those_of_transformers, values_are_the_thirds, the_given_state_dict_stays),
        hints=(
            ("I cut the columns", "The three matrices are stacked: cut along the first dimension, the outputs."),
            (
                "I took every third row",
                "The first d rows are all queries, the next d all keys. `tensor.chunk(3)` cuts so.",
            ),
            ("Mine are keys, queries, values", "Queries come first in open_clip's stack."),
            ("My biases are still fused", "`in_proj_bias` holds three biases, one after the other, like the weight."),
            ("I lost the other tensors", "Whatever is not `attn.in_proj_...` goes into the result under its own name."),
            ("My names lost their block", "What stands before `attn.` stays: without it all blocks share three names."),
            (
                "I changed the state dict that I was given",
                "Fill a new dict. Somebody else may still need the old one.",
            ),
        ),
        wrong=SPLIT_WRONG,
        start="Begin with a new dict, and copy into it all that is not attention's. Then cut one weight into thirds.",
        skeleton="""def split_attention(state):
    result = {}
    for name, tensor in state.items():
        block, found, kind = name.rpartition("attn.in_proj_")
        if not found:
            result[name] = tensor
            continue
        for part, third in zip("qkv", ..., strict=True):
            ...
    return ...""",
    ),
)
