"""Which task an input belongs to, from the compressed deltas alone: no task identity, no data.

A task's right singular vectors V_hat^T span the inputs that its fine-tuning learnt to treat in a new way. One pass of
the base model shows how much of each layer's input lies there, for every task; heads, where there are some, vote too.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from dts_mini.core.delta import TaskDelta
from dts_mini.core.errors import DTSError

Subspaces = dict[str, list[Tensor]]
"""For each layer's name, V_hat^T (r x n) of every task."""


def subspaces(model: nn.Module, deltas: Mapping[str, TaskDelta], *, share: float = 0.25) -> Subspaces:
    """Right singular vectors of all tasks in the last ``share`` of the layers that every delta decomposed.

    At least one layer is taken. Layers are linear ones and the fused input projection of attention, in the order of the
    model's modules: of early layers, inputs look alike in all tasks. The model is the one whose state dict the deltas
    were made for, or of its class. DTSError for no deltas, for a share out of (0, 1], and for deltas that do not fit
    the model.
    """
    if not deltas:
        raise DTSError("there are no deltas to route to; pass a dict of task names and deltas")
    if not 0 < share <= 1:
        raise DTSError(f"share is {share}: it must lie in (0, 1]")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for task, delta in deltas.items():
        for name, shape in delta.shapes.items():
            if shapes.get(name) != shape:
                there = f"has it in shape {shapes[name]}" if name in shapes else "has no such tensor"
                raise DTSError(
                    f"the delta of {task!r} holds {name!r} of shape {shape}, and the model {there}; "
                    "pass the module whose state dict the delta was made for"
                )
    layers = {}
    for path, module in model.named_modules():
        kind = "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"
        name = f"{path}.{kind}" if path else kind
        # The output projection within attention is read, never called, so no hook would see its input.
        routed = isinstance(module, nn.Linear | nn.MultiheadAttention)
        if routed and not isinstance(module, NonDynamicallyQuantizableLinear):
            parts = [delta.resolved(name) if name in delta.parts else None for delta in deltas.values()]
            if all(part is not None and part.rank for part in parts):
                layers[path] = parts
    if not layers:
        raise DTSError("no linear or attention layer of the model was decomposed in all deltas: nothing to route by")
    last = list(layers)[-max(1, round(share * len(layers))) :]
    return {path: [part.factors()[1] for part in layers[path]] for path in last}


@torch.no_grad()
def energies(model: nn.Module, inputs: Tensor, spaces: Subspaces, *, token: int | None = 0) -> tuple[Tensor, Tensor]:
    """What the model answers, and how much of its layers' inputs lies in each task's subspace (batch, N).

    The mean over layers of the log of ||V_hat^T x||^2 / ||x||^2, divided by what a random direction would have. Of
    tokens (batch, tokens, n), or (tokens, batch, n), one is taken: 0, the class token, of an image tower; None the mean
    over all. Costs one pass of the model. Hooks are taken off again, whatever happens.
    """
    seen: dict[str, Tensor] = {}

    def watch(path: str):
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[path] = args[0]

        return hook

    handles = [model.get_submodule(path).register_forward_pre_hook(watch(path)) for path in spaces]
    try:
        output = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if lost := [path for path in spaces if path not in seen]:
        raise DTSError(f"layer {lost[0]!r} was not called in the model's forward pass: it cannot be routed by")
    scores = [_energy(_batch_first(seen[path], len(inputs)), vectors, token) for path, vectors in spaces.items()]
    return output, torch.stack(scores).mean(0)


def head_scores(embeddings: Tensor, heads: Sequence[Tensor]) -> Tensor:
    """How well unit embeddings (batch, d) fit each task's classes (batch, N): logsumexp of logits less log(classes).

    Heads are (classes, d), their temperature included. Tasks with the same class names cannot be told apart by it.
    """
    if not heads:
        raise DTSError("there are no heads; pass one a task")
    logs = [(embeddings @ head.T).logsumexp(1) - math.log(len(head)) for head in heads]
    return torch.stack(logs, 1)


def calibrated(scores: Tensor, reference: Tensor) -> Tensor:
    """Scores (batch, N) standardised, task by task, by those of unlabelled images of all tasks (m, N), m > 1."""
    if len(reference) < 2 or reference.shape[1:] != scores.shape[1:]:
        raise DTSError(
            f"scores have shape {tuple(scores.shape)} and the reference {tuple(reference.shape)}; "
            "expected (batch, N) and (m, N) with m > 1"
        )
    return (scores - reference.mean(0)) / reference.std(0).clamp(min=1e-12)


def choose(scores: Tensor, batch: int = 1) -> Tensor:
    """The task's index (n,) for each input: of the largest score, summed over each ``batch`` consecutive ones."""
    if batch < 1:
        raise DTSError(f"batch is {batch}: it must be at least 1")
    return torch.cat([part.sum(0).argmax().expand(len(part)) for part in scores.split(batch)])


def _batch_first(x: Tensor, batch: int) -> Tensor:
    return x.transpose(0, 1) if x.dim() == 3 and x.shape[0] != batch and x.shape[1] == batch else x


def _energy(x: Tensor, vectors: list[Tensor], token: int | None) -> Tensor:
    """Log of the share of x (batch, tokens, n) or (batch, n) that lies along each task's vectors (batch, N)."""
    x = F.normalize(x if x.dim() == 3 else x[:, None], dim=-1)
    x = x if token is None else x[:, [token if x.shape[1] > 1 else 0]]
    along = [(x @ v.to(x).T).square().sum(-1).mean(1) * (v.shape[1] / v.to(x).square().sum()) for v in vectors]
    return torch.stack(along, 1).clamp(min=torch.finfo(x.dtype).tiny).log()
