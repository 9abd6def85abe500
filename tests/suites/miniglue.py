"""What the language suites read, in miniature: tiny random GPT-2s and RoBERTas, and a GLUE of a few rows."""

import json
from io import BytesIO

import minihub
import numpy as np
import safetensors.torch
import torch
from datasets import ClassLabel, Dataset, Features, Value
from pyarrow.parquet import write_table
from tokenizers import pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from dts_mini.suites.glue.names import BASES, COMMITS, DATA, TASKS, expert_repo

ROWS = 24  # a split
WORDS = ("a", "the", "cat", "dogs", "does", "not", "sleep", "well", "who", "where", "it's", "über", "2", "?")
TOKENS = sorted(pre_tokenizers.ByteLevel.alphabet())  # every byte is a token, no two are merged
WIDTH = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}}
WIDTH["roberta"] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
    "type_vocab_size": 1,
}
OWN = {task: f"you/roberta-{task}" for task in ("cola", "mnli", "rte")}


def commits(repos: dict) -> dict[str, str]:
    """A whole commit for each repository: the one that the suite was written for, its digits filled up."""
    return {repo: COMMITS.get(repo, minihub.COMMIT).ljust(40, "0") for repo in repos}


def text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, 7)))


def parquet(task, split: str) -> bytes:
    rng = np.random.default_rng(len(task.name) + 10 * len(split))
    columns = {name: [text(rng) for _ in range(ROWS)] for name in task.columns}
    labels = rng.integers(0, len(task.classes), ROWS).tolist()
    features = Features({**dict.fromkeys(columns, Value("string")), "label": ClassLabel(names=list(task.classes))})
    with BytesIO() as file:
        write_table(Dataset.from_dict(columns | {"label": labels}, features).data.table, file)
        return file.getvalue()


def tokenizer(kind: str) -> dict[str, bytes]:
    special = ["<|endoftext|>"] if kind == "gpt2" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    names = TOKENS + special if kind == "gpt2" else special[:4] + TOKENS + special[4:]
    vocabulary = {name: number for number, name in enumerate(names)}
    return {
        "vocab.json": json.dumps(vocabulary).encode(),
        "merges.txt": b"#version: 0.2\n",
        "tokenizer_config.json": b'{"model_max_length": 128}',
    }


def _files(model, config, **more) -> dict[str, bytes]:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    about = {key: value for key, value in config.to_dict().items() if key not in more} | more
    return {"config.json": json.dumps(about).encode(), "model.safetensors": safetensors.torch.save(state)}


def _moved(model, base: dict, seed: int) -> None:
    """Puts a classifier near a base: its body moved a little, its head drawn large."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=g)
            tensor.copy_(base[name] + 0.05 * noise if name in base else noise)


def gpt2(labels: int = 2) -> GPT2Config:
    return GPT2Config(vocab_size=257, bos_token_id=256, eos_token_id=256, num_labels=labels, **WIDTH["gpt2"])


def roberta(labels: int = 2) -> RobertaConfig:
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    return RobertaConfig(vocab_size=261, num_labels=labels, **special, **WIDTH["roberta"])


def contents() -> dict[str, dict[str, bytes]]:
    """The files of every repository that gpt2-glue reads, and of RoBERTa with three experts of one's own."""
    torch.manual_seed(0)
    model, found = GPT2LMHeadModel(gpt2()), {}
    with torch.no_grad():
        for tensor in model.parameters():  # far from the tiny values that training starts with
            tensor.copy_(0.3 * torch.randn_like(tensor))
    old = {
        "n_ctx": 128,
        "gradient_checkpointing": False,
        "task_specific_params": {"text-generation": {"max_length": 50}},
    }
    files = _files(model.transformer, model.config, architectures=["GPT2LMHeadModel"], **old)  # as of 2020
    stored = safetensors.torch.load(files["model.safetensors"])  # as the Hub has it: no prefix, and masks as buffers
    masks = {f"h.{block}.attn.bias": torch.ones(1, 1, 128, 128).tril() for block in range(2)}
    files["model.safetensors"] = safetensors.torch.save(stored | masks)
    found[BASES["gpt2-glue"]] = files | tokenizer("gpt2")
    base = {f"transformer.{name}": tensor for name, tensor in stored.items()}
    for number, task in enumerate(TASKS.values(), 1):
        expert = GPT2ForSequenceClassification(gpt2(len(task.classes)))
        _moved(expert, base, number)
        found[expert_repo(task.name)] = _files(expert, expert.config, pad_token_id=256)

    model = RobertaForMaskedLM(roberta())
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found[BASES["roberta-glue"]] = _files(model, model.config) | tokenizer("roberta")
    for number, (task, repo) in enumerate(OWN.items(), 20):
        expert = RobertaForSequenceClassification(roberta(len(TASKS[task].classes)))
        _moved(expert, base, number)
        named = ("contradiction", "neutral", "entailment") if task == "mnli" else TASKS[task].classes
        found[repo] = _files(expert, expert.config, id2label={str(i): name.upper() for i, name in enumerate(named)})
    found[f"datasets/{DATA}"] = {
        f"{task.name}/{split}-00000-of-00001.parquet": parquet(task, split)
        for task in TASKS.values()
        for split in (task.test, "train")
    }
    return found
