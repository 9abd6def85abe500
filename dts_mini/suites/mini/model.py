"""The mini suite's CLIP: built by open_clip from ``dts-mini.json``, stored small in safetensors."""

import functools
import logging
from pathlib import Path

import open_clip
import torch
from open_clip import CLIP
from torch import Tensor

from dts_mini.core.file import load_tensors, save_tensors

NAME = "dts-mini"
MEAN, STD = 0.5, 0.25  # pixels are centred and scaled alike in all channels
_EMBEDDING = "token_embedding.weight"


def create_model() -> CLIP:
    """A randomly initialised CLIP: image tower of 1.85 M parameters, text tower of 3.3 M."""
    open_clip.add_model_config(Path(__file__).parent / f"{NAME}.json")
    log = logging.getLogger()  # open_clip warns there that no pretrained weights were asked for: we know
    level, _ = log.level, log.setLevel(logging.ERROR)
    try:
        return open_clip.create_model(NAME)
    finally:
        log.setLevel(level)


@functools.cache
def _tokenizer():
    open_clip.add_model_config(Path(__file__).parent / f"{NAME}.json")
    return open_clip.get_tokenizer(NAME)


@functools.cache
def tokenize(caption: str) -> Tensor:
    """Token ids (16,) of one caption, from open_clip's own vocabulary."""
    return _tokenizer()([caption])[0]


def pixels(images: Tensor) -> Tensor:
    """The image tower's input: uint8 (n, 3, 32, 32) as centred float32."""
    return (images.float() / 255 - MEAN) / STD


def save_model(model: CLIP, path: Path, ids: Tensor) -> None:
    """Writes the model in float16, of the token embedding only the rows ``ids``.

    The other rows were never trained, and would be nine tenths of the file.
    """
    state = {k: v.half() for k, v in model.state_dict().items() if k != _EMBEDDING}
    state["token_ids"] = ids.to(torch.int32)
    state["token_rows"] = model.state_dict()[_EMBEDDING][ids].half()
    save_tensors(state, path)


def load_model(path: Path) -> CLIP:
    """The model written by ``save_model``, in float32; words that its training never used have zero embeddings."""
    state = load_tensors(path)
    model = create_model()
    embedding = torch.zeros_like(model.token_embedding.weight)
    embedding[state.pop("token_ids").long()] = state.pop("token_rows").float()
    model.load_state_dict({k: v.float() for k, v in state.items()} | {_EMBEDDING: embedding})
    return model.eval()
