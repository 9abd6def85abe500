"""Text models of transformers, tiny: fine-tuned, compressed, rebuilt, and merged for an unseen task."""

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dts_mini import DTSError, average, compress, fuse, fusion_weights, load, personalise, rebuild, storage
from dts_mini.cli import main
from dts_mini.core.parts import Tied
from dts_mini.course import sentences
from dts_mini.streaming.checkpoint import open_checkpoint

transformers = pytest.importorskip("transformers")

VOCABULARY, LENGTH = 64, 12
State = dict[str, Tensor]


def gpt_config(**other) -> "transformers.GPT2Config":
    size = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 16}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **size, **dropout, **other)


def train(model: nn.Module, loss: Callable[[torch.Generator], Tensor], steps: int, seed: int) -> State:
    """Trains all weights; returns the state dict."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(generator).backward()
        optimizer.step()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def accuracy(model: nn.Module, state: State, task: str) -> float:
    return sentences.right(model, state, task, 500).float().mean().item()


@pytest.fixture(scope="module", params=sentences.HEADS)
def zoo(request):
    """The kind of a model, the model, its pretrained state, and an expert of each task."""
    model = sentences.pretrained(request.param)
    theta_0 = sentences.snapshot(model)
    return request.param, model, theta_0, {task: sentences.fine_tuned(model, theta_0, task) for task in sentences.TASKS}


@pytest.mark.slow
def test_a_rebuilt_text_model_classifies_as_its_expert_does(zoo):
    _, model, theta_0, experts = zoo
    for task, expert in experts.items():
        delta = compress(theta_0, expert)
        assert storage(delta).share() < 0.03
        zero, kept, best = (accuracy(model, state, task) for state in (theta_0, rebuild(theta_0, delta), expert))
        assert best > 0.8
        assert kept > best - 0.08
        assert kept > zero + 0.2


@pytest.mark.slow
def test_for_an_unseen_task_bodies_are_fused_by_what_their_heads_dense_layers_say(zoo):
    kind, model, theta_0, experts = zoo
    bodies, heads = ({task: sentences.halves(kind, state)[i] for task, state in experts.items()} for i in (0, 1))
    assert bodies["unseen"].keys().isdisjoint(heads["unseen"]) and sentences.HEADS[kind] in heads["unseen"]
    seen = [task for task in sentences.TASKS if task != "unseen"]
    theta_m = average([bodies[task] for task in seen])
    deltas = personalise(theta_m, {task: bodies[task] for task in seen})
    descriptor = {task: head[sentences.HEADS[kind]].flatten() for task, head in heads.items()}
    weights = fusion_weights(descriptor["unseen"], torch.stack([descriptor[task] for task in seen]))
    assert weights.sum() == pytest.approx(1)
    assert weights.max() < 1, "all of them matter"
    fused = fuse(theta_m, list(deltas.values()), weights)
    found, untuned = (
        accuracy(model, body | heads["unseen"], "unseen") for body in (fused, sentences.halves(kind, theta_0)[0])
    )
    assert found > untuned + 0.03


@pytest.mark.slow
def test_a_rebuilt_language_model_reads_its_topics_nearly_as_its_expert_does():
    reader = sentences.language_model()
    theta_0 = sentences.snapshot(reader)
    expert = sentences.specialised(reader, theta_0, (0, 1))
    rebuilt = rebuild(theta_0, compress(theta_0, expert))
    first, kept, best = (sentences.surprise(reader, s, (0, 1), 500).mean() for s in (theta_0, rebuilt, expert))
    assert best < first - 0.1
    assert kept < first - 0.8 * (first - best)


def test_sentences_of_a_task_hold_its_topics_as_their_labels_say():
    generator = torch.Generator().manual_seed(0)
    words, labels = sentences.examples("seen 2", 4_000, generator)
    topics = sentences.language()[list(sentences.TASKS["seen 2"])]
    of_first = torch.isin(words, topics[:2]).float().mean(1)
    any_word = topics[:2].numel() / (sentences.WORDS - sentences.FIRST)
    expected = {1: 0.25 + 0.75 * any_word, 0: 0.75 * any_word}  # a quarter is of the label's topics, the rest is noise
    for label, share in expected.items():
        assert of_first[labels == label].mean() == pytest.approx(share, abs=0.01)
    assert labels.float().mean() == pytest.approx(0.5, abs=0.03)


def test_without_transformers_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DTSError, match=r"pip install 'dts_mini\[full\]'"):
        sentences.pretrained("BERT-like")


def test_a_language_model_in_shards_goes_through_the_command_line_and_back_into_transformers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(gpt_config())
    model.save_pretrained("theta_0", max_shard_size="100KB")
    start = torch.arange(200)[:, None]
    text = (4 + (start + 7 * torch.arange(LENGTH)) % (VOCABULARY - 4)).long()
    loss = lambda model: model(text, labels=text).loss
    train(model, lambda generator: loss(model), 30, seed=0)
    model.save_pretrained("expert", max_shard_size="100KB")
    assert len(open_checkpoint("theta_0").shards) > 2

    line = ["compress", "--base", "theta_0", "--expert", "expert", "--out", "a.dts.safetensors", "--keep-ratio", "0.3"]
    assert main(line) == 0
    assert main(["rebuild", "--base", "theta_0", "--delta", "a.dts.safetensors", "--out", "again"]) == 0
    delta = load("a.dts.safetensors")
    assert "lm_head.weight" not in delta.parts, "tied to the embedding, and transformers stores it once"
    model.config.save_pretrained("again")
    again = transformers.GPT2LMHeadModel.from_pretrained("again")
    assert again.lm_head.weight is again.transformer.wte.weight
    first, kept, expert = (
        loss(found).item() for found in (transformers.GPT2LMHeadModel.from_pretrained("theta_0"), again, model)
    )
    assert expert < first - 1
    assert kept < (first + expert) / 2, "of random weights nearly all must change, and few bytes are kept"


def test_a_live_language_models_tied_head_costs_nothing():
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(gpt_config())
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, lambda g: model(t := torch.randint(4, 60, (8, 8), generator=g), labels=t).loss, 3, seed=0)
    expert = model.state_dict()
    delta = compress(base, expert)
    alone = compress(*({name: x for name, x in state.items() if name != "lm_head.weight"} for state in (base, expert)))
    assert delta.parts["transformer.wte.weight"] == Tied("lm_head.weight")
    assert storage(delta).information == storage(alone).information
