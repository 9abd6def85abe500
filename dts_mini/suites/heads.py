"""Zero-shot heads: class names in prompts, through the text tower; and what a tower answers under one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dts_mini.core.state import State

BATCH = 100  # images at once: on one thread larger batches are slower


@torch.no_grad()
def zero_shot_head(
    model: nn.Module, tokenize: Callable[[str], Tensor], classes: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """The classifier (classes, embedding width) of CLIP: unit rows.

    Each class is the mean of its prompts' normalised text embeddings, normalised again
    (Radford et al. 2021, arXiv 2103.00020, section 3.1.4).
    """
    prompts = torch.stack([tokenize(t.replace("{c}", c)) for c in classes for t in templates])
    text = F.normalize(torch.cat([model.encode_text(part) for part in prompts.split(256)]), dim=-1)
    return F.normalize(text.view(len(classes), len(templates), -1).mean(1), dim=-1)


class Towers:
    """What suites of images share: an image tower's unit embeddings times a zero-shot head are the logits."""

    def inputs(self, task: str, split: str) -> tuple[Tensor, Tensor]:
        """Pixels ready for the tower, and labels."""
        return self.images(task, split)

    @torch.no_grad()
    def answers(self, state: State, task: str, inputs: Tensor) -> Tensor:
        """Logits (n, classes) of an image tower's state dict on n images, under the task's head."""
        tower, head = self.tower(), self.head(task)
        tower.load_state_dict(state)
        return torch.cat([F.normalize(tower(few), dim=-1) @ head.T for few in inputs.split(BATCH)])
