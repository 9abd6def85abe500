"""Accuracies with their uncertainty: what a state dict answers, and how sure a mean over test inputs is."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dts_mini.core.state import State, fingerprint
from dts_mini.suites.streams import stream
from dts_mini.suites.suite import Suite

PART = 2_000  # inputs whose logits are kept together where a suite keeps them: what a kill may lose


@torch.no_grad()
def logits(suite: Suite, state: State, task: str, split: str = "test") -> Tensor:
    """Logits (n, classes) of a model's state dict on a task's split, under the task's head.

    A suite with a store keeps them, for this state dict and all that the answers depend on beside it.
    """
    inputs, _ = suite.inputs(task, split)
    if suite.store is None:
        return suite.answers(state, task, inputs)
    key = {**suite.identity(task, split), "model": fingerprint(state)}
    parts = [
        suite.store.tensor("logits", key | {"first": PART * number}, lambda part=part: suite.answers(state, task, part))
        for number, part in enumerate(inputs.split(PART))
    ]
    return torch.cat(parts)


def correct(suite: Suite, state: State, task: str, split: str = "test") -> Tensor:
    """Which inputs (n,) of a task's split are classified rightly."""
    return logits(suite, state, task, split).argmax(1) == suite.inputs(task, split)[1]


def divergence(reference: Tensor, other: Tensor) -> Tensor:
    """KL divergence (n,), in nats, of the predictions of ``other`` from those of ``reference``; both logits."""
    p, q = reference.log_softmax(1), other.log_softmax(1)
    return (p.exp() * (p - q)).sum(1)


def bootstrap(outcomes: Mapping[str, Mapping[str, Tensor]], draws: int = 2_000, seed: int = 0) -> dict[str, Tensor]:
    """Resampled accuracies of rows: {row: {task: correct (n,)}} -> {row: (draws, tasks)}.

    Test inputs are drawn anew, task by task, and alike for all rows, so that differences and shares of two rows may
    be taken draw by draw. Rows that hold the same tasks share their columns' order.
    """
    rows = list(outcomes)
    columns: dict[str, list[Tensor]] = {row: [] for row in rows}
    for task in outcomes[rows[0]]:
        table = torch.stack([outcomes[row][task].float() for row in rows])  # (rows, n)
        n = table.shape[1]
        picks = torch.randint(n, (draws, n), generator=stream("bootstrap", task, seed))
        weights = torch.zeros(draws, n).scatter_add_(1, picks, torch.full((draws, n), 1 / n))
        for row, column in zip(rows, (weights @ table.T).T, strict=True):
            columns[row].append(column)
    return {row: torch.stack(parts, 1) for row, parts in columns.items()}


def interval(draws: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled estimates (draws,)."""
    tail = (1 - level) / 2
    low, high = draws.quantile(torch.tensor([tail, 1 - tail], dtype=draws.dtype)).tolist()
    return low, high
