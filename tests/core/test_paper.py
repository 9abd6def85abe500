"""The paper's page and the machine hold the same numbers."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from dts_mini import compress, fuse, fusion_weights, personalise, rebuild
from dts_mini.core import paper
from dts_mini.suites.mini.suite import MiniSuite


def close(found: dict, wanted: dict, tolerance: float = 1e-6) -> None:
    for name, tensor in wanted.items():
        far = torch.linalg.vector_norm((found[name] - tensor).flatten())
        assert far <= tolerance * max(1.0, float(torch.linalg.vector_norm(tensor.flatten()))), name


def machine(x: torch.Tensor, keep_ratio: float) -> torch.Tensor:
    base = {"x": torch.zeros_like(x)}
    return rebuild(base, compress(base, {"x": x}, keep_ratio=keep_ratio, algorithm="exact"))["x"]


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(1, 12), min_size=0, max_size=4),
    keep_ratio=st.floats(0.01, 1),
    rank=st.integers(1, 12),
    sparse=st.sampled_from(["dense", "one sign", "few values", "zero rows", "zero columns", "zero elements"]),
    seed=st.integers(0, 10**6),
)
def test_the_machine_is_the_paper_for_every_shape_ratio_rank_and_zero(shape, keep_ratio, rank, sparse, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    if len(shape) == 2:
        m, n = shape
        inner = min(rank, m, n)
        x = torch.randn(m, inner, generator=g, dtype=torch.float64) @ torch.randn(inner, n, generator=g).double()
    match sparse:
        case "one sign":
            x = x.abs()
        case "few values" if len(shape) != 2:  # equal singular values have no unique vectors
            x = x.round()
        case "zero rows" if shape:
            x[torch.rand(shape[0], generator=g) < 0.5] = 0
        case "zero columns" if shape:
            x[..., torch.rand(shape[-1], generator=g) < 0.5] = 0
        case "zero elements" if len(shape) != 2:
            x = x * (torch.rand(shape, generator=g) < 0.5)
    close({"x": machine(x, keep_ratio)}, {"x": paper.dts(x, keep_ratio)})


@pytest.mark.zoo
@pytest.mark.parametrize("keep_ratio", [0.1, 0.3])
def test_a_real_expert_is_rebuilt_as_the_paper_says(keep_ratio):
    suite = MiniSuite()
    base = {name: tensor.double() for name, tensor in suite.pretrained().items()}
    expert = {name: tensor.double() for name, tensor in suite.expert("digits").items()}
    wanted = paper.rebuild(base, paper.remainder(base, expert, keep_ratio))
    close(rebuild(base, compress(base, expert, keep_ratio=keep_ratio, algorithm="exact")), wanted)


@settings(max_examples=30, deadline=None)
@given(tasks=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_fusing_for_an_unseen_task_is_the_papers(tasks, seed):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    base = {"w": draw(9, 7), "b": draw(9)}
    experts = {str(n): {name: tensor + draw(*tensor.shape) for name, tensor in base.items()} for n in range(tasks)}
    weights = fusion_weights(unseen := draw(6), seen := draw(tasks, 6))
    assert torch.equal(weights, paper.weights(unseen, seen))
    deltas = personalise(base, experts, keep_ratio=0.5, algorithm="exact")
    wanted = paper.fuse(base, [paper.remainder(base, expert, 0.5) for expert in experts.values()], weights)
    close(fuse(base, list(deltas.values()), weights), wanted)


def test_a_frozen_row_of_a_full_matrix_stays_frozen():
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    x[[3, 17]], x[:, 5] = 0, 0
    again = paper.dts(x, 0.5)
    assert not again[[3, 17]].any() and not again[:, 5].any() and again[4].any()


def test_the_paper_fits_on_a_page_and_needs_torch_alone():
    lines = Path(paper.__file__).read_text().splitlines()
    assert len(lines) <= 110
    assert {line.split()[1].split(".")[0] for line in lines if line.startswith(("import", "from"))} == {"torch"}
