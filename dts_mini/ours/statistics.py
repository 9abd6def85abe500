"""Statistics of layers that normalise by them: counted anew from unlabelled inputs, when weights have changed."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from dts_mini.core.errors import DTSError, StateError
from dts_mini.core.state import all_finite


@torch.no_grad()
def reestimate_statistics(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Counts ``running_mean`` and ``running_var`` of each BatchNorm layer anew, in one pass over inputs without labels.

    A merged model has the mean of the experts' statistics, which are not those of its own activations. ``batches`` are
    what ``model`` takes, a dict as keyword arguments; all of them weigh the same, so let them be of one size. Other
    layers are as in evaluation (dropout is off), and all modes are put back. Returns ``model``, changed in place.

    Raises DTSError where the model has no such layer or there are no batches, StateError where a statistic would not be
    finite; then, and when the model raises, the old statistics are back.

    >>> net = reestimate_statistics(nn.BatchNorm1d(1), [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
    >>> net.running_mean, net.running_var
    (tensor([4.]), tensor([2.]))
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, _NormBase) and m.running_mean is not None}
    if not layers:
        raise DTSError("the model has no layer that keeps running statistics; there is nothing to estimate")
    modes = {module: module.training for module in model.modules()}
    momenta = {layer: layer.momentum for layer in layers.values()}
    before = {buffer: buffer.clone() for layer in layers.values() for buffer in layer.buffers()}
    model.eval()
    try:
        for layer in layers.values():
            layer.train()
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over batches
        number = 0
        for number, batch in enumerate(batches, 1):  # noqa: B007
            model(**batch) if isinstance(batch, Mapping) else model(batch)
        if not number:
            raise DTSError("there are no batches; pass at least one of unlabelled inputs")
        for name, layer in layers.items():
            if not all_finite(layer.running_mean) or not all_finite(layer.running_var):
                raise StateError(
                    f"layer {name!r}: its statistics come out NaN or infinite; check the inputs and weights"
                )
    except BaseException:
        for buffer, value in before.items():
            buffer.copy_(value)
        raise
    finally:
        for layer, momentum in momenta.items():
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return model
