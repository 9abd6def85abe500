"""State dicts: what must hold of them before any work, and how one is recognised.

A state dict may stay on disk (``dts_mini.streaming.checkpoint``): nothing here holds more than one of its tensors.
"""

from collections.abc import Mapping

import numpy as np
import torch
import xxhash
from torch import Tensor

from dts_mini.core.errors import StateError

State = Mapping[str, Tensor]
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
        parts = [f"{label} {_some(names)}" for label, names in (("lacks", missing), ("has beyond it", extra)) if names]
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


def check_pair(base: State, expert: State) -> None:
    """StateError unless an expert fits its base, by all that can be known without reading values."""
    check_outline(base, "base")
    check_outline(expert, "expert")
    check_same_layout(base, expert, "expert")


def examine(base: State, expert: State, name: str) -> tuple[str, str]:
    """The digests of a tensor in base and expert; StateError where either holds NaN or infinity. One is held at a time."""
    digests = []
    for state, what in ((base, "base"), (expert, "expert")):
        tensor = state[name]
        check_values(tensor, name, what)
        digests.append(digest(tensor))
        del tensor
    return tuple(digests)


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
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or the tensor's own where that is better."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _some(names: list[str], most: int = 3) -> str:
    listed = ", ".join(repr(name) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
