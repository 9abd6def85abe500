"""State dicts: what must hold of them before any work, and how one is recognised.

A state dict may stay on disk (``dts_mini.streaming.checkpoint``): nothing here holds more than one of its tensors.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import xxhash
from torch import Tensor

from dts_mini.core.errors import StateError

State = Mapping[str, Tensor]
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def exactly(function: Callable) -> Callable:
    """The function without gradients and without autocast, which would compute in fewer bits than are stored."""
    return torch.no_grad()(torch.autocast("cpu", enabled=False)(torch.autocast("cuda", enabled=False)(function)))


def outline(state: State) -> State:
    """Tensors that tell each name, shape and dtype, though perhaps no values: what can be known without reading.

    A state dict in memory is its own outline; one that stays on disk (``Checkpoint``) has one of meta tensors.
    """
    return getattr(state, "outline", state)


def check_state(state: State, what: str) -> None:
    """StateError unless ``state`` holds tensors, some of them floating, and only finite numbers."""
    check_outline(state, what)
    for name in state:
        check_values(state[name], name, what)


def check_outline(state: State, what: str) -> None:
    """StateError unless ``state`` holds tensors of dtypes that can be worked on, some of them floating."""
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in outline(state).values()):
        raise StateError(
            f"the {what} is not a state dict: pass a dict of names and tensors, as model.state_dict() gives"
        )
    tensors = outline(state)
    if not tensors:
        raise StateError(f"the {what} is an empty state dict: there is nothing to work on")
    if not any(tensor.is_floating_point() for tensor in tensors.values()):
        raise StateError(f"the {what} holds only integers: quantised models cannot be compressed, pass the float one")
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype not in FLOATING:
            raise StateError(f"{what}, tensor {name!r}: {tensor.dtype} is not supported; convert it to float32")


def check_values(tensor: Tensor, name: str, what: str) -> None:
    """StateError unless a tensor of the state dict ``what`` is there, dense, and holds only finite numbers."""
    if tensor.is_meta or tensor.layout != torch.strided:
        raise StateError(f"{what}, tensor {name!r}: meta and sparse tensors are not supported; load or densify it")
    # A sum is finite only where every term is, and ten times cheaper; it may overflow, hence the second look.
    if tensor.is_floating_point() and not tensor.sum().isfinite() and not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise StateError(
            f"{what}, tensor {name!r}: {bad} of {tensor.numel()} values are NaN or infinite; mend it first"
        )


def check_same_layout(base: State, other: State, what: str, base_what: str = "base") -> None:
    """StateError unless both have the same names and shapes, and are floating in the same places."""
    base, other = outline(base), outline(other)
    missing, extra = [n for n in base if n not in other], [n for n in other if n not in base]
    if missing or extra:
        parts = [f"{label} {some(names)}" for label, names in (("lacks", missing), ("has beyond it", extra)) if names]
        raise StateError(
            f"the {what} does not fit the {base_what}: it {' and '.join(parts)}; pass checkpoints of one model"
        )
    for name, tensor in base.items():
        if tensor.shape != other[name].shape:
            raise StateError(
                f"tensor {name!r} has shape {tuple(other[name].shape)} in the {what} and {tuple(tensor.shape)} in the "
                f"{base_what}; pass checkpoints of one model"
            )
        if tensor.is_floating_point() != other[name].is_floating_point():
            raise StateError(
                f"tensor {name!r} is {other[name].dtype} in the {what} and {tensor.dtype} in the {base_what}"
            )


def fingerprint(state: State) -> str:
    """32 hex digits that stand for names, dtypes, shapes and values of a state dict, in any order.

    It tells one checkpoint from another by mistake, not by malice.
    """
    return seal({name: digest(state[name]) for name in state})


def check_pair(base: State, expert: State, what: str = "expert") -> dict[str, Tensor]:
    """The expert's outline in name order; StateError unless it fits the base, by all but values."""
    check_outline(base, "base")
    check_outline(expert, what)
    check_same_layout(base, expert, what)
    return dict(sorted(outline(expert).items()))


def examine(
    base: State, expert: State, name: str, what: str = "expert", any_value: bool = False
) -> tuple[tuple[str, str], bool, bool]:
    """A tensor's digests in base and expert; whether it is the same in both, up to the expert's dtype; and a statistic.

    One that is may hold what it likes, as a mask of infinities does. StateError where one that is not holds NaN or
    infinity, unless it is a statistic or ``any_value`` is welcome. One tensor is held at a time where they have one
    dtype.
    """
    digests, finite, dtypes = [], [], []
    for state in (base, expert):
        tensor = state[name].detach()
        digests.append(digest(tensor))
        finite.append(all_finite(tensor))
        dtypes.append(tensor.dtype)
        del tensor
    same = digests[0] == digests[1]
    if not same and dtypes[0] != dtypes[1]:
        same = digest(base[name].detach().to(dtypes[1])) == digests[1]
    statistic = is_statistic(name)
    if not (same or all(finite) or any_value or statistic):
        at = finite.index(False)
        check_values((base, expert)[at][name], name, ("base", what)[at])
    return tuple(digests), same, statistic


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    return not tensor.is_floating_point() or bool(tensor.sum().isfinite() or torch.isfinite(tensor).all())


STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


def is_statistic(name: str) -> bool:
    """Whether a tensor, by its name, holds what a layer counted of its inputs: no weight, though saved beside them."""
    return name.rpartition(".")[2] in STATISTICS


def seals(digests: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """The fingerprints of two state dicts, from the pairs of their tensors' digests."""
    return tuple(seal({name: pair[i] for name, pair in digests.items()}) for i in (0, 1))


def seal(digests: Mapping[str, str]) -> str:
    """The fingerprint of the state dict whose tensors have these digests (XXH3-128, in name order)."""
    return xxhash.xxh3_128_hexdigest("".join(f"{name} {digests[name]};" for name in sorted(digests)).encode())


def digest(tensor: Tensor) -> str:
    """32 hex digits that stand for dtype, shape and values of a tensor (XXH3-128)."""
    found = xxhash.xxh3_128(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
    found.update(as_bytes(tensor))
    return found.hexdigest()


def as_bytes(tensor: Tensor) -> np.ndarray:
    """A tensor's values as they lie in memory (uint8, one dimension), copied only where they must be."""
    return tensor.detach().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or the tensor's own where that is better."""
    return torch.promote_types(tensor.dtype, torch.float32)


def some(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    listed = ", ".join(repr(name) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
