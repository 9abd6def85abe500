"""Zero-shot heads: class names in prompts, through the text tower."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
