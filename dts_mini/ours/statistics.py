"""Statistics of layers that normalise by them: counted anew from unlabelled inputs, when weights have changed."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from dts_mini.core.errors import DTSError, StateError
from dts_mini.core.state import all_finite


@torch.no_grad()
def reestimate_statistics(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Counts ``running_mean`` and ``running_var`` of each BatchNorm layer (and InstanceNorm layer that has them) anew,
    in one pass over inputs without labels.

    A merged model has the mean of the experts' statistics, which are not those of its own activations. ``batches`` are
    what ``model`` takes, a dict as keyword arguments; all of them weigh the same, so let them be of one size. Other
    layers are as in evaluation (dropout is off), and all modes are put back. A layer that the model does not call, as
    an auxiliary head in evaluation, keeps its statistics. Returns ``model``, changed in place.

    Raises DTSError where the model has or calls no such layer, there are no batches, or one has a single value a
    channel, of which there is no variance; StateError where a statistic would not be finite. Then, and when the model
    raises, the old statistics are back.

    >>> net = reestimate_statistics(nn.BatchNorm1d(1), [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
    >>> net.running_mean, net.running_var
    (tensor([4.]), tensor([2.]))
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, _NormBase) and m.running_mean is not None}
    if not layers:
        raise DTSError("the model has no layer that keeps running statistics; there is nothing to estimate")
    modes = {module: module.training for module in model.modules()}
    momenta = {layer: layer.momentum for layer in layers.values()}
    before = {name: {buffer: buffer.clone() for buffer in layer.buffers()} for name, layer in layers.items()}
    calls = dict.fromkeys(layers, 0)

    def count(name: str, layer: nn.Module, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else kwargs["input"]
        if _values(layer, x) == 1:
            raise DTSError(
                f"layer {name!r} gets one value a channel, of which there is no variance; pass larger batches or inputs"
            )
        calls[name] += 1
        layer.momentum = 1 / calls[name]  # the plain mean over batches; None means 0 to InstanceNorm

    hooks = []
    model.eval()
    try:
        for name, layer in layers.items():
            layer.train()
            layer.reset_running_stats()
            hooks.append(layer.register_forward_pre_hook(partial(count, name), with_kwargs=True))
        number = 0
        for number, batch in enumerate(batches, 1):  # noqa: B007
            model(**batch) if isinstance(batch, Mapping) else model(batch)
        if not number:
            raise DTSError("there are no batches; pass at least one of unlabelled inputs")
        if not any(calls.values()):
            raise DTSError("the model calls none of its layers that keep running statistics; there is nothing to count")
        for name, layer in layers.items():
            if not calls[name]:
                _put_back(before[name])
            elif not all_finite(layer.running_mean) or not all_finite(layer.running_var):
                raise StateError(
                    f"layer {name!r}: its statistics come out NaN or infinite; check the inputs and weights"
                )
    except BaseException:
        for values in before.values():
            _put_back(values)
        raise
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum in momenta.items():
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return model


def _values(layer: _NormBase, x: Tensor) -> int:
    """Of how many values of an input the layer takes one variance: of a channel, in InstanceNorm of one image alone."""
    if isinstance(layer, _BatchNorm):
        return x.numel() // max(1, x.shape[1])
    return x.shape[1 - layer._get_no_batch_dim() :].numel()


def _put_back(values: Mapping[Tensor, Tensor]) -> None:
    for buffer, value in values.items():
        buffer.copy_(value)
