"""State dicts: what must hold of them before any work, what ties their tensors, and how one is recognised."""

from collections.abc import Mapping

import torch
import xxhash
from torch import Tensor

from dts_mini.core.errors import StateError

State = Mapping[str, Tensor]
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_state(state: State, what: str) -> None:
    """StateError unless ``state`` holds tensors, some of them floating, and only finite numbers."""
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise StateError(
            f"the {what} is not a state dict: pass a dict of names and tensors, as model.state_dict() gives"
        )
    if not state:
        raise StateError(f"the {what} is an empty state dict: there is nothing to work on")
    if not any(tensor.is_floating_point() for tensor in state.values()):
        raise StateError(f"the {what} holds only integers: quantised models cannot be compressed, pass the float one")
    for name, tensor in state.items():
        if tensor.is_meta or tensor.layout != torch.strided:
            raise StateError(f"{what}, tensor {name!r}: meta and sparse tensors are not supported; load or densify it")
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype not in FLOATING:
            raise StateError(f"{what}, tensor {name!r}: {tensor.dtype} is not supported; convert it to float32")
        # A sum is finite only where every term is, and ten times cheaper; it may overflow, hence the second look.
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise StateError(
                f"{what}, tensor {name!r}: {bad} of {tensor.numel()} values are NaN or infinite; mend it first"
            )


def check_same_layout(base: State, other: State, what: str, base_what: str = "base") -> None:
    """StateError unless both have the same names and shapes, and are floating in the same places."""
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
    """32 hex digits that stand for names, dtypes, shapes and values of a state dict (XXH3-128, in name order).

    It tells one checkpoint from another by mistake, not by malice.
    """
    digest = xxhash.xxh3_128()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def tied_names(state: State) -> dict[str, str]:
    """Names of tensors that are the very same memory as an earlier one, and that one's name."""
    first, tied = {}, {}
    for name, tensor in state.items():
        if tensor.numel() == 0:
            continue
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if key in first:
            tied[name] = first[key]
        else:
            first[key] = name
    return tied


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or the tensor's own where that is better."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _some(names: list[str], most: int = 3) -> str:
    listed = ", ".join(repr(name) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
