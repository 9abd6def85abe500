"""The exercises of notebook 02: truncation, how many components an energy takes, what is lost, signs, decompose."""

import torch

from dts_mini.course.exercise import CHANGED, Candidate, Exercise, Wrong, case, difference

NOTEBOOK = "02_decomposition"


# --- leading ---


def leading(M: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A matrix M (m, n) and a rank r -> its r leading components: U (m, r), s (r,) and V^T (r, n)."""
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)
    return U[:, :r], s[:r], Vt[:r]


def _svd(M: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(torch.linalg.svd(M, full_matrices=False))


LEADING_WRONG = {
    "My U has r rows": lambda M, r: (_svd(M)[0][:r], _svd(M)[1][:r], _svd(M)[2][:r]),
    "My V^T has r columns": lambda M, r: (_svd(M)[0][:, :r], _svd(M)[1][:r], _svd(M)[2][:, :r]),
    "My third result is V, not its transpose": lambda M, r: (*leading(M, r)[:2], leading(M, r)[2].T),
    "My singular values are the smallest ones": lambda M, r: (_svd(M)[0][:, -r:], _svd(M)[1][-r:], _svd(M)[2][-r:]),
    "My columns of U are not of unit length": lambda M, r: (leading(M, r)[0] * leading(M, r)[1], *leading(M, r)[1:]),
}


def _one_way(found):
    """Components with the largest element of each row of V^T positive; whatever else it is as it is."""
    try:
        u, s, vt = found
        sign = vt.gather(1, vt.abs().argmax(1, keepdim=True)).sign()
        return u * sign.T, s, vt * sign
    except Exception:
        return found


def with_any_signs(reference: Candidate, M: torch.Tensor, *rest) -> Candidate:
    """A check like ``case`` to which (u, v) and (-u, -v) are the same component."""

    def run(candidate):
        found = candidate(M, *rest)
        problem = difference(_one_way(found), _one_way(reference(M, *rest)))
        if not problem and difference(candidate.after, (M, *rest)):
            problem = CHANGED
        if problem:
            raise Wrong(problem)

    return run


TALL = torch.tensor([[4.0, 0.0, 1.0], [0.0, 3.0, -1.0], [2.0, 1.0, 0.0], [0.0, -1.0, 2.0]])
WIDE = TALL.T.contiguous()


# --- rank_for_energy ---


def rank_for_energy(s: torch.Tensor, share: float) -> int:
    """All singular values s (k), falling, and a share in [0, 1] -> the smallest rank that holds it, at least 1."""
    energy = s.double().square().cumsum(0)
    return int((energy < share * energy[-1]).sum()) + 1


RANK_WRONG = {
    "My rank is one too small": lambda s, share: int((s.square().cumsum(0) < share * s.square().sum()).sum()),
    "My rank is one too large": lambda s, share: int((s.square().cumsum(0) <= share * s.square().sum()).sum()) + 1,
    "My rank grows too fast with the share": lambda s, share: int((s.cumsum(0) < share * s.sum()).sum()) + 1,
    "My rank changes when I double the matrix": lambda s, share: int((s.square().cumsum(0) < share).sum()) + 1,
    "My rank falls when the share grows": lambda s, share: int((s.square() >= share * s.square().sum()).sum()),
}
FALLING = torch.tensor([4.0, 2.0, 2.0, 1.0])  # the energies 16, 4, 4, 1 add up to 25
EVEN = torch.tensor([2.0, 2.0, 2.0, 2.0])
SHORT = torch.tensor([2.0, 1.0, 0.0, 0.0])  # a matrix of rank 2


def the_rank_holds_the_share_and_no_smaller_one_does(candidate):
    s = torch.tensor([5.0, 3.0, 2.5, 1.5, 0.7, 0.2])
    energy = s.square() / s.square().sum()
    for share in (0.3, 0.6, 0.75, 0.9, 0.99):
        rank = int(candidate(s, share))
        if not 1 <= rank <= len(s):
            raise Wrong(f"expected a rank from 1 to {len(s)} for the share {share}, got {rank}")
        if energy[:rank].sum() < share:
            raise Wrong(f"expected a rank that holds {share} of the energy, got {rank}, which holds less")
        if energy[: rank - 1].sum() >= share:
            raise Wrong(f"expected the smallest rank for the share {share}, got {rank}: one less is enough")


# --- truncation_error ---


def truncation_error(s: torch.Tensor, rank: int) -> float:
    """All singular values s (k), falling -> relative error of the best matrix of this rank; 0 for a zero matrix."""
    energy = s.double().square()
    lost, total = energy[rank:].sum(), energy.sum()
    return (lost / total).sqrt().item() if total > 0 else 0.0


def _root(x: torch.Tensor) -> float:
    return x.sqrt().item()


def _share(part: torch.Tensor, whole: torch.Tensor) -> float:
    return _root(part.square().sum() / whole.square().sum()) if whole.any() else 0.0


ERROR_WRONG = {
    "My error grows with the rank": lambda s, r: _share(s[:r], s),
    "My error is below the true one, whatever the rank": lambda s, r: _share(s[r:], s) ** 2,
    "My error is that of the next rank": lambda s, r: _share(s[r + 1 :], s),
    "My error is above 1": lambda s, r: _root(s[r:].square().sum()),
    "My error depends on how I add up": lambda s, r: (s[r:].sum() / s.sum()).item() if s.any() else 0.0,
    "My error of a zero matrix is nan": lambda s, r: _root(s[r:].square().sum() / s.square().sum()),
}


def it_is_the_error_of_the_rebuilt_matrix(candidate):
    matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    for rank in (1, 2, 3):
        measured = ((matrix - u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]).norm() / matrix.norm()).item()
        if abs(found := float(candidate(s, rank)) - measured) > 1e-4:
            raise Wrong(f"expected the measured error of a random matrix at rank {rank}, got one off by {found:.3g}")


# --- settle_signs ---


def settle_signs(U: torch.Tensor, Vt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """U (m, r), V^T (r, n) -> the same components, the element of largest size in each row of V^T positive."""
    sign = Vt.gather(1, Vt.abs().argmax(1, keepdim=True)).sign()
    return U * sign.T, Vt * sign


def _flipped(U, Vt, sign):
    sign = torch.where(sign < 0, -1.0, 1.0)
    return U * sign, Vt * sign[:, None]


SIGNS_WRONG = {
    "I flipped V^T alone": lambda U, Vt: (U, settle_signs(U, Vt)[1]),
    "All elements of my V^T are positive": lambda U, Vt: (settle_signs(U, Vt)[0], Vt.abs()),
    "Nothing is flipped": lambda U, Vt: (U, Vt),
    "Rows of mine keep a large negative element": lambda U, Vt: _flipped(U, Vt, Vt.amax(1)),
    "I look at U": lambda U, Vt: _flipped(U, Vt, U.gather(0, U.abs().argmax(0, keepdim=True))[0]),
    "I look at the sum of a row": lambda U, Vt: _flipped(U, Vt, Vt.sum(1)),
    "I flip all components as the first one": lambda U, Vt: _flipped(
        U, Vt, Vt[0, Vt[0].abs().argmax()].expand(len(Vt))
    ),
}
SIDES = torch.tensor([[0.6, 0.0, 0.8], [-0.8, 0.0, 0.6], [0.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
ACROSS = torch.tensor([[0.5, 0.5, -0.7, 0.1], [0.2, 0.4, 0.1, 0.9], [-0.6, -0.5, -0.4, 0.5]])


def the_product_stays_and_each_row_has_its_largest_element_positive(candidate):
    g = torch.Generator().manual_seed(5)
    U, Vt = torch.randn(7, 4, generator=g), torch.randn(4, 6, generator=g)
    problem = difference(candidate(U, Vt), settle_signs(U, Vt))
    if problem:
        raise Wrong(problem)


# --- decompose ---


def decompose(M: torch.Tensor, keep_ratio: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A matrix M (m, n) and the share of its components to keep -> U (m, r), s (r,) and V^T (r, n)."""
    U, s, Vt = leading(M, min(M.shape))
    real = int((s > s[0] * torch.finfo(s.dtype).eps * max(M.shape)).sum())
    r = max(1, min(int(keep_ratio * min(M.shape) + 1e-9), real))
    U, Vt = settle_signs(U[:, :r], Vt[:r])
    return U * (M != 0).any(1, keepdim=True), s[:r], Vt * (M != 0).any(0)


def _decompose(
    M, keep_ratio, *, side=min, round=lambda x: int(x + 1e-9), least=1, floor=None, settle=settle_signs, masked=True
):
    U, s, Vt = _svd(M)
    floor = s[0] * torch.finfo(s.dtype).eps * max(M.shape) if floor is None else floor
    r = max(least, min(round(keep_ratio * side(M.shape)), max(1, int((s > floor).sum()))))
    U, Vt = settle(U[:, :r], Vt[:r]) if r else (U[:, :r], Vt[:r])
    return (U * (M != 0).any(1, keepdim=True), s[:r], Vt * (M != 0).any(0)) if masked else (U, s[:r], Vt)


DECOMPOSE_WRONG = {
    "I keep too many components": lambda M, rho: _decompose(M, rho, side=max),
    "My rank is rounded up": lambda M, rho: _decompose(M, rho, round=lambda x: int(-(-(x - 1e-9) // 1))),
    "My rank is rounded to the nearest": lambda M, rho: _decompose(M, rho, round=lambda x: int(x + 0.5)),
    "A small keep ratio leaves me nothing": lambda M, rho: _decompose(M, rho, least=0),
    "Of 50 components 0.58 are 28": lambda M, rho: _decompose(M, rho, round=int),
    "I keep components that are rounding": lambda M, rho: _decompose(M, rho, floor=-1),
    "My rank changes when I shrink the matrix": lambda M, rho: _decompose(M, rho, floor=1e-5),
    "Some components have the opposite signs": lambda M, rho: _decompose(M, rho, settle=lambda U, Vt: (U, Vt)),
    "I flipped V^T, and U stayed": lambda M, rho: _decompose(M, rho, settle=lambda U, Vt: (U, settle_signs(U, Vt)[1])),
    "Rows of zeros come back with dust in them": lambda M, rho: _decompose(M, rho, masked=False),
}
G = torch.Generator().manual_seed(7)
SIX = torch.randn(8, 6, generator=G)
FLAT = torch.randn(4, 7, generator=G)
FIFTY = torch.randn(50, 60, generator=G)
RANK_TWO = torch.randn(9, 2, generator=G) @ torch.randn(2, 6, generator=G)


def what_is_zero_in_m_is_exactly_zero(candidate):
    M = torch.randn(40, 30, generator=torch.Generator().manual_seed(8))
    M[[3, 17, 20]], M[:, [5, 11]] = 0, 0
    U, s, Vt = candidate(M, 0.5)
    for name, part in (("row 3, 17 or 20 of U", U[[3, 17, 20]]), ("column 5 or 11 of V^T", Vt[:, [5, 11]])):
        if part.any():
            raise Wrong(f"expected exact zeros where M has nothing but zeros, got {part.abs().max():.2g} in {name}")
    if problem := difference((U, s, Vt), decompose(M, 0.5)):
        raise Wrong(problem)


def a_shorter_matrix_has_as_many_components(candidate):
    for M, what in ((1e-6 * RANK_TWO, "float32, times 1e-6"), (1e6 * RANK_TWO, "float32, times 1e6")):
        if len(found := candidate(M, 1.0)[1]) != 2:
            raise Wrong(f"expected the 2 components of a matrix of rank 2 ({what}), got {len(found)}")


EXERCISES = (
    Exercise(
        name="leading",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=leading,
        checks=(
            with_any_signs(leading, TALL, 2),
            with_any_signs(leading, TALL, 3),  # all there are
            with_any_signs(leading, WIDE, 1),
            with_any_signs(leading, SIX, 4),
        ),
        start="The cell above takes M apart. Take it apart in your function, and keep the first r of everything.",
        hints=(
            (
                "My U has r rows",
                "A component is a column of U. Leave all rows, and take the first r columns: U[:, ...].",
            ),
            ("My V^T has r columns", "In V^T a component is a row, and every row stays as long as it is."),
            ("My third result is V, not its transpose", "Return V^T with a row for each component, as torch gives it."),
            (
                "My singular values are the smallest ones",
                "torch sorts them, the largest first. The leading ones are at the front.",
            ),
            (
                "My columns of U are not of unit length",
                "Return the three parts as they are. They are multiplied when M_r is built, not before.",
            ),
        ),
        skeleton=(
            "def leading(M, r):\n"
            "    U, s, Vt = torch.linalg.svd(M, full_matrices=False)\n"
            "    return U[...], s[...], Vt[...]"
        ),
        wrong=LEADING_WRONG,
    ),
    Exercise(
        name="rank_for_energy",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=rank_for_energy,
        checks=(
            case(rank_for_energy, FALLING, 0.9),
            case(rank_for_energy, FALLING, 0.7),
            case(rank_for_energy, EVEN, 0.5),  # met exactly
            case(rank_for_energy, SHORT, 1.0),
            case(rank_for_energy, FALLING, 0.0),
            the_rank_holds_the_share_and_no_smaller_one_does,
        ),
        pace=(torch.linspace(2, 1, 20_000), 0.9),
        start="Square the singular values and add them up from the front: `cumsum` gives the energy of the first 1, 2, "
        "3, ... components. Which of these sums are not enough?",
        hints=(
            (
                "My rank changes when I double the matrix",
                "A share is a share of something. Compare with the energy of all components together.",
            ),
            ("My rank grows too fast with the share", "Energy adds up squares of singular values, not the values."),
            (
                "My rank falls when the share grows",
                "You ask each component whether it holds the share alone. "
                "Ask it of the first r together: a running sum.",
            ),
            (
                "My rank is one too small",
                "You counted the ranks that are not enough. The first one that is enough comes after them.",
            ),
            (
                "My rank is one too large",
                "Where the leading components hold exactly the share, they are enough: look at < and <=.",
            ),
        ),
        skeleton=(
            "def rank_for_energy(s, share):\n"
            "    energy = s.square().cumsum(0)  # of the first 1, 2, 3, ... components\n"
            "    too_small = energy < ...\n"
            "    return int(too_small.sum()) + ..."
        ),
        wrong=RANK_WRONG,
    ),
    Exercise(
        name="truncation_error",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=truncation_error,
        checks=(
            case(truncation_error, FALLING, 1),
            case(truncation_error, FALLING, 2),
            case(truncation_error, FALLING, 4),  # full rank: nothing is lost
            case(truncation_error, FALLING, 0),  # everything is
            case(truncation_error, torch.zeros(3), 1),
            it_is_the_error_of_the_rebuilt_matrix,
        ),
        pace=(torch.linspace(2, 1, 50_000), 1_000),
        start="Write down which entries of s are dropped at rank r. Their squares stand above the line of the formula, "
        "all squares below it.",
        hints=(
            ("My error grows with the rank", "You measure what is kept. The error is made of what is left out."),
            ("My error is above 1", "The error is relative: divide by the length of the whole matrix."),
            (
                "My error is below the true one, whatever the rank",
                "A quotient of energies is a squared error. The error itself is its root.",
            ),
            (
                "My error depends on how I add up",
                "Components stand at right angles: their squares add up, as in Pythagoras, not their lengths.",
            ),
            (
                "My error is that of the next rank",
                "At rank 1 the first component is kept, which has the index 0. Which index is the first to be lost?",
            ),
            ("My error of a zero matrix is nan", "A zero matrix has no energy to divide by. Answer before you divide."),
        ),
        skeleton=(
            "def truncation_error(s, rank):\n"
            "    energy = s.square()\n"
            "    lost, total = ..., energy.sum()\n"
            "    return ... if total > 0 else 0.0"
        ),
        wrong=ERROR_WRONG,
    ),
    Exercise(
        name="settle_signs",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=settle_signs,
        checks=(
            case(settle_signs, SIDES, ACROSS),
            case(settle_signs, SIDES, -ACROSS),
            case(settle_signs, -SIDES[:, 1:], ACROSS[1:]),
            the_product_stays_and_each_row_has_its_largest_element_positive,
        ),
        start="Find the place of the largest element in each row of `Vt.abs()` with `argmax(1)`. Is Vt positive or "
        "negative there?",
        hints=(
            (
                "I flipped V^T alone",
                "Then the product changes its sign. Flip the column of U that belongs to the row, too.",
            ),
            (
                "All elements of my V^T are positive",
                "A component is flipped as a whole: multiply the whole row by one sign, 1 or -1.",
            ),
            (
                "Nothing is flipped",
                "Multiply a row of V^T, and its column of U, by -1 where its largest element is negative.",
            ),
            (
                "Rows of mine keep a large negative element",
                "The largest element is nearly always positive. Look for the one of largest *size*: use Vt.abs().",
            ),
            ("I look at U", "The rule looks at the rows of V^T. The columns of U follow."),
            (
                "I look at the sum of a row",
                "A sum of pluses and minuses may be near zero, where rounding decides. The rule looks at one element.",
            ),
            (
                "I flip all components as the first one",
                "Each component is judged by itself: you need r signs, one for each row of V^T.",
            ),
        ),
        skeleton=(
            "def settle_signs(U, Vt):\n"
            "    place = Vt.abs().argmax(1, keepdim=True)  # (r, 1)\n"
            "    sign = Vt.gather(1, place).sign()  # (r, 1)\n"
            "    return U * ..., Vt * ..."
        ),
        wrong=SIGNS_WRONG,
    ),
    Exercise(
        name="decompose",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=12,
        reference=decompose,
        checks=(
            case(decompose, SIX, 0.5),
            case(decompose, FLAT, 0.7),  # 2.8 of 4
            case(decompose, FLAT, 0.6),  # 2.4 of 4
            case(decompose, SIX, 0.1),  # at least one
            case(decompose, -SIX, 1.0),
            case(decompose, FIFTY, 0.58),  # 28.999999999999996 of 50
            case(decompose, RANK_TWO, 1.0),
            a_shorter_matrix_has_as_many_components,
            what_is_zero_in_m_is_exactly_zero,
            case(decompose, torch.zeros(4, 3), 0.5),
        ),
        start="Begin with the first rule alone: from the keep ratio to r, then `leading` and `settle_signs`. Run the "
        "check. Then add the other rules one at a time.",
        hints=(
            (
                "I keep too many components",
                "A matrix has min(m, n) components. The keep ratio is a share of those.",
            ),
            ("My rank is rounded up", "The rule rounds down: a component that is kept in part is not kept."),
            ("My rank is rounded to the nearest", "The rule rounds down, also from 2.8."),
            ("A small keep ratio leaves me nothing", "At least one component stays, however small the keep ratio is."),
            (
                "Of 50 components 0.58 are 28",
                "0.58 * 50 is 28.999999999999996 in floats. Add a very small number, say 1e-9, before you round down.",
            ),
            (
                "I keep components that are rounding",
                "The rank of a matrix may be lower than r. Keep no s_i that is at or below s_1 * eps * max(m, n).",
            ),
            (
                "My rank changes when I shrink the matrix",
                "A singular value is rounding *beside the first one*. Multiply s_1 into your limit.",
            ),
            (
                "Some components have the opposite signs",
                "Let settle_signs decide, after you have taken the leading components.",
            ),
            ("I flipped V^T, and U stayed", "settle_signs returns both. Use both."),
            (
                "Rows of zeros come back with dust in them",
                "Where a whole row of M is zero, put exact zeros into that row of U; the same for columns and V^T. "
                "(M != 0).any(1) says which rows are not zero.",
            ),
        ),
        skeleton=(
            "def decompose(M, keep_ratio):\n"
            "    U, s, Vt = leading(M, min(M.shape))  # all of them\n"
            "    real = int((s > ...).sum())  # how many are more than rounding\n"
            "    r = max(1, min(..., real))\n"
            "    U, Vt = settle_signs(...)\n"
            "    return U * (M != 0).any(1, keepdim=True), s[:r], Vt * ..."
        ),
        wrong=DECOMPOSE_WRONG,
    ),
)
