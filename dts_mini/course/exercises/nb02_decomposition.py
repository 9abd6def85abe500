"""The exercises of notebook 02: how many components an energy takes, what truncation costs, truncation by hand."""

import torch

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "02_decomposition"


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


def truncated(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """A matrix (m, n) -> the nearest matrix (m, n) of this rank, found without an SVD; rank 0 gives zeros."""
    wide = matrix.shape[0] < matrix.shape[1]
    tall = (matrix.T if wide else matrix).double()
    _, v = torch.linalg.eigh(tall.T @ tall)
    leading = v.flip(1)[:, :rank]
    cut = (tall @ leading @ leading.T).to(matrix.dtype)
    return cut.T if wide else cut


def _gram(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvectors of M^T M, the leading one first, and M; in float64."""
    exact = matrix.double()
    return torch.linalg.eigh(exact.T @ exact).eigenvectors.flip(1), exact


def _weakest(matrix, rank):
    v, exact = _gram(matrix)
    v = v.flip(1)[:, :rank]
    return (exact @ v @ v.T).to(matrix.dtype)


def _counted_from_the_end(matrix, rank):
    v, exact = _gram(matrix)
    v = v.flip(1)[:, -rank:]
    return (exact @ v @ v.T).to(matrix.dtype)


def _only_coordinates(matrix, rank):
    v, exact = _gram(matrix)
    return (exact @ v[:, :rank]).to(matrix.dtype)


def _on_its_side(matrix, rank):
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return truncated(tall, rank)


def _in_single_precision(matrix, rank):
    v = torch.linalg.eigh(matrix.T @ matrix).eigenvectors.flip(1)[:, :rank]
    return matrix @ v @ v.T


TRUNCATED_WRONG = {
    "My result is far too small": _weakest,
    "My result at rank 0 is the whole matrix": _counted_from_the_end,
    "My result has too few columns": _only_coordinates,
    "My wide matrix comes back on its side": _on_its_side,
    "My small components are noise": _in_single_precision,
}
TALL = torch.tensor([[4.0, 0.0, 1.0], [0.0, 3.0, -1.0], [2.0, 1.0, 0.0], [0.0, -1.0, 2.0]])


def a_small_component_beside_a_large_one_is_found(candidate):
    generator = torch.Generator().manual_seed(3)
    u, v = (torch.linalg.qr(torch.randn(n, 2, generator=generator).double()).Q for n in (12, 9))
    matrix = (u @ torch.diag(torch.tensor([1000, 0.03], dtype=torch.float64)) @ v.T).float()  # its rank is 2
    off = (candidate(matrix, 2) - matrix).norm().item()
    if not off < 0.005:
        message = (
            f"expected a matrix with the singular values 1000 and 0.03 to be whole at rank 2, got an error of {off:.2g}"
        )
        raise Wrong(message)


EXERCISES = (
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
        wrong=ERROR_WRONG,
    ),
    Exercise(
        name="truncated",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=15,
        reference=truncated,
        checks=(
            case(truncated, TALL, 1),
            case(truncated, TALL, 2),
            case(truncated, TALL.T.contiguous(), 2),
            case(truncated, TALL, 3),
            case(truncated, TALL, 0),
            a_small_component_beside_a_large_one_is_found,
        ),
        hints=(
            (
                "My result has too few columns",
                "M V_r holds coordinates along the leading directions. Go back from coordinates to columns.",
            ),
            (
                "My result is far too small",
                "eigh sorts its eigenvalues from small to large. Which end do you want?",
            ),
            (
                "My wide matrix comes back on its side",
                "If you turned the matrix to get the smaller Gram matrix, turn the result back.",
            ),
            (
                "My result at rank 0 is the whole matrix",
                "In Python, v[:, -0:] is all of v. Turn the order round first, then take the first r.",
            ),
            (
                "My small components are noise",
                "A Gram matrix squares the singular values, and single precision loses the small ones. "
                "Multiply in float64, and give the result the matrix's own dtype.",
            ),
        ),
        wrong=TRUNCATED_WRONG,
    ),
)
