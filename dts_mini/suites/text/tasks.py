"""The tasks of the text suite: questions about real words and sentences whose answers the lexicons give.

The words and meanings of the lexicons are dealt out to three parts (train, validation, test) once, by a digest, and for
all tasks alike: no test text of any task is made from a word or a meaning that any task's training texts are made from.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from dts_mini.core.errors import DTSError
from dts_mini.suites.text.lexicons import LANGUAGES, Lexicons

SPLITS = ("train", "validation", "test")
SHARES = (0.6, 0.15, 0.25)
Item = tuple[str, int]  # a text and its label
Source = Callable[[Lexicons, str, random.Random], Iterator[Item]]

_LITTLE = (
    "a an the of to in on at by for from with into and or but as is was are were be been has have had he she it they "
    "his her its their that this not will would"
)
LITTLE = frozenset(_LITTLE.split())
BEFORE_ONE = {"a", "an", "this", "that", "every", "each", "another"}
BEFORE_MANY = {"these", "those", "many", "several", "few", "both", "two", "three", "four", "some", "all"}


@dataclass(frozen=True)
class Task:
    """A question with two answers or more; ``texts`` is how many it is trained on, fewer where texts are longer."""

    name: str
    question: str
    classes: tuple[str, ...]
    source: Source
    texts: int
    mirrors: str  # which kind of GLUE's or a probing suite's tasks it is like
    real: bool = True

    @property
    def templates(self) -> tuple[str, ...]:
        """What its descriptor is made from: the question with each answer."""
        return (f"{self.question} {{c}}",)

    def examples(self, lexicons: Lexicons, split: str, n: int, seed: int = 0) -> tuple[list[str], list[int]]:
        """``n`` texts of a split with their labels, each class alike often; DTSError where there are not so many."""
        if split not in SPLITS:
            raise DTSError(f"split {split!r} is unknown: choose one of {', '.join(SPLITS)}")
        left = [n // len(self.classes) + (label < n % len(self.classes)) for label in range(len(self.classes))]
        found: dict[str, int] = {}
        for text, label in self.source(lexicons, split, random.Random(f"{self.name}/{split}/{seed}")):
            if left[label] and text not in found:
                found[text] = label
                left[label] -= 1
            if not any(left):
                return list(found), list(found.values())
        raise DTSError(f"task {self.name!r} has but {len(found)} texts of split {split}, not {n}: ask for fewer")


def part_of(key: str) -> str:
    """The split that a word or a meaning belongs to.

    >>> [part_of(word) for word in ("light", "window", "river")]
    ['validation', 'train', 'train']
    """
    at = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
    return SPLITS[(at >= SHARES[0]) + (at >= SHARES[0] + SHARES[1])]


def _shuffled(keys: Iterable, g: random.Random) -> list:
    """In an order of its own, which depends on no hash seed."""
    found = sorted(keys)
    g.shuffle(found)
    return found


# --- sentences ---


def _sentences(lexicons: Lexicons, split: str, g: random.Random) -> list[tuple[str, list[str]]]:
    return _shuffled(((key, words) for key, words in lexicons.sentences() if part_of(key) == split), g)


def order(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """Sentences; in half of them two neighbouring words have changed places."""
    for _, words in _sentences(lexicons, split, g):
        at, label = g.randrange(len(words) - 1), g.randrange(2)
        if words[at] != words[at + 1]:
            swapped = [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
            yield " ".join(swapped if label else words), label


def missing(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """Sentences with little words inside; in half of them one of those is gone."""
    for _, words in _sentences(lexicons, split, g):
        label, places = g.randrange(2), [at for at in range(1, len(words) - 1) if words[at] in LITTLE]
        if places and (len(words) > 5 if label else len(words) < 14):  # five to thirteen words, with one gone or not
            at = g.choice(places)
            yield " ".join([*words[:at], *words[at + 1 :]] if label else words), label


def replaced(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """Sentences; in half of them a word has been replaced by one of the same kind (noun, verb, ...) of another."""
    sentences = _sentences(lexicons, split, g)
    kind = lambda word: tuple(sorted(lexicons.kinds.get(word, ())))
    others: dict[tuple, list[str]] = {}
    for _, words in sentences:
        for word in words:
            others.setdefault(kind(word), []).append(word)
    for _, words in sentences:
        label, places = g.randrange(2), [at for at, word in enumerate(words) if word not in LITTLE and kind(word)]
        if places:
            at = g.choice(places)
            other = g.choice(others[kind(words[at])])
            if other != words[at]:
                yield " ".join([*words[:at], other, *words[at + 1 :]] if label else words), label


def number(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """Sentences with a word that goes before one thing, or before many; in half of them the noun after it disagrees."""
    many = {plural: word for word, plural in lexicons.plurals.items()}
    noun = lambda word: (
        lexicons.kinds.get(word, set()) <= {"noun", "verb"} and "noun" in lexicons.kinds.get(word, set())
    )
    for _, words in _sentences(lexicons, split, g):
        places = []
        for at in range(len(words) - 1):
            described = at + 2 < len(words) and "adj" in lexicons.kinds.get(words[at + 1], ())
            place = at + 2 if described else at + 1
            if words[at] in BEFORE_ONE and noun(words[place]) and words[place] in lexicons.plurals:
                places.append((place, lexicons.plurals[words[place]]))
            if words[at] in BEFORE_MANY and noun(words[place]) and words[place] in many:
                places.append((place, many[words[place]]))
        if places:
            (at, other), label = g.choice(places), g.randrange(2)
            yield " ".join([*words[:at], other, *words[at + 1 :]] if label else words), label


# --- two words ---


def relation(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """Two common nouns or verbs: the same thing, a kind of the second, what the second is a kind of, or neither."""
    common = lexicons.frequent("English")
    plain = lambda synset: [w for w in synset.words if w in common and w.isalpha() and part_of(w) == split]
    mine = {key: words for key, s in lexicons.synsets.items() if key[0] in "nv" and (words := plain(s))}
    near: dict[str, set[str]] = {}
    for key, words in mine.items():
        wider = [w for symbol, other in lexicons.synsets[key].pointers if symbol == "@" for w in mine.get(other, ())]
        for word in words:
            near.setdefault(word, set()).update(words, wider)
    everything = sorted(near)
    for key in _shuffled(mine, g):
        word = g.choice(mine[key])
        same = [other for other in mine[key] if other != word]
        above = sorted(
            {w for sign, other in lexicons.synsets[key].pointers if sign == "@" for w in mine.get(other, ())}
        )
        if same:
            yield f"{word} / {g.choice(same)}", 0
        if above and (other := g.choice(above)) != word:
            label = 1 + g.randrange(2)
            yield f"{word} / {other}" if label == 1 else f"{other} / {word}", label
        if not near[word] & near[other := g.choice(everything)]:
            yield f"{word} / {other}", 3


def definition(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """A common word and a definition: its own, or in half of them that of another word of the same kind."""
    common, mine = lexicons.frequent("English"), {}
    for key, synset in lexicons.synsets.items():
        word = synset.words[0]
        short = 3 <= len(synset.definition.split()) <= 12 and word not in synset.definition
        if short and word in common and part_of(word) == part_of(key) == split:
            mine.setdefault(key[0], []).append((word, synset.definition))
    pairs = [(kind, *pair) for kind, several in mine.items() for pair in several]
    for kind, word, meaning in _shuffled(pairs, g):
        if g.randrange(2):
            yield f"{word} : {meaning}", 1
        else:
            other, wrong = g.choice(mine[kind])
            if other != word:
                yield f"{word} : {wrong}", 0


def rhyme(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """Two words that end in the same two letters; in half of them they rhyme as they are spoken."""
    tails: dict[str, list[tuple[str, tuple]]] = {}
    for word in _rare(lexicons, split):
        tails.setdefault(word[-2:], []).append((word, _rhyming(lexicons.sounds[word])))
    words = [(word, tail) for several in tails.values() for word, tail in several]
    for word, tail in _shuffled(words, g):
        label = g.randrange(2)
        several = [other for other, end in tails[word[-2:]] if other != word and (end == tail) == bool(label)]
        if several:
            yield f"{word} / {g.choice(several)}", label


def _rhyming(sounds: Sequence[str]) -> tuple[str, ...]:
    """A word's sounds from the vowel that bears the last stress on."""
    last = max(
        at for at, sound in enumerate(sounds) if sound[-1] in ("12" if any(s[-1] in "12" for s in sounds) else "0")
    )
    return tuple(sound.rstrip("012") for sound in sounds[last:])


