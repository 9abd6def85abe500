"""What a compressed weight does to what its layer puts out, on the mini suite: about as much as its norm says, or more."""

import math

import pytest
import torch

from dts_mini.core.compress import compress
from dts_mini.core.delta import rebuild
from dts_mini.suites.mini.suite import MiniSuite


@pytest.mark.zoo
@pytest.mark.slow
def test_a_layers_output_is_off_by_one_to_three_times_the_first_order_estimate():
    """||E x|| beside ||E|| ||x|| / sqrt(n), which is what inputs without a preferred direction would give."""
    suite = MiniSuite()
    theta_0, expert, tower = suite.pretrained(), suite.expert(suite.example), suite.tower()
    tower.load_state_dict(expert)
    inputs = {}
    hooks = [
        module.register_forward_hook(lambda m, x, y, name=name: inputs.update({name: x[0].flatten(0, -2)}))
        for name, module in ((name.removeprefix("visual."), m) for name, m in tower.named_modules())
        if isinstance(module, torch.nn.Linear) and "out_proj" not in name  # read by attention, never called
    ]
    with torch.no_grad():
        tower(suite.images(suite.example, "validation")[0][:200])
    for hook in hooks:
        hook.remove()
    ratios = []
    for settings in ({"keep_ratio": 0.1}, {"method": "drc", "budget": "1%"}):
        again = rebuild(theta_0, compress(theta_0, expert, **settings))
        for layer, x in inputs.items():
            wrong = expert[f"{layer}.weight"] - again[f"{layer}.weight"]
            ratios.append(((x @ wrong.T).norm() / (wrong.norm() * x.norm() / math.sqrt(x.shape[1]))).item())
    assert len(ratios) >= 16
    assert min(ratios) > 0.9 and max(ratios) < 3
