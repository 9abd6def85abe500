"""CLIP's tensors under two sets of names: the way there and back is exact, and the two models agree."""

import time

import minihub
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dts_mini import StateError, compress
from dts_mini.suites.clip import keys
from dts_mini.suites.clip.suite import open_clip_config

CONFIG = open_clip_config(minihub.CONFIG)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def theirs():
    return minihub.clip_state(seed=3)


def test_transformers_to_open_clip_and_back_is_exact(theirs):
    assert same(keys.to_transformers(keys.to_open_clip(theirs)), theirs)


@given(st.integers(0, 2**31))
def test_open_clip_to_transformers_and_back_is_exact(seed):
    model = open_clip.CLIP(**CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"vocab_size": 9}})
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(t.shape, generator=generator) for name, t in model.state_dict().items()}
    assert same(keys.to_open_clip(keys.to_transformers(state)), state)


def test_both_libraries_give_the_same_embeddings(theirs):
    from transformers import CLIPConfig, CLIPModel

    other, ours = CLIPModel(CLIPConfig(**minihub.CONFIG)).eval(), open_clip.CLIP(**CONFIG).eval()
    other.load_state_dict(theirs)
    ours.load_state_dict(keys.to_open_clip(theirs))
    pixels = torch.randn(3, 3, minihub.SIZE, minihub.SIZE)
    tokens = open_clip.SimpleTokenizer(context_length=minihub.WORDS)(["a photo of a lake.", "stop"])
    with torch.no_grad():
        seen, read = other.get_image_features(pixels), other.get_text_features(tokens)
        seen, read = (getattr(out, "pooler_output", out) for out in (seen, read))
        assert torch.allclose(ours.encode_image(pixels), seen, atol=1e-5)
        assert torch.allclose(ours.encode_text(tokens), read, atol=1e-5)


def test_a_vision_model_is_read_with_and_without_its_prefix(theirs):
    old, new = (minihub.expert_state(theirs, 1, prefix=prefix) for prefix in (True, False))
    assert same(keys.fused(keys.vision(old)), keys.fused(keys.vision(new)))


def test_the_ids_of_positions_that_old_checkpoints_hold_are_left_out(theirs):
    old = theirs | {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    assert same(keys.to_open_clip(old), keys.to_open_clip(theirs))


def test_fused_and_split_towers_are_two_forms_of_one(theirs):
    fused = keys.fused(keys.vision(theirs))
    assert same(keys.fused(keys.split(fused)), fused)
    assert same(keys.split(fused), keys.vision(theirs))
    assert same(keys.fused(fused), fused)


def test_the_file_of_a_delta_records_the_layout(theirs, tmp_path):
    from dts_mini.core.container import decode

    for lay_out, name in ((keys.split, "split"), (keys.fused, "fused")):
        base = lay_out(keys.fused(keys.vision(theirs)))
        delta = compress(base, {key: tensor + 0.1 * torch.randn(tensor.shape) for key, tensor in base.items()})
        assert decode(delta.to_bytes(), "x")[0]["attention"] == name


def test_a_tensor_that_is_none_of_clips_is_named():
    with pytest.raises(StateError, match=r"'classifier.weight' is none of CLIP's"):
        keys.to_open_clip({"classifier.weight": torch.zeros(2)})


def test_a_block_without_its_values_is_named(theirs):
    lacking = {name: tensor for name, tensor in theirs.items() if "layers.1.self_attn.v_proj" not in name}
    with pytest.raises(StateError, match=r"resblocks.1.attn.in_proj_weight.*lacks its v_proj"):
        keys.to_open_clip(lacking)


@pytest.mark.slow
def test_vit_b_32_at_full_size_maps_exactly_and_agrees(record_property):
    """Random weights at full size: names, shapes, outputs, and how long the map takes."""
    from transformers import CLIPConfig, CLIPVisionModelWithProjection

    other = CLIPVisionModelWithProjection(CLIPConfig().vision_config).eval()
    ours = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).visual.eval()
    theirs = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    start = time.perf_counter()
    tower = keys.fused(theirs)
    record_property("seconds to map", time.perf_counter() - start)
    ours.load_state_dict(tower)
    assert sum(tensor.numel() for tensor in tower.values()) == 87_849_216
    assert same(keys.split(tower), theirs)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        found, expected = ours(pixels), other(pixels).image_embeds
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item())
