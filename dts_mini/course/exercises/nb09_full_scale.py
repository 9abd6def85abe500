"""The exercise of notebook 09: what the layout of the attention weights costs."""

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "09_full_scale"


def attention_bits(d: int, rank: int, fused: bool) -> int:
    """Bits of the q, k and v weights of one block, each d x d: 2 a code, 32 a singular value, rank the same for both.

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


EXERCISES = (
    Exercise(
        name="attention_bits",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=6,
        reference=attention_bits,
        checks=(
            case(attention_bits, BITS_WRONG, 768, 230, True),
            case(attention_bits, BITS_WRONG, 768, 230, False),
            case(attention_bits, BITS_WRONG, 4, 1, True),
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
    ),
)
