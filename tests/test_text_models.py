"""Text models of transformers, tiny and random: fine-tuned, compressed, rebuilt, and merged for an unseen task.

A sentence of a classification task holds words of one of two lists; the lists of the unseen task are nearly those of
the first seen one. Experts start from random weights, so that little is shared: what is tested is the path, not how
much of an unseen task can be had.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dts_mini import average, compress, fuse, fusion_weights, load, personalise, rebuild, storage
from dts_mini.cli import main
from dts_mini.core.checkpoint import open_checkpoint
from dts_mini.core.parts import Tied

transformers = pytest.importorskip("transformers")

VOCABULARY, LENGTH = 64, 12
State = dict[str, Tensor]


def bert_like() -> nn.Module:
    """A RoBERTa classifier, whose head holds a dense layer."""
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.RobertaConfig(vocab_size=VOCABULARY, max_position_embeddings=20, **size, **dropout)
    return transformers.RobertaForSequenceClassification(config)


def gpt_config(**other) -> "transformers.GPT2Config":
    size = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 16}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **size, **dropout, **other)


def gpt_like() -> nn.Module:
    """A GPT-2 classifier, whose head is one layer; its weights are stored transposed (Conv1D)."""
    return transformers.GPT2ForSequenceClassification(gpt_config(pad_token_id=1))


# Constructor, and the head's dense layer: the descriptor of a task.
MODELS = {"bert": (bert_like, "classifier.dense.weight"), "gpt": (gpt_like, "score.weight")}


def lists(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """For each task the words that speak for a sentence and those against."""
    words = torch.randperm(VOCABULARY - 4, generator=torch.Generator().manual_seed(seed)) + 4
    seen = {f"seen {i}": tuple(words[8 * i : 8 * i + 8].split(4)) for i in range(3)}
    near = (torch.cat([old[:3], new]) for old, new in zip(seen["seen 0"], words[24:26].split(1), strict=True))
    return seen | {"unseen": tuple(near)}


def sentences(words: tuple[Tensor, Tensor], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Token ids (count, LENGTH) and labels (count,): three words of the label's list among random ones."""
    draw = lambda *shape: torch.rand(*shape, generator=generator)
    tokens = torch.randint(4, VOCABULARY, (count, LENGTH), generator=generator)
    labels = (draw(count) > 0.5).long()
    chosen = torch.stack(words)[1 - labels].gather(1, (4 * draw(count, 3)).long())
    return tokens.scatter(1, draw(count, LENGTH).argsort(1)[:, :3], chosen), labels


def train(model: nn.Module, loss: Callable[[torch.Generator], Tensor], steps: int, seed: int) -> State:
    """Fine-tunes all weights; returns the state dict."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(generator).backward()
        optimizer.step()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def accuracy(model: nn.Module, state: State, words: tuple[Tensor, Tensor]) -> float:
    model.load_state_dict(state)
    tokens, labels = sentences(words, 500, torch.Generator().manual_seed(99))
    return (model(tokens).logits.argmax(1) == labels).float().mean().item()


@pytest.fixture(scope="module", params=MODELS)
def zoo(request):
    """A model, its head's dense layer, its random theta_0, an expert of each task, and the tasks' lists."""
    make, dense = MODELS[request.param]
    torch.manual_seed(0)
    model = make()
    theta_0 = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tasks, experts = lists(0), {}
    for seed, (task, words) in enumerate(tasks.items()):
        model.load_state_dict(theta_0)

        def loss(generator, words=words):
            tokens, labels = sentences(words, 64, generator)
            return F.cross_entropy(model(tokens).logits, labels)

        experts[task] = train(model, loss, 50, seed)
    return model, dense, theta_0, experts, tasks


def split(state: State, dense: str) -> tuple[State, State]:
    """Body and head; heads are each task's own, and are not merged."""
    head = {name: tensor for name, tensor in state.items() if name.split(".")[0] == dense.split(".")[0]}
    return {name: tensor for name, tensor in state.items() if name not in head}, head


@pytest.mark.slow
def test_a_rebuilt_text_model_classifies_as_its_expert_does(zoo):
    model, _, theta_0, experts, tasks = zoo
    for task, words in tasks.items():
        delta = compress(theta_0, experts[task], keep_ratio=0.3)
        assert storage(delta).share() < 0.06
        zero, kept, expert = (
            accuracy(model, state, words) for state in (theta_0, rebuild(theta_0, delta), experts[task])
        )
        assert expert > 0.9
        assert kept > expert - 0.12
        assert kept > zero + 0.25


@pytest.mark.slow
def test_for_an_unseen_task_bodies_are_fused_by_what_their_heads_dense_layers_say(zoo):
    model, dense, theta_0, experts, tasks = zoo
    seen = [task for task in tasks if task != "unseen"]
    bodies, heads = ({task: split(state, dense)[i] for task, state in experts.items()} for i in (0, 1))
    theta_m = average([bodies[task] for task in seen])
    deltas = personalise(theta_m, {task: bodies[task] for task in seen}, keep_ratio=0.3)
    descriptor = {task: heads[task][dense].flatten() for task in tasks}
    weights = fusion_weights(descriptor["unseen"], torch.stack([descriptor[task] for task in seen]))
    assert weights.sum() == pytest.approx(1)
    assert weights.max() < 1, "all of them matter"
    fused = fuse(theta_m, list(deltas.values()), weights)
    found, untrained = (
        accuracy(model, body | heads["unseen"], tasks["unseen"]) for body in (fused, split(theta_0, dense)[0])
    )
    assert found > untrained + 0.05


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
