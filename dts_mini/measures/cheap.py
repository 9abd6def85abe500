"""What costs next to nothing: rows with a head of their own, or with a plain part of a task vector.

A method that compresses a whole task vector has to beat them. Each says what it uses beside theta_0 and the task's
name, and is counted by the bytes of its file. For the mini suite, whose tasks know synonyms and training images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.delta import rebuild
from dts_mini.core.parts import Part
from dts_mini.core.state import State
from dts_mini.core.svd import decompose
from dts_mini.measures.tables import Beside
from dts_mini.peers.low_rank import HalfLowRank
from dts_mini.peers.peer import Half, frames
from dts_mini.suites import linear
from dts_mini.suites.heads import zero_shot_head
from dts_mini.suites.mini.model import pixels, tokenize
from dts_mini.suites.mini.suite import MiniSuite

PROMPT = "a photo of {c}."  # one of those that captions use; a task's own templates go with its own names
IMAGES = 300  # that a linear head is trained on
STRENGTHS = tuple(10.0**k for k in range(-1, 6))
"""Inverse strengths of a linear head's penalty (scikit-learn's C); validation images choose one for each task."""


class Made(NamedTuple):
    """What answers for a task: an image tower, a head (classes, d), and the bytes that a task adds to theta_0."""

    state: State
    head: Tensor
    bytes: int


@dataclass(frozen=True)
class Cheap:
    """``uses``: what the row needs of a task, in words."""

    uses: str
    make: Callable[[MiniSuite, str], Made]


def synonyms(suite: MiniSuite, task: str) -> Made:
    """Zero-shot under a head of each class's first synonym, in the prompt ``PROMPT``; no byte of its own.

    >>> synonyms(MiniSuite(), "signs").bytes
    0
    """
    words = [names[0] for names in suite.task(task).synonyms]
    head = zero_shot_head(suite.model, tokenize, words, [PROMPT]) * suite.model.logit_scale.exp().detach()
    return Made(suite.pretrained(), head, 0)


def linear_head(suite: MiniSuite, task: str) -> Made:
    """Multinomial logistic regression on theta_0's unit embeddings of the first ``IMAGES`` training images.

    Its rows (classes, d) stand in the zero-shot head's place, without a bias, in half precision.
    """
    (raw, labels), (held, truth) = suite.task(task).images("train", IMAGES), suite.images(task, "validation")
    train, validation = (_embedded(suite, pixels(raw)), labels), (_embedded(suite, held), truth)
    best = linear.linear_head(train, validation, len(suite.classes(task)), STRENGTHS, steps=2_000).half()
    return Made(suite.pretrained(), best.float(), len(save({"head": best})))


@torch.no_grad()
def _embedded(suite: MiniSuite, images: Tensor) -> Tensor:
    tower = suite.tower()
    tower.load_state_dict(suite.pretrained())
    return F.normalize(torch.cat([tower(part) for part in images.split(100)]), dim=1)


def part(of: Callable[[str, Tensor], Part | None]) -> Callable[[MiniSuite, str], Made]:
    """A row that keeps of each tensor of the task vector what ``of(name, difference)`` gives, if anything."""

    def make(suite: MiniSuite, task: str) -> Made:
        theta_0 = suite.pretrained()
        frame = frames(theta_0, {task: suite.expert(task)})[task]
        parts = {name: kept for name, x in frame.items() if (kept := of(name, x)) is not None}
        delta = frame.delta("part of a task vector", parts, {})
        return Made(rebuild(theta_0, delta), suite.head(task), len(delta.to_bytes()))

    return make


def leading(x: Tensor, rank: int) -> Part:
    """The ``rank`` leading components of a matrix, a convolution being out x rest; 1-D as it is. In half precision."""
    return Half.of(x) if x.dim() == 1 else HalfLowRank.of(decompose(x.reshape(len(x), -1), rank))


ROWS: dict[str, Cheap] = {
    "zero-shot, synonyms": Cheap("other names of its classes", synonyms),
    "linear head, 300 images": Cheap("300 labelled images", linear_head),
    "projection alone, rank 8": Cheap("its expert", part(lambda name, x: leading(x, 8) if name == "proj" else None)),
    "1-D tensors alone": Cheap("its expert", part(lambda name, x: Half.of(x) if x.dim() == 1 else None)),
    "rank 2 and 1-D tensors": Cheap("its expert", part(lambda name, x: leading(x, 2))),
    "attention alone": Cheap("its expert", part(lambda name, x: Half.of(x) if ".attn." in name else None)),
    "last two blocks alone": Cheap(
        "its expert", part(lambda name, x: Half.of(x) if ".resblocks.2." in name or ".resblocks.3." in name else None)
    ),
}
"""By name. Bytes are those of half precision."""


def beside() -> dict[str, Beside]:
    """The rows as ``tables.headline`` takes them."""
    return {name: Beside(row.uses, partial(answers, name)) for name, row in ROWS.items()}


@torch.no_grad()
def answers(name: str, suite: MiniSuite, split: str = "test") -> tuple[dict[str, Tensor], Mapping[str, int]]:
    """Logits (n, classes) of a row on a split of every task, and the bytes that each task takes."""
    found, sizes = {}, {}
    for task in suite.tasks:
        state, head, sizes[task] = ROWS[name].make(suite, task)
        tower = suite.tower()
        tower.load_state_dict(state)
        images, _ = suite.images(task, split)
        found[task] = torch.cat([F.normalize(tower(part), dim=1) @ head.T for part in images.split(100)])
    return found, sizes
