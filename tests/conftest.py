"""What the tests share: one thread, hypothesis without surprises, and small models to work on."""

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import settings
from safetensors.torch import save_file
from torch import Tensor

torch.set_num_threads(1)  # the tensors are small: more threads only get into each other's way

settings.register_profile("ci", derandomize=True, max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

State = dict[str, Tensor]

# A model with one tensor of every kind that the core treats apart.
KINDS = {
    "conv.weight": (6, 3, 4, 4),
    "embedding": (17, 12),
    "block.in_proj_weight": (36, 12),
    "block.in_proj_bias": (36,),
    "block.mlp.weight": (24, 12),
    "norm.weight": (12,),
    "logit_scale": (),
}

# The image tower of the mini suite, as open_clip names it: width 192, 4 layers, patch 8 on 32 x 32, embedding 128.
WIDTH = 192
BLOCK = {
    "ln_1.weight": (WIDTH,),
    "ln_1.bias": (WIDTH,),
    "attn.in_proj_weight": (3 * WIDTH, WIDTH),
    "attn.in_proj_bias": (3 * WIDTH,),
    "attn.out_proj.weight": (WIDTH, WIDTH),
    "attn.out_proj.bias": (WIDTH,),
    "ln_2.weight": (WIDTH,),
    "ln_2.bias": (WIDTH,),
    "mlp.c_fc.weight": (4 * WIDTH, WIDTH),
    "mlp.c_fc.bias": (4 * WIDTH,),
    "mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
    "mlp.c_proj.bias": (WIDTH,),
}
TOWER = {
    "class_embedding": (WIDTH,),
    "positional_embedding": (17, WIDTH),
    "proj": (WIDTH, 128),
    "conv1.weight": (WIDTH, 3, 8, 8),
    "ln_pre.weight": (WIDTH,),
    "ln_pre.bias": (WIDTH,),
    **{f"transformer.resblocks.{i}.{name}": shape for i in range(4) for name, shape in BLOCK.items()},
    "ln_post.weight": (WIDTH,),
    "ln_post.bias": (WIDTH,),
}


def random_state(shapes: dict[str, tuple[int, ...]], seed: int, size: float = 1.0) -> State:
    """Gaussian tensors of these shapes, from one seed."""
    generator = torch.Generator().manual_seed(seed)
    return {name: size * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def moved(base: State, seed: int, size: float = 0.1) -> State:
    """An expert of ``base``: every floating tensor moved by Gaussian noise, computed and kept in its dtype."""
    floating = {name: tuple(tensor.shape) for name, tensor in base.items() if tensor.is_floating_point()}
    noise = random_state(floating, seed, size)
    return {name: tensor + noise[name].to(tensor.dtype) if name in noise else tensor for name, tensor in base.items()}


@pytest.fixture
def base() -> State:
    return random_state(KINDS, seed=0)


@pytest.fixture
def expert(base) -> State:
    return moved(base, seed=1)


@pytest.fixture
def experts(base) -> list[State]:
    return [moved(base, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="session")
def make_expert() -> Callable[..., State]:
    return moved


@pytest.fixture(scope="session")
def layered() -> tuple[State, State]:
    """Two states whose difference has falling spectra: 110,000 parameters, enough for a budget of some percent."""
    generator = torch.Generator().manual_seed(7)
    randn = lambda *shape: torch.randn(*shape, generator=generator)
    shapes = {"a": (96, 160), "b": (256, 128), "c": (128, 128), "conv": (64, 3, 8, 8), "embedding": (400, 80)}
    base = {name: randn(*shape) for name, shape in shapes.items()} | {"bias": randn(160), "norm": randn(96)}
    expert = {}
    for name, x in base.items():
        matrix = randn(*x.shape).reshape(len(x), -1)
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        falling = s / torch.arange(1, len(s) + 1) ** 0.7
        expert[name] = x + 0.1 * ((u * falling) @ vh).reshape(x.shape)
    return base, expert


@pytest.fixture(scope="session")
def tower() -> tuple[State, State]:
    """A base and an expert of the mini suite's shapes."""
    state = random_state(TOWER, seed=0)
    return state, moved(state, seed=1)


@pytest.fixture
def files(tmp_path) -> SimpleNamespace:
    """A base and two experts on disk, and where they lie."""
    base = random_state(KINDS, seed=0)
    states = {"base": base, "a": moved(base, seed=1), "b": moved(base, seed=2)}
    for name, state in states.items():
        save_file(state, tmp_path / f"{name}.safetensors")
    return SimpleNamespace(folder=tmp_path, **{name: tmp_path / f"{name}.safetensors" for name in states})
