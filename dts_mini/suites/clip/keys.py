"""Names of CLIP's tensors, from transformers to open_clip and back, exactly.

Both libraries hold the same numbers in another order: transformers keeps queries, keys and values in three matrices
(*split*), open_clip in one (*fused*), and the two projections are transposed. transformers 5.6 dropped the prefix
``vision_model.`` of a ``CLIPVisionModel``: both forms are read.
"""

import re

import torch
from torch import Tensor

from dts_mini.core.errors import FileError, StateError
from dts_mini.core.state import State

# open_clip's names and transformers', by how they begin ...
_HEADS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",  # sic
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "ln_final.": "text_model.final_layer_norm.",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "logit_scale": "logit_scale",
}
# ... within a block ...
_BLOCK = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.out_proj.": ".self_attn.out_proj.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}
# ... and the matrices that are transposed.
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_BARE = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")  # a CLIPVisionModel without its prefix
_VISION = ("vision_model.", "visual_projection.")


def to_open_clip(state: State) -> dict[str, Tensor]:
    """A CLIP in transformers' names, both towers or the vision one alone, in open_clip's names (``visual.`` first).

    Tensors are copied, never changed. Raises StateError naming a tensor that CLIP does not have, or a block whose
    queries, keys and values are not all there.
    """
    result, split = {}, {}
    for name, tensor in state.items():
        name = "vision_model." + name if name.startswith(_BARE) else name
        if name.endswith(".position_ids"):
            continue  # a buffer of old checkpoints: 0, 1, 2, ...
        if match := re.fullmatch(r"(.+\.)self_attn\.([qkv])_proj\.(weight|bias)", name):
            block, part, kind = match.groups()
            split.setdefault((_renamed(block, back=True) + f"attn.in_proj_{kind}"), {})[part] = tensor
        elif name in _TRANSPOSED.values():
            result[_back(_TRANSPOSED)[name]] = tensor.T.contiguous().clone()
        else:
            result[_renamed(name, back=True)] = tensor.clone()
    for name, parts in split.items():
        if missing := [part for part in "qkv" if part not in parts]:
            raise StateError(f"tensor {name!r}: the checkpoint lacks its {missing[0]}_proj; download it again")
        result[name] = torch.cat([parts[part] for part in "qkv"])
    return result


def to_transformers(state: State) -> dict[str, Tensor]:
    """The inverse of ``to_open_clip``: names of ``CLIPModel``, attention split; StateError for an unknown tensor."""
    result = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"(.+\.)attn\.in_proj_(weight|bias)", name):
            block, kind = match.groups()
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                result[f"{_renamed(block)}self_attn.{part}_proj.{kind}"] = third.contiguous().clone()
        elif name in _TRANSPOSED:
            result[_TRANSPOSED[name]] = tensor.T.contiguous().clone()
        else:
            result[_renamed(name)] = tensor.clone()
    return result


def fused(tower: State) -> dict[str, Tensor]:
    """An image tower (``CLIPVisionModelWithProjection``'s names, or open_clip's already) in open_clip's ``visual``."""
    if not any(name.endswith("q_proj.weight") for name in tower):
        return dict(tower)
    return {name.removeprefix("visual."): tensor for name, tensor in to_open_clip(tower).items()}


def split(tower: State) -> dict[str, Tensor]:
    """An image tower of open_clip (``visual``'s names) as ``CLIPVisionModelWithProjection`` holds it."""
    return to_transformers({f"visual.{name}": tensor for name, tensor in tower.items()})


def vision(state: State) -> dict[str, Tensor]:
    """The vision tower of a transformers checkpoint, its prefix restored, the text tower left out."""
    named = {"vision_model." + name if name.startswith(_BARE) else name: tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in named.items() if name.startswith(_VISION)}


def _back(table: dict[str, str]) -> dict[str, str]:
    return {there: here for here, there in table.items()}


def _renamed(name: str, *, back: bool = False) -> str:
    heads, block = (_back(_HEADS), _back(_BLOCK)) if back else (_HEADS, _BLOCK)
    for head, other in heads.items():
        if name.startswith(head):
            rest = name.removeprefix(head)
            for part, replacement in block.items():
                rest = rest.replace(part, replacement)
            return other + rest
    raise StateError(f"tensor {name!r} is none of CLIP's; is this a checkpoint of a CLIP vision transformer?")


def visual(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower of such a checkpoint under open_clip's names: what stands below ``visual.``, in float32."""
    found = {name.split("visual.", 1)[1]: t.float() for name, t in tensors.items() if "visual." in name}
    if not found:
        raise FileError("the checkpoint has no image tower: no tensor of it is called visual.*")
    return found
