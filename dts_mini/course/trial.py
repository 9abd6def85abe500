"""One expert's trial: how models answer its task's test images, beside the expert itself, with paired intervals."""

from collections.abc import Mapping

from torch import Tensor, zeros

from dts_mini.core.state import State
from dts_mini.suites.evaluation import bootstrap, divergence, interval, logits
from dts_mini.suites.suite import Suite


class Trial:
    """Models against the expert of ``task``: each test image is ``right`` (n, bool) and ``kl`` (n, nats) away from it.

    ``expert`` holds the expert's own answers, whose divergence is zero.
    """

    def __init__(self, suite: Suite, task: str):
        self.suite, self.task = suite, task
        self.labels, self.reference = suite.images(task, "test")[1], logits(suite, suite.expert(task), task)
        self.expert = {"right": self.reference.argmax(1) == self.labels, "kl": zeros(len(self.labels))}

    def answers(self, state: State) -> dict[str, Tensor]:
        """{"right": which test images the model gets right, "kl": how far its predictions are from the expert's}."""
        found = logits(self.suite, state, self.task)
        return {"right": found.argmax(1) == self.labels, "kl": divergence(self.reference, found)}

    def gap(self, more: Mapping[str, Tensor], less: Mapping[str, Tensor], what: str) -> dict:
        """By how much ``what`` of one model's answers is above another's, in the mean, with its paired 95 % interval.

        In the form that ``claim`` takes: {"value": a number, "interval": (low, high)}.
        """
        draws = bootstrap({"more": {self.task: more[what]}, "less": {self.task: less[what]}})
        value = (more[what].float().mean() - less[what].float().mean()).item()
        return {"value": value, "interval": interval((draws["more"] - draws["less"])[:, 0])}