# --- one word ---


def _rare(lexicons: Lexicons, split: str) -> list[str]:
    """English words with a known pronunciation that are not common: common ones are single pieces to the tokenizer."""
    common = lexicons.frequent("English")
    wanted = lambda word: len(word) > 3 and word in lexicons.kinds and word not in common and part_of(word) == split
    return [word for word in lexicons.sounds if wanted(word)]


def syllables(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """Words of one to four syllables."""
    for word in _shuffled(_rare(lexicons, split), g):
        count = sum(sound[-1].isdigit() for sound in lexicons.sounds[word])
        if 1 <= count <= 4:
            yield word, count - 1


def stress(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """Words of three syllables or more with their main stress on one of the first three."""
    for word in _shuffled(_rare(lexicons, split), g):
        vowels = [sound[-1] for sound in lexicons.sounds[word] if sound[-1].isdigit()]
        if len(vowels) > 2 and "1" in vowels[:3]:
            yield word, vowels.index("1")


def language(lexicons: Lexicons, split: str, g: random.Random) -> Iterator[Item]:
    """Words of four letters or more that but one of ten languages' lists holds."""
    lists = [lexicons.frequent(name) for name in LANGUAGES]
    wanted = lambda word: len(word) > 3 and word.isalpha() and part_of(word) == split
    words = {(word, label) for label, words in enumerate(lists) for word in words if wanted(word)}
    for word, label in _shuffled(words, g):
        if sum(word in words for words in lists) == 1:
            yield word, label


CANDIDATES = (
    Task("order", "Are two neighbouring words swapped?", ("no", "yes"), order, 4_000, "CoLA"),
    Task("missing word", "Is a little word missing?", ("no", "yes"), missing, 4_000, "CoLA"),
    Task("replaced word", "Is a word out of place?", ("no", "yes"), replaced, 4_000, "CoLA"),
    Task("number", "Does a noun disagree in number?", ("no", "yes"), number, 3_600, "CoLA"),
    Task(
        "relation",
        "How is the first word related to the second?",
        ("the same", "a kind of it", "what it is a kind of", "not at all"),
        relation,
        4_000,
        "MNLI",
    ),
    Task("definition", "Does the definition fit the word?", ("no", "yes"), definition, 4_000, "QNLI"),
    Task("rhyme", "Do the two words rhyme?", ("no", "yes"), rhyme, 4_000, "MRPC"),
    Task("syllables", "How many syllables has the word?", ("one", "two", "three", "four"), syllables, 4_400, "SST-2"),
    Task("stress", "Which syllable is stressed?", ("the first", "the second", "the third"), stress, 2_800, "SST-2"),
    Task("language", "Of which language is the word?", LANGUAGES, language, 6_000, "SST-2"),
)
"""What was tried: a task is kept where an expert gains enough (``zoo.kept``)."""
