"""Tiny random models of transformers, one of each kind of layout, and adapters of them as peft saves them."""

import copy
from pathlib import Path

import peft
import torch
import transformers
from torch import Tensor, nn

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WIDE = {"initializer_range": 0.2}  # so that outputs differ by much more than they are rounded
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 0}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}


def bert(kind: str = "ForSequenceClassification") -> nn.Module:
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=3, **SIZE, **WIDE)
    return getattr(transformers, f"Bert{kind}")(config)


def gpt(tied: bool = True) -> nn.Module:
    config = transformers.GPT2Config(vocab_size=50, tie_word_embeddings=tied, **GPT, **WIDE)
    return transformers.GPT2LMHeadModel(config)


def llama(tied: bool = False) -> nn.Module:
    config = transformers.LlamaConfig(vocab_size=50, tie_word_embeddings=tied, **SIZE, **WIDE)
    return transformers.LlamaForCausalLM(config)


def t5() -> nn.Module:
    return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=50, **T5))


MODELS = {
    "bert": bert,
    "masked bert": lambda: bert("ForMaskedLM"),
    "gpt": gpt,
    "gpt, untied": lambda: gpt(False),
    "llama": llama,
    "llama, tied": lambda: llama(True),
    "t5": t5,
}


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().eval().requires_grad_(False)


def answer(module: nn.Module) -> Tensor:
    """What it makes of one batch of tokens."""
    tokens = torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    encoder = {"decoder_input_ids": tokens} if hasattr(module, "decoder") or "T5" in repr(type(module)) else {}
    with torch.no_grad():
        return module(input_ids=tokens, **encoder)[0]


def trained(module: nn.Module, folder: Path, **settings) -> None:
    """Saves an adapter whose every trained value has moved, as peft saves it."""
    wrapped = peft.get_peft_model(copy.deepcopy(module), peft.LoraConfig(**{"r": 4, "lora_alpha": 6} | settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    wrapped.save_pretrained(str(folder))


def with_peft(module: nn.Module, folder: Path) -> nn.Module:
    return peft.PeftModel.from_pretrained(copy.deepcopy(module), str(folder)).eval()


def with_weights(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The module with the weights of a state dict, which may hold tied ones once, as a checkpoint does."""
    other = copy.deepcopy(module)
    other.load_state_dict(state, strict=False)
    other.tie_weights()
    return other
