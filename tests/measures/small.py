"""A suite of random points in a few dimensions: every measurement in a moment."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dts_mini.suites.heads import Towers
from dts_mini.suites.streams import stream


class SmallSuite(Towers):
    """Four tasks of three classes; each expert is the base moved along a few directions of its own.

    "cats" and "felines" have the same class names, so the same head: a twin.
    """

    name = "small"
    tasks = ("cats", "felines", "roads", "stones")
    unseen = ("felines",)
    example = "cats"
    store = None
    names = {
        "cats": ("black cat", "red cat", "white cat"),
        "felines": ("black cat", "red cat", "white cat"),
        "roads": ("path", "street", "motorway"),
        "stones": ("black stone", "flint", "chalk"),
    }

    def __init__(self, n: int = 20, width: int = 24) -> None:
        self.n, self.width = n, width

    def tower(self) -> nn.Module:
        if not hasattr(self, "model"):
            self.model = nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, 8)).eval()
        return self.model.requires_grad_(False)

    def _noise(self, *words: object, size: float) -> dict[str, Tensor]:
        g = stream("small", *words)
        return {k: size * torch.randn(v.shape, generator=g) for k, v in self.tower().state_dict().items()}

    def pretrained(self) -> dict[str, Tensor]:
        return self._noise("theta_0", size=0.3)

    def expert(self, task: str) -> dict[str, Tensor]:
        step = self._noise(task, size=0.1)
        return {name: tensor + step[name] for name, tensor in self.pretrained().items()}

    def classes(self, task: str) -> tuple[str, ...]:
        return self.names[task]

    def text(self, texts) -> Tensor:
        return torch.stack([torch.randn(8, generator=stream("word", text)) for text in texts])

    def head(self, task: str) -> Tensor:
        return 10 * F.normalize(self.text(self.classes(task)), dim=1)

    def descriptor(self, task: str) -> Tensor:
        return F.normalize(F.normalize(self.head(task), dim=1).mean(0), dim=0)

    def images(self, task: str, split: str) -> tuple[Tensor, Tensor]:
        g = stream("images", task, split)
        labels = torch.randint(3, (self.n,), generator=g)
        return torch.randn(self.n, self.width, generator=g), labels
