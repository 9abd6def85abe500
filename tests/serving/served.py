"""Small modules that come by their weights in every way, and experts of them."""

import copy

import torch
from torch import Tensor, nn

from dts_mini import TaskDelta, compress, rebuild


class Chain(nn.Module):
    """Two linear layers, one of them without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.LayerNorm(40), nn.Linear(40, 16, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Attention(nn.Module):
    """Fused self-attention; with ``weights`` it gives its attention weights too, else None."""

    def __init__(self, *, batch_first: bool = True, weights: str = "", causal: bool = False) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(32, 4, batch_first=batch_first)
        self.batch_first, self.weights, self.causal = batch_first, weights, causal

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.batch_first:
            x = x.transpose(0, 1)
        mask = torch.full((5, 5), -torch.inf).triu(1) if self.causal else None
        average = self.weights != "of each head"
        options = {"need_weights": bool(self.weights), "average_attn_weights": average, "attn_mask": mask}
        y, weights = self.inner(x, x, x, **options)
        return y if self.batch_first else y.transpose(0, 1), weights


class Cross(nn.Module):
    """Attention to other tokens, of another width: projections apart."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(32, 4, kdim=24, vdim=24, batch_first=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.inner(x, y, y, need_weights=False)[0]


class Words(nn.Module):
    """An embedding that is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 24, padding_idx=0)
        self.inner = nn.Linear(24, 24)
        self.out = nn.Linear(24, 50, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.inner(self.table(ids)).relu())


class Images(nn.Module):
    """Convolutions in two dimensions: strided, padded, grouped, transposed, and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding="same", dilation=2, bias=False),
            nn.Conv2d(16, 16, 3, groups=4),
            nn.ConvTranspose2d(16, 8, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Sound(nn.Module):
    """Convolutions in one dimension and in three."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(8, 24, 5, padding=2)
        self.room = nn.Conv3d(1, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.room(self.line(x).view(len(x), 1, 4, 6, -1))


class Bare(nn.Module):
    """Parameters of the module's own, used by operators rather than layers, a buffer that is not floating, a scalar."""

    def __init__(self) -> None:
        super().__init__()
        draw = lambda *shape: nn.Parameter(torch.randn(*shape))
        self.w, self.turned, self.mixed, self.shift = draw(24, 16), draw(20, 16), draw(20, 12), draw(1, 12)
        self.scale, self.bias = nn.Parameter(torch.tensor(0.5)), draw(16)
        self.register_buffer("order", torch.randperm(12))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addmm(self.bias, x, self.w) if x.dim() == 2 else x @ self.w + self.bias
        x = torch.einsum("...i,ij->...j", x @ self.turned.T, self.mixed)
        return (x + self.shift)[..., self.order] * self.scale.exp()


class Block(nn.Module):
    """PyTorch's own transformer layer, which has a fast path."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Recurrent(nn.Module):
    """A GRU, whose weights go into one function as a list."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(24, 32, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


MODELS = {
    "linear": (Chain, (24,)),
    "linear on tokens": (Chain, (5, 24)),
    "attention": (Attention, (5, 32)),
    "attention, tokens first": (lambda: Attention(batch_first=False), (5, 32)),
    "attention, causal": (lambda: Attention(causal=True), (5, 32)),
    "attention with its weights": (lambda: Attention(weights="averaged", causal=True), (5, 32)),
    "attention with weights of each head": (lambda: Attention(weights="of each head"), (5, 32)),
    "cross-attention": (Cross, ((5, 32), (7, 24))),
    "embedding, tied": (Words, (6, int)),
    "convolutions 2d": (Images, (3, 12, 12)),
    "convolutions 1d and 3d": (Sound, (8, 10)),
    "bare parameters": (Bare, (24,)),
    "bare parameters on tokens": (Bare, (3, 24)),
    "transformer layer": (Block, (5, 32)),
}
"""By name: a constructor, and the shape of one sample of each input; ``int`` stands for token ids."""


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name][0]().eval().requires_grad_(False)


def samples(name: str, count: int, seed: int = 0) -> list[Tensor]:
    shapes, generator = MODELS[name][1], torch.Generator().manual_seed(seed)
    shapes = shapes if isinstance(shapes[0], tuple) else (shapes,)
    if int in shapes[0]:
        return [torch.randint(50, (count, shapes[0][0]), generator=generator)]
    return [torch.randn(count, *shape, generator=generator) for shape in shapes]


def experts_of(module: nn.Module, count: int, *, size: float = 0.1, **settings) -> list[TaskDelta]:
    """Deltas of experts whose every floating tensor is moved by noise; tied tensors stay tied."""
    base, deltas = module.state_dict(), []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed + 1)
        draw = lambda x, g=generator: (size * torch.randn(x.shape, generator=g)).to(x.dtype)
        moved = {x.data_ptr(): x + draw(x) if x.is_floating_point() else x.clone() for x in base.values()}
        deltas.append(compress(base, {name: moved[x.data_ptr()] for name, x in base.items()}, **settings))
    return deltas


def materialised(module: nn.Module, delta: TaskDelta) -> nn.Module:
    """A copy of the module with the expert's weights: what every other way is held against."""
    other = copy.deepcopy(module)
    other.load_state_dict(rebuild(module.state_dict(), delta))
    return other


def apart(found, wanted) -> float:
    """The largest error relative to the norm, over all tensors of an output."""
    if isinstance(wanted, Tensor):
        assert found.shape == wanted.shape and found.dtype == wanted.dtype
        return float((found - wanted).norm() / wanted.norm())
    if wanted is None:
        assert found is None
        return 0.0
    assert type(found) is type(wanted)
    return max(apart(x, y) for x, y in zip(found, wanted, strict=True))


def sample(output, i: int):
    """Sample i of a batch's output, as a batch of one."""
    if isinstance(output, Tensor):
        return output[i : i + 1]
    return None if output is None else type(output)(sample(x, i) for x in output)


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(module: nn.Module, before: dict[str, Tensor]) -> bool:
    now = module.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in before)


def image_tower(width: int = 64, layers: int = 2, heads: int = 4, patch: int = 8, size: int = 32, out: int = 48):
    """open_clip's vision tower, random."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    tower = VisionTransformer(size, patch, width, layers, heads, 4.0, output_dim=out)
    return tower.eval().requires_grad_(False)
