"""Names of a classifier's tensors: the body that is merged and compressed, and the head that each task keeps.

transformers saves a classifier as ``transformer.h.0...`` with ``score.weight`` (GPT-2) or ``roberta.encoder...`` with
``classifier.*`` (RoBERTa), and a pretrained model as the body alone, with or without that prefix, beside a head for
language. Weights are taken as they are stored: GPT-2's are (in, out), RoBERTa's (out, in).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from dts_mini.core.errors import DTSError
from dts_mini.core.layout import is_rounded, only_rounded
from dts_mini.core.state import State

# By model_type: the body's prefix, and the prefixes of a task's head.
LAYOUTS = {"gpt2": ("transformer.", ("score.",)), "roberta": ("roberta.", ("classifier.",))}
LAST = ("score.weight", "classifier.out_proj.weight")  # the layers of a head whose rows are classes
# What a model computes with that no shape tells, by model_type: names in config.json.
SETTINGS = {
    "gpt2": ("n_head", "activation_function", "layer_norm_epsilon", "scale_attn_by_inverse_layer_idx"),
    "roberta": ("num_attention_heads", "hidden_act", "layer_norm_eps", "pad_token_id"),
}
_LANGUAGE = ("lm_head.", "pooler.")  # of the pretrained model: what a classifier does not have
_BUFFERS = (".attn.bias", ".attn.masked_bias", "position_ids")  # of old checkpoints: masks, and 0, 1, 2, ...


def layout(config: Mapping) -> tuple[str, tuple[str, ...]]:
    """The prefixes of body and head for a config.json; DTSError for a model that is neither GPT-2 nor RoBERTa."""
    kind = config.get("model_type")
    if kind not in LAYOUTS:
        raise DTSError(f"a model of type {kind!r} is not known here: only {' and '.join(LAYOUTS)} are")
    return LAYOUTS[kind]


def body(state: State, config: Mapping, base: State | None = None) -> dict[str, Tensor]:
    """A checkpoint's body in float32, its prefix removed.

    Where it is stored in fewer bits than ``base``, a weight that only was rounded is the base's: it has not moved.

    >>> list(body({"transformer.wte.weight": torch.zeros(2), "score.weight": torch.ones(2)}, {"model_type": "gpt2"}))
    ['wte.weight']
    """
    prefix, head = layout(config)
    named = {name.removeprefix(prefix): tensor for name, tensor in state.items() if not name.endswith(_BUFFERS)}
    kept = {name: tensor for name, tensor in named.items() if not name.startswith((*head, *_LANGUAGE))}
    return {name: _widened(tensor, (base or {}).get(name)) for name, tensor in kept.items()}


def _widened(tensor: Tensor, base: Tensor | None) -> Tensor:
    x = tensor.float()
    if base is None or base.shape != x.shape or not is_rounded(base.dtype, tensor.dtype):
        return x
    return torch.where(only_rounded(base, x, tensor.dtype), base, x)


def head(state: State, config: Mapping) -> dict[str, Tensor]:
    """A classifier's head in float32, named as it is stored."""
    _, prefixes = layout(config)
    return {name: tensor.float() for name, tensor in state.items() if name.startswith(prefixes)}


def whole(body: State, head: State, config: Mapping) -> dict[str, Tensor]:
    """A classifier's state dict, as transformers loads it."""
    prefix, _ = layout(config)
    return {prefix + name: tensor for name, tensor in body.items()} | dict(head)
