"""Many experts at once. Personalised merging, and a model for a task that nobody fine-tuned."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.compress import compressed, settings_of
from dts_mini.core.delta import TaskDelta, check_base
from dts_mini.core.errors import DTSError, StateError
from dts_mini.core.frame import Frame, Mapper
from dts_mini.core.parts import Exact, Unchanged
from dts_mini.core.state import State, all_finite, compute_dtype, directions, exactly, is_computed, unmixed


def personalise(
    base: State,
    experts: Mapping[str, State],
    *,
    method: Literal["dts", "drc"] = "dts",
    budget: int | str | None = None,
    progress: Callable[[str], object] = str,
    mapper: Mapper = map,
    keep: Sequence[str] = (),
    stacks: Sequence[str] = (),
    **settings,
) -> dict[str, TaskDelta]:
    """A delta for each task over one shared base; all experts are looked at before the first is compressed.

    DTS-T: ``personalise(theta_0, experts)``. DTS-D: ``personalise(theta_m, experts)`` with any base merge, and with
    ``average(experts)`` no pretrained model is needed. Options and errors: as ``compress``, the task named.

    >>> base, experts = {"w": torch.zeros(8, 6)}, {"a": {"w": torch.ones(8, 6)}, "b": {"w": torch.eye(8, 6)}}
    >>> deltas = personalise(base, experts, keep_ratio=0.2)
    """
    if not experts:
        raise DTSError("there are no experts; pass a dict of task names and state dicts")
    chosen = settings_of(method, settings, budget)
    options = {"keep": keep, "stacks": stacks, "convolutions": chosen.convolutions}
    frames = {t: Frame(base, expert, mapper, **options, what=f"expert of {t!r}") for t, expert in experts.items()}
    return {task: compressed(frame, method, chosen, budget, progress) for task, frame in frames.items()}


def fusion_weights(unseen: Tensor, seen: Tensor) -> Tensor:
    """The paper's weights (N,) of N seen tasks for an unseen one: normalised cosines of their task descriptors.

    w_n = cos(c_u, c_n) / sum_k cos(c_u, c_k) for descriptors ``unseen`` (d) and ``seen`` (N, d). The paper says
    nothing of negative cosines: they count as zero here, and where none is positive all tasks weigh the same.

    >>> fusion_weights(torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])).tolist()
    [1.0, 0.0, 0.0]
    """
    if unseen.dim() != 1 or seen.dim() != 2 or seen.shape[1] != len(unseen) or not len(seen):
        raise DTSError(
            f"descriptors have shapes {tuple(unseen.shape)} and {tuple(seen.shape)}; expected (d,) and (N, d), N > 0"
        )
    if not (unseen.isfinite().all() and seen.isfinite().all()):
        raise DTSError("a descriptor holds NaN or infinity; compute it again")
    cosines = F.cosine_similarity(unseen[None], seen).clamp(min=0)
    return cosines / cosines.sum() if cosines.sum() > 0 else torch.full_like(cosines, 1 / len(cosines))


@exactly
def fuse(base: State, deltas: Sequence[TaskDelta], weights: Sequence[float] | Tensor) -> dict[str, Tensor]:
    """base + sum_n w_n * remainder_n: the model for an unseen task over a base merge (arXiv 2512.01461).

    Floating tensors are fused, those kept exactly (statistics) alike; integer ones are the base's. Raises DTSError for
    counts that differ and for weights that make a variance negative, StateError for a base that a delta was not made
    for.

    >>> base, experts = {"w": torch.zeros(8, 6)}, {"a": {"w": torch.ones(8, 6)}, "b": {"w": torch.eye(8, 6)}}
    >>> fused = fuse(base, list(personalise(base, experts).values()), [0.7, 0.3])
    """
    if not torch.as_tensor(weights, dtype=torch.float64, device="cpu").isfinite().all():
        raise DTSError("a weight is NaN or infinite; compute the weights again")
    if len(deltas) != len(weights) or not deltas:
        raise DTSError(
            f"there are {len(deltas)} deltas and {len(weights)} weights; pass one weight a delta, at least one"
        )
    check_base(base, *deltas)
    for name in directions(base):
        if not all(isinstance(delta.resolved(name), Unchanged) for delta in deltas):
            raise unmixed(name)
    result = {}
    for name, tensor in base.items():
        if not (tensor.is_floating_point() and is_computed(tensor.dtype)):
            result[name] = tensor.clone()
            continue
        x, counted = tensor.to(compute_dtype(tensor), copy=True), False
        for delta, weight in zip(deltas, weights, strict=True):
            part = delta.resolved(name)
            counted |= isinstance(part, Exact)
            remainder = part.value.to(x) - tensor.to(x) if isinstance(part, Exact) else delta.remainder(name)
            if remainder is not None:
                x += float(weight) * remainder.to(x.device)
        fused = x.to(tensor.dtype)
        if not all_finite(fused) and all_finite(tensor):
            raise StateError(f"tensor {name!r}: fused, it is not finite in {tensor.dtype}; give other weights")
        if counted and (fused < 0).any() and not (tensor < 0).any():
            raise DTSError(
                f"tensor {name!r}: these weights make it negative, which it never is, as variances and counts are; "
                "give weights of 0 or more, of sum 1 at most"
            )
        result[name] = fused
    return result
