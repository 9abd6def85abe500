"""One expert's trial: how models answer its task's test images, beside the expert itself, with paired intervals."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dts_mini.core.state import State
from dts_mini.suites.evaluation import bootstrap, divergence, interval, logits
from dts_mini.suites.suite import Suite


class Trial:
    """Models against the expert of ``task``: each test image is ``right`` (n, bool) and ``kl`` (n, nats) away from it.

    ``expert`` holds the expert's own answers, whose divergence is zero.
    """

    def __init__(self, suite: Suite, task: str):
        self.suite, self.task, self.state = suite, task, suite.expert(task)
        self.labels, self.reference = suite.images(task, "test")[1], logits(suite, self.state, task)
        self.expert = {"right": self.reference.argmax(1) == self.labels, "kl": torch.zeros(len(self.labels))}

    def answers(self, state: State) -> dict[str, Tensor]:
        """{"right": which test images the model gets right, "kl": how far its predictions are from the expert's}."""
        found = logits(self.suite, state, self.task)
        return {"right": found.argmax(1) == self.labels, "kl": divergence(self.reference, found)}

    def judged(self, models: Mapping[float, State], base: State) -> dict[float, dict]:
        """The answers of several models, each with its ``error``: how far its matrices are from the expert's, as a
        share of how far those of ``base`` are."""
        whole = apart(base, self.state)
        return {key: {"error": apart(state, self.state) / whole} | self.answers(state) for key, state in models.items()}

    def gap(self, more: Mapping[str, Tensor], less: Mapping[str, Tensor], what: str) -> dict:
        """By how much ``what`` of one model's answers is above another's, in the mean, with its paired 95 % interval.

        In the form that ``claim`` takes: {"value": a number, "interval": (low, high)}.
        """
        draws = bootstrap({"more": {self.task: more[what]}, "less": {self.task: less[what]}})
        value = (more[what].float().mean() - less[what].float().mean()).item()
        return {"value": value, "interval": interval((draws["more"] - draws["less"])[:, 0])}


def apart(one: State, other: State) -> float:
    """The length of the difference of two models, all matrices together.

    >>> apart({"w": torch.tensor([[3.0, 4.0]]), "b": torch.ones(2)}, {"w": torch.zeros(1, 2), "b": torch.zeros(2)})
    5.0
    """
    squares = [(one[name] - other[name]).square().sum() for name, x in one.items() if x.dim() == 2]
    return torch.stack(squares).sum().sqrt().item()


def equally_wrong(base: State, expert: State, model: State, seed: int = 0) -> dict[str, State]:
    """Models to compare with ``model``, which lies between ``base`` and ``expert``.

    ``random error`` and ``shrunk`` are as far from the expert in every matrix as the model is: by random numbers, and
    by a shorter task vector. ``only the rest`` has the base's matrices and what the model's lack. Other tensors are the
    expert's in all three.
    """
    found = {"random error": dict(expert), "shrunk": dict(expert), "only the rest": dict(base)}
    generator = torch.Generator().manual_seed(seed)
    for name, x in base.items():
        tau, lost = expert[name] - x, expert[name] - model[name]
        if x.dim() != 2:
            found["only the rest"][name] = expert[name]
            continue
        noise = torch.randn(x.shape, generator=generator)
        found["random error"][name] = expert[name] + noise * lost.norm() / noise.norm()
        found["shrunk"][name] = expert[name] - tau * lost.norm() / tau.norm()
        found["only the rest"][name] = x + lost
    return found
