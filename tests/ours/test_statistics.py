"""Statistics of BatchNorm, counted anew."""

import pytest
import torch
from torch import nn

from dts_mini.core.errors import DTSError, StateError
from dts_mini.ours.statistics import reestimate_statistics


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=0.2), nn.ReLU(), nn.Dropout(0.9), nn.Conv2d(5, 4, 3)
    return nn.Sequential(*layers, nn.BatchNorm2d(4, affine=False)).eval()


def images(n: int = 12) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_after_it_every_channel_is_normalised_over_the_images():
    model = net()
    model[1].running_mean.fill_(50)
    out = reestimate_statistics(model, [images()])(images())
    assert out.mean((0, 2, 3)).abs().max() < 1e-2  # while it counts, a layer divides by n, later by n - 1
    assert torch.allclose(out.var((0, 2, 3)), torch.ones(4), rtol=1e-2)


def test_batches_weigh_the_same_and_old_statistics_nothing():
    """The first layer's inputs do not depend on batches: its mean is over all images, its variance is the batches'."""
    model, parts = net(), images().split(4)
    reestimate_statistics(model, iter(parts))
    first = [model[0](part) for part in parts]
    assert torch.allclose(model[1].running_mean, torch.cat(first).mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(model[1].running_var, torch.stack([x.var((0, 2, 3)) for x in first]).mean(0), atol=1e-6)
    again = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reestimate_statistics(model, parts)
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_weights_modes_and_momenta_stay_as_they_were():
    model = net()
    model[3].train()
    before = [parameter.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    assert reestimate_statistics(model, [images()]) is model
    assert all(torch.equal(x, y) for x, y in zip(before, model.parameters(), strict=True))
    assert modes == [module.training for module in model.modules()]
    assert model[1].momentum == 0.2 and model[1].num_batches_tracked == 1


def test_a_model_that_takes_keywords_takes_dicts():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, *, pixels):
            return self.norm(pixels)

    model = reestimate_statistics(Named(), [{"pixels": images()}])
    assert torch.allclose(model.norm.running_mean, images().mean((0, 2, 3)), atol=1e-6)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_instance_norm_is_counted_anew_over_batches_as_well(momentum):
    """Its statistics are the means over images of each image's own; momentum None means to it that none are counted."""
    layer, parts = nn.InstanceNorm2d(3, momentum=momentum, track_running_stats=True), (images() * 2 + 5).split(4)
    layer.running_var.fill_(50)
    reestimate_statistics(layer, parts)
    whole = torch.cat(parts)
    assert torch.allclose(layer.running_mean, whole.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(layer.running_var, whole.var((2, 3)).mean(0), atol=1e-5) and layer.momentum == momentum


class Auxiliary(nn.Module):
    """Two norms, of which evaluation calls the first alone."""

    def __init__(self):
        super().__init__()
        self.main, self.auxiliary = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        for buffer in (self.auxiliary.running_mean, self.auxiliary.running_var, self.auxiliary.num_batches_tracked):
            buffer.fill_(7)

    def forward(self, x):
        return self.auxiliary(self.main(x)) if self.training else self.main(x)


def test_a_layer_that_is_not_called_keeps_its_statistics_and_no_hook_stays():
    model = reestimate_statistics(Auxiliary(), images().split(4))
    assert all(buffer.eq(7).all() for buffer in model.auxiliary.buffers())
    assert torch.allclose(model.main.running_mean, images().mean((0, 2, 3)), atol=1e-6)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_that_calls_no_such_layer_is_refused():
    class Idle(Auxiliary):
        def forward(self, x):
            return x

    with pytest.raises(DTSError, match="calls none of its layers"):
        reestimate_statistics(Idle(), [images()])


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.BatchNorm1d(5), torch.ones(1, 5)),
        (nn.BatchNorm2d(5), torch.ones(1, 5, 1, 1)),
        (nn.InstanceNorm2d(5, track_running_stats=True), torch.ones(4, 5, 1, 1)),
        (nn.InstanceNorm1d(5, track_running_stats=True), torch.ones(5, 1)),
    ],
    ids=["1-D", "2-D", "instance", "instance without batch"],
)
def test_one_value_a_channel_is_refused_by_the_layers_name_and_the_old_statistics_are_back(layer, x):
    layer.running_mean.fill_(3)
    with pytest.raises(DTSError, match=r"layer '0' gets one value a channel.*pass larger batches"):
        reestimate_statistics(nn.Sequential(layer), [torch.cat([x, x], -1) if x.dim() > 2 else x, x])
    assert layer.running_mean.eq(3).all() and not layer._forward_pre_hooks


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], DTSError, "no batches"),
        ([images(), images() * float("nan")], StateError, "layer '1': its statistics come out NaN"),
        ([images(), torch.ones(2, 7, 8, 8)], RuntimeError, "channels"),
    ],
)
def test_where_it_fails_the_old_statistics_and_modes_are_back(batches, error, message):
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=message):
        reestimate_statistics(model, batches)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model[1].momentum == 0.2 and not any(module.training for module in model.modules())


@pytest.mark.parametrize("model", [nn.Linear(3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.LayerNorm(3)])
def test_a_model_without_running_statistics_is_refused(model):
    with pytest.raises(DTSError, match="no layer that keeps running statistics"):
        reestimate_statistics(model, [images()])
