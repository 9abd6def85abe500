"""Names of a classifier's tensors: the body that is merged and compressed, and the head that each task keeps.

transformers saves a classifier as ``transformer.h.0...`` with ``score.weight`` (GPT-2) or ``roberta.encoder...`` with
``classifier.*`` (RoBERTa), and a pretrained model as the body alone, with or without that prefix, beside a head for
language. Weights are taken as they are stored: GPT-2's are (in, out), RoBERTa's (out, in).
"""

from collections.abc import Mapping

from torch import Tensor

from dts_mini.core.errors import DTSError
from dts_mini.core.state import State

# By model_type: the body's prefix, and the prefixes of a task's head.
LAYOUTS = {"gpt2": ("transformer.", ("score.",)), "roberta": ("roberta.", ("classifier.",))}
LAST = ("score.weight", "classifier.out_proj.weight")  # the layers of a head whose rows are classes
_LANGUAGE = ("lm_head.", "pooler.")  # of the pretrained model: what a classifier does not have
_BUFFERS = (".attn.bias", ".attn.masked_bias", "position_ids")  # of old checkpoints: masks, and 0, 1, 2, ...


def layout(config: Mapping) -> tuple[str, tuple[str, ...]]:
    """The prefixes of body and head for a config.json; DTSError for a model that is neither GPT-2 nor RoBERTa."""
    kind = config.get("model_type")
    if kind not in LAYOUTS:
        raise DTSError(f"a model of type {kind!r} is not known here: only {' and '.join(LAYOUTS)} are")
    return LAYOUTS[kind]


def body(state: State, config: Mapping) -> dict[str, Tensor]:
    """A checkpoint's body in float32, its prefix removed.

    >>> list(body({"transformer.wte.weight": torch.zeros(2), "score.weight": torch.ones(2)}, {"model_type": "gpt2"}))
    ['wte.weight']
    """
    prefix, head = layout(config)
    named = {name.removeprefix(prefix): tensor for name, tensor in state.items() if not name.endswith(_BUFFERS)}
    return {name: tensor.float() for name, tensor in named.items() if not name.startswith((*head, *_LANGUAGE))}


def head(state: State, config: Mapping) -> dict[str, Tensor]:
    """A classifier's head in float32, named as it is stored."""
    _, prefixes = layout(config)
    return {name: tensor.float() for name, tensor in state.items() if name.startswith(prefixes)}


def whole(body: State, head: State, config: Mapping) -> dict[str, Tensor]:
    """A classifier's state dict, as transformers loads it."""
    prefix, _ = layout(config)
    return {prefix + name: tensor for name, tensor in body.items()} | dict(head)
