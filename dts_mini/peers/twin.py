"""Twin-Merging (arXiv 2406.15479): a merged model for all tasks, and what each has beyond it, low-rank."""

from collections.abc import Mapping

from dts_mini.core.merging import task_arithmetic
from dts_mini.core.state import State, exactly
from dts_mini.peers.low_rank import low_rank
from dts_mini.peers.peer import Peer


@exactly
def twin_merging(
    theta_0: State,
    experts: Mapping[str, State],
    budget: int | str | None = None,
    *,
    coefficient: float = 0.3,
    share: float | None = None,
    vector_bits: int | None = None,
) -> Peer:
    """The shared expert is Task Arithmetic's; the exclusive knowledge of a task is the truncated SVD of the rest.

    ``share`` of the components of each matrix, without a budget: 0.1, as the paper's code. The task is known, so that
    the router, which is trained on data, has no part; the shared expert takes theta_0's place and costs nothing.
    """
    merged = task_arithmetic(theta_0, list(experts.values()), coefficient=coefficient) if experts else theta_0
    if budget is None and share is None:
        share = 0.1
    return low_rank(merged, experts, budget, share=share, vector_bits=vector_bits)
