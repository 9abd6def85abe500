"""Second floor: many experts at once. Personalised merging, and a model for a task that nobody fine-tuned."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.compress import compress
from dts_mini.core.delta import TaskDelta, check_base
from dts_mini.core.errors import DTSError
from dts_mini.core.state import State, check_same_layout, check_state


def personalise(base: State, experts: Mapping[str, State], **settings) -> dict[str, TaskDelta]:
    """A delta for each task over one shared base.

    DTS-T: ``personalise(theta_0, experts)``. DTS-D: ``personalise(theta_m, experts)`` with any base merge, and with
    ``average(experts)`` no pretrained model is needed. ``settings`` are those of ``compress``.
    """
    if not experts:
        raise DTSError("there are no experts; pass a dict of task names and state dicts")
    for task, expert in experts.items():
        check_state(expert, f"expert of {task!r}")
        check_same_layout(base, expert, f"expert of {task!r}")
    return {task: compress(base, expert, **settings) for task, expert in experts.items()}


def fusion_weights(unseen: Tensor, seen: Tensor) -> Tensor:
    """The paper's weights (N,) of N seen tasks for an unseen one: normalised cosines of their task descriptors.

    w_n = cos(c_u, c_n) / sum_k cos(c_u, c_k) for descriptors ``unseen`` (d) and ``seen`` (N, d). The paper says
    nothing of negative cosines: they count as zero here, and where none is positive all tasks weigh the same.
    """
    if unseen.dim() != 1 or seen.dim() != 2 or seen.shape[1] != len(unseen) or not len(seen):
        raise DTSError(
            f"descriptors have shapes {tuple(unseen.shape)} and {tuple(seen.shape)}; expected (d,) and (N, d) with N > 0"
        )
    if not (unseen.isfinite().all() and seen.isfinite().all()):
        raise DTSError("a descriptor holds NaN or infinity; compute it again")
    cosines = F.cosine_similarity(unseen[None], seen).clamp(min=0)
    return cosines / cosines.sum() if cosines.sum() > 0 else torch.full_like(cosines, 1 / len(cosines))


@torch.no_grad()
def fuse(base: State, deltas: Sequence[TaskDelta], weights: Sequence[float] | Tensor) -> dict[str, Tensor]:
    """base + sum_n w_n * remainder_n: the model for an unseen task over a base merge (arXiv 2512.01461).

    Floating tensors are fused, integer ones are the base's. Raises DTSError for counts that differ, StateError for
    a base that a delta was not made for.
    """
    if not torch.as_tensor(weights).isfinite().all():
        raise DTSError("a weight is NaN or infinite; compute the weights again")
    if len(deltas) != len(weights) or not deltas:
        raise DTSError(
            f"there are {len(deltas)} deltas and {len(weights)} weights; pass one weight a delta, at least one"
        )
    for delta in deltas:
        check_base(base, delta)
    result = {}
    for name, tensor in base.items():
        x = (
            tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
            if tensor.is_floating_point()
            else tensor
        )
        for delta, weight in zip(deltas, weights, strict=True):
            if tensor.is_floating_point() and (remainder := delta.remainder(name)) is not None:
                x += float(weight) * remainder.to(x.device)
        result[name] = x.to(tensor.dtype, copy=not tensor.is_floating_point())
    return result
