"""A made-up language with lexicons like the real ones, and an encoder of random weights, in all-MiniLM's layout."""

import functools
import itertools
import random

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from dts_mini.suites.text.lexicons import LANGUAGES, Synset
from dts_mini.suites.text.model import TOKENS, Pretrained
from dts_mini.suites.text.tasks import LITTLE

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _words(seed: int, count: int, letters: str = LETTERS) -> list[str]:
    g = random.Random(seed)
    vowels, others = [c for c in letters if c in "aeiou"], [c for c in letters if c not in "aeiou"]
    made = ("".join(g.choice(others) + g.choice(vowels) for _ in range(g.randint(2, 4))) for _ in itertools.count())
    return sorted(set(itertools.islice(made, 2 * count)))[:count]


class SmallLexicons:
    """The face of ``Lexicons`` on words of no language."""

    words = _words(0, 3_000)
    nouns = words[:1_000]

    @functools.cached_property
    def synsets(self) -> dict[str, Synset]:
        g, found = random.Random(1), {}
        for at in range(3_000):
            words, wider = tuple(g.sample(self.nouns, 3)), (("@", f"n{g.randrange(3_000):08}"),)
            found[f"n{at:08}"] = Synset(f"n{at:08}", words, wider, " ".join(g.sample(self.words[1_000:], 5)), ())
        return found

    @functools.cached_property
    def sounds(self) -> dict[str, tuple[str, ...]]:
        g, found = random.Random(2), {}
        for word in self.words[1_000:]:
            vowels = [f"{c.upper()}0" if c in "aeiou" else c.upper() for c in word]
            stressed = g.choice([at for at, sound in enumerate(vowels) if sound.endswith("0")])
            found[word] = tuple(sound.replace("0", "1") if at == stressed else sound for at, sound in enumerate(vowels))
        return found | {word[:3] + "x": (word[0].upper(), f"{word[1].upper()}1") for word in self.words[1_000:1_800]}

    @functools.cached_property
    def kinds(self) -> dict[str, set[str]]:
        return {word: {"noun"} for word in (*self.nouns, *self.plurals.values(), *self.sounds)}

    @functools.cached_property
    def plurals(self) -> dict[str, str]:
        return {noun: noun + "s" for noun in self.nouns}

    @functools.cache  # noqa: B019
    def frequent(self, language: str) -> dict[str, int]:
        at = LANGUAGES.index(language)
        return dict.fromkeys(self.nouns if at == 0 else _words(at, 300, LETTERS[at : at + 14] + "aeiou"), 400)

    @functools.cached_property
    def _sentences(self) -> list[tuple[str, list[str]]]:
        g, little = random.Random(3), sorted(LITTLE - {"a", "an"})
        said = lambda: ["a", g.choice(self.nouns), g.choice(little), *g.sample(self.nouns, g.randint(3, 6))]
        return [(f"n{at % 3_000:08}", said()) for at in range(1_500)]

    def sentences(self):
        return iter(self._sentences)


class SmallPretrained(Pretrained):
    """Letters for tokens; two layers of width 64."""

    def __init__(self) -> None:
        pass

    @functools.cached_property
    def config(self) -> dict:
        size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
        return size | {"vocab_size": 3 + 2 * len(LETTERS) + 2, "max_position_embeddings": 32}

    def state(self) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        body = transformers.BertModel(transformers.BertConfig(**self.config), add_pooling_layer=False)
        return {name: (3 * x).half().float() for name, x in body.state_dict().items()}

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        pieces = ["[PAD]", "[UNK]", "[CLS]", *LETTERS, *(f"##{c}" for c in LETTERS), "/", ":"]
        found = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
        found.normalizer, found.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
        found.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 2)])
        found.enable_truncation(TOKENS)
        found.enable_padding(length=TOKENS)
        return found
