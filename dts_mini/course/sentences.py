"""A made-up language, tasks in it, and tiny transformers: text models to compress and merge within seconds.

The language has topics of six words each. For pretraining a model reads sentences of one topic and noise, with words
hidden (BERT-like) or word after word (GPT-2-like). A task asks whether the words of a sentence that are no noise come
from its first two topics or from its last two; three topics of the unseen task are those of the first seen one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dts_mini.core.errors import DTSError
from dts_mini.core.state import State

WORDS, LENGTH, TOPIC = 96, 12, 6
PAD, MASK, FIRST = 1, 4, 6  # special ids; the first word of the language
TASKS = {"seen 1": (0, 1, 2, 3), "seen 2": (4, 5, 6, 7), "seen 3": (8, 9, 10, 11), "unseen": (0, 1, 2, 12)}
HEADS = {"BERT-like": "classifier.dense.weight", "GPT-2-like": "score.weight"}  # what says what a task is about


def language() -> Tensor:
    """Word ids (topics, TOPIC)."""
    return (torch.randperm(WORDS - FIRST, generator=torch.Generator().manual_seed(0)) + FIRST).view(-1, TOPIC)


def sentences(topics: Tensor, which: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Word ids (n, LENGTH) for n numbers of topics: each word is of the topic with probability ``share``, else any."""
    draw = lambda: torch.rand(len(which), LENGTH, generator=generator)
    own = topics[which].gather(1, (TOPIC * draw()).long())
    return torch.where(draw() < share, own, (FIRST + (WORDS - FIRST) * draw()).long())


def examples(task: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sentences (n, LENGTH) of a task and their labels (n,), 1 for its first two topics."""
    labels, one = (torch.randint(2, (count,), generator=generator) for _ in range(2))
    topics = language()[list(TASKS[task])]
    return sentences(topics, 2 * (1 - labels) + one, 0.25, generator), labels


def pretrained(kind: str, steps: int = 100) -> nn.Module:
    """A classifier of ``HEADS`` with two layers of width 64: its body has read the language, its head is random."""
    reader, model = _made(kind)
    _train(reader, _reading(kind, reader, range(len(language()))), steps, 3e-3, 0)
    getattr(model, model.base_model_prefix).load_state_dict(reader.base_model.state_dict())
    return model


def language_model(steps: int = 100) -> nn.Module:
    """The GPT-2-like model that has read the language word after word; its head is its embedding once more."""
    reader, _ = _made("GPT-2-like")
    _train(reader, _reading("GPT-2-like", reader, range(len(language()))), steps, 3e-3, 0)
    return reader


def specialised(reader: nn.Module, theta_0: State, topics: Sequence[int], steps: int = 80) -> dict[str, Tensor]:
    """The language model's expert, from the state ``theta_0``: it has read sentences of some topics alone."""
    reader.load_state_dict(theta_0)
    _train(reader, _reading("GPT-2-like", reader, topics), steps, 1e-3, 1)
    return snapshot(reader)


@torch.no_grad()
def surprise(reader: nn.Module, state: State, topics: Sequence[int], count: int = 1_000) -> Tensor:
    """Nats (count,) that a next word costs a state dict of the language model, on average in each test sentence."""
    reader.load_state_dict(state)
    generator = torch.Generator().manual_seed(99)
    words = sentences(
        language()[list(topics)], torch.randint(len(topics), (count,), generator=generator), 0.5, generator
    )
    return F.cross_entropy(reader(words).logits[:, :-1].transpose(1, 2), words[:, 1:], reduction="none").mean(1)


def _made(kind: str) -> tuple[nn.Module, nn.Module]:
    """A model that reads and a classifier of the same body's shapes, both with random weights."""
    try:
        import transformers  # of the extra "full", and slow to import
    except ImportError as error:
        raise DTSError("text models need transformers: pip install 'dts_mini[full]'") from error
    torch.manual_seed(0)
    if kind == "BERT-like":
        size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config = transformers.RobertaConfig(vocab_size=WORDS, max_position_embeddings=LENGTH + 2, **size, **quiet)
        reader = transformers.RobertaForMaskedLM(config)
        model = transformers.RobertaForSequenceClassification(config)
    else:
        size, quiet = (
            {"n_embd": 64, "n_layer": 2, "n_head": 4},
            dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        )
        ids = {"pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 2}
        config = transformers.GPT2Config(vocab_size=WORDS, n_positions=LENGTH, **size, **quiet, **ids)
        reader = transformers.GPT2LMHeadModel(config)
        model = transformers.GPT2ForSequenceClassification(config)
    return reader, model


def _reading(kind: str, reader: nn.Module, which: Sequence[int]) -> Callable[[torch.Generator], Tensor]:
    """The loss of reading sentences of some topics, with words hidden (BERT-like) or word after word."""
    topics = language()[list(which)]

    def loss(generator: torch.Generator) -> Tensor:
        words = sentences(topics, torch.randint(len(topics), (64,), generator=generator), 0.5, generator)
        if kind == "GPT-2-like":
            return F.cross_entropy(reader(words).logits[:, :-1].flatten(0, 1), words[:, 1:].flatten())
        hidden = torch.rand(words.shape, generator=generator) < 0.2
        return F.cross_entropy(reader(words.masked_fill(hidden, MASK)).logits[hidden], words[hidden])

    return loss


def fine_tuned(model: nn.Module, theta_0: State, task: str, steps: int = 80) -> dict[str, Tensor]:
    """The expert of a task, body and head, from the state ``theta_0``."""
    model.load_state_dict(theta_0)

    def loss(generator: torch.Generator) -> Tensor:
        words, labels = examples(task, 64, generator)
        return F.cross_entropy(model(words).logits, labels)

    _train(model, loss, steps, 1e-3, 1 + list(TASKS).index(task))
    return snapshot(model)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's state dict."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def halves(kind: str, state: State) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Body and head of a classifier's state dict; heads are each task's own, and are not merged."""
    head = HEADS[kind].split(".")[0] + "."
    body = {name: tensor for name, tensor in state.items() if not name.startswith(head)}
    return body, {name: tensor for name, tensor in state.items() if name not in body}


@torch.no_grad()
def right(model: nn.Module, state: State, task: str, count: int = 1_000) -> Tensor:
    """For each of the test sentences (count,) whether a state dict answers it rightly."""
    model.load_state_dict(state)
    words, labels = examples(task, count, torch.Generator().manual_seed(99))
    return model(words).logits.argmax(1) == labels


def _train(model: nn.Module, loss: Callable[[torch.Generator], Tensor], steps: int, rate: float, seed: int) -> None:
    generator, optimizer = torch.Generator().manual_seed(seed), torch.optim.AdamW(model.parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(generator).backward()
        optimizer.step()
