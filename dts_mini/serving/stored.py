"""Names of a model's tensors in files, where transformers has others for them than the model itself.

A ``ViTForImageClassification`` of transformers 5 calls ``vit.layers.0.attention.q_proj.weight`` what its files, old and
new, call ``vit.encoder.layer.0.attention.attention.query.weight``: a delta of two checkpoints has the files' names.
"""

import importlib
import sys
from dataclasses import replace

import torch
from torch import nn

from dts_mini.core.delta import TaskDelta
from dts_mini.core.parts import Tied
from dts_mini.core.state import State, recognise, seal


def stored_names(module: nn.Module) -> dict[str, str]:
    """What a module's tensors are called in a file of ``save_pretrained``, by its own names, where these differ.

    Those that transformers puts together of several in a file, as the experts of a mixture, have no such name.

    >>> stored_names(nn.Linear(2, 2))
    {}
    """
    library = sys.modules.get("transformers")  # whose model it can only be where that has been imported
    if library is None or not isinstance(module, library.PreTrainedModel):
        return {}
    own = {name: torch.empty_like(x, device="meta") for name, x in module.state_dict().items()}
    try:
        found = importlib.import_module("transformers.core_model_loading").revert_weight_conversion(module, own)
    except Exception:  # an older library has no such thing, and a newer one may call it otherwise
        return {}
    names = {id(tensor): name for name, tensor in own.items()}
    return {names[id(x)]: name for name, x in found.items() if id(x) in names and names[id(x)] != name}


def for_module(delta: TaskDelta, base: State, module: nn.Module) -> TaskDelta:
    """A delta over a checkpoint as one over the module that it is loaded into, under the module's own names.

    The delta itself where both call everything alike. StateError when ``base`` is not the one that it was made for.

    >>> module = nn.Linear(3, 2)
    >>> delta = compress(module.state_dict(), {"weight": torch.ones(2, 3), "bias": torch.ones(2)})
    >>> for_module(delta, module.state_dict(), module) is delta
    True
    """
    names = {file: own for own, file in stored_names(module).items() if file in delta.parts and own not in delta.parts}
    if not names:
        return delta
    digests = recognise(base, [(delta.base, delta.outline)])
    called = lambda name: names.get(name, name)
    parts = {
        called(name): Tied(called(part.to)) if isinstance(part, Tied) else part for name, part in delta.parts.items()
    }
    return replace(
        delta,
        parts=parts,
        shapes={called(name): shape for name, shape in delta.shapes.items()},
        dtypes={called(name): dtype for name, dtype in delta.dtypes.items()},
        bounds={called(name): bound for name, bound in delta.bounds.items()},
        base=seal({called(name): found for name, found in digests.items()}),
    )
