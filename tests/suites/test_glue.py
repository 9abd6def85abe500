"""``dts-mini reproduce --suite gpt2-glue`` and ``roberta-glue`` on the miniature Hub, with the network off."""

import contextlib
import doctest
import json
import re
import shlex
import shutil
from errno import ENOSPC
from io import BytesIO, StringIO
from pathlib import Path

import miniglue
import minihub
import pytest
import safetensors.torch
import torch
from huggingface_hub import constants
from pyarrow import Table
from pyarrow.parquet import read_table, write_table
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import dts_mini.reproduce as reproduction
from dts_mini import DTSError, FileError, StateError
from dts_mini.cli import _parser, main
from dts_mini.measures.tables import passes
from dts_mini.reproduce import plan, plan_text, published, reproduce
from dts_mini.suites import hub as hub_module
from dts_mini.suites import load_suite, streams, texts
from dts_mini.suites.evaluation import logits
from dts_mini.suites.glue import keys
from dts_mini.suites.glue.names import COMMITS, TASKS, UNSEEN, expert_repo
from dts_mini.suites.glue.suite import GlueSuite
from dts_mini.suites.hub import Hub, Repo
from dts_mini.suites.suite import Suite

DATA = Repo("nyu-mll/glue", "dataset")


@pytest.fixture(scope="session")
def language():
    """The files of every repository: {repository: {file: bytes}}."""
    return miniglue.contents()


@pytest.fixture(scope="session")
def _language_cache(language, tmp_path_factory):
    return minihub.write(tmp_path_factory.mktemp("language"), language, miniglue.commits(language))


@pytest.fixture
def language_cache(_language_cache, tmp_path):
    """A cache of one's own, to damage."""
    return shutil.copytree(_language_cache, tmp_path / "language", symlinks=True)


@pytest.fixture
def glue(_language_cache, tmp_path, offline):
    """Makes suites on the miniature Hub, offline."""

    def make(architecture="gpt2-glue", cache=_language_cache, home=None, **options) -> GlueSuite:
        home = home or tmp_path / "home"
        hub = Hub(home / "revisions.json", cache=cache, known=COMMITS)
        options |= {"experts": miniglue.OWN} if architecture == "roberta-glue" and "experts" not in options else {}
        return GlueSuite(architecture, home=home, hub=hub, device="cpu", **options)

    return make


@pytest.fixture(scope="session")
def ran(_language_cache, tmp_path_factory):
    """Where the command put what it measured, and all that it printed: the curve has two points instead of all."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        minihub.few_points(patch, ("DTS-T", "keep 0.1"), ("low-rank, water-filling", "1%"))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(_language_cache))
        assert main(["reproduce", "--suite", "gpt2-glue", "--out", str(home), "--device", "cpu"]) == 0
    return home


@pytest.fixture
def hub_server(language, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with minihub.serve({name: dict(files) for name, files in language.items()}) as server:
        server.commits = miniglue.commits(language)
        yield server


# --- what a suite gives ---


def test_a_task_without_a_name_is_no_task(glue):
    with pytest.raises(DTSError, match="task '' is unknown"):
        glue().task("")


def test_the_suite_has_every_member_of_the_protocol(glue):
    wanted = {name for name in [*Suite.__annotations__, *vars(Suite)] if not name.startswith("_")}
    assert {name for name in wanted if not hasattr(glue(), name)} == set()


@pytest.mark.parametrize("architecture", ["gpt2-glue", "roberta-glue"])
def test_answers_are_those_of_transformers_own_classifier_with_its_own_padding(architecture, glue):
    """All texts at once, padded to one length far beyond the longest, as the published numbers were measured."""
    suite = glue(architecture)
    tokenizer = AutoTokenizer.from_pretrained(suite.hub.fetch(suite.base, "config.json").parent)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    for task in suite.tasks:
        repo = suite._experts[task]
        model = AutoModelForSequenceClassification.from_pretrained(suite.hub.fetch(repo, "config.json").parent).eval()
        table = read_table(suite.hub.fetch(*suite._data_files(TASKS[task], "test")[0]))
        columns = [table[name].to_pylist() for name in TASKS[task].columns]
        batch = tokenizer(*columns, padding="max_length", max_length=120, truncation=True, return_tensors="pt")
        with torch.no_grad():
            theirs = model(**batch).logits
        ours = logits(suite, suite.expert(task), task)
        named = [str(model.config.id2label[i]).lower() for i in range(len(TASKS[task].classes))]
        order = [named.index(name) for name in TASKS[task].classes] if "label_0" not in named else slice(None)
        assert torch.allclose(ours, theirs[:, order], atol=1e-5), task
        assert suite.inputs(task, "test")[1].tolist() == table["label"].to_pylist()


def test_classes_that_an_expert_has_in_another_order_are_put_into_the_datas(glue):
    assert glue("roberta-glue").order("mnli") == [2, 1, 0]
    assert glue("roberta-glue").order("cola") == [0, 1] and glue().order("mnli") == [0, 1, 2]


@pytest.mark.parametrize(
    "names",
    [
        {"0": "no", "1": "yes"},
        {"zero": "not_entailment", "one": "entailment"},
        {"1": "not_entailment", "2": "entailment"},
        ["not_entailment", "entailment"],
    ],
    ids=str,
)
def test_names_of_classes_that_tell_nothing_leave_the_datas_order(names, glue, language_cache, language):
    about = json.loads(language["tanganke/gpt2_rte"]["config.json"]) | {"id2label": names}
    _replaced(language_cache, "tanganke/gpt2_rte", "config.json", json.dumps(about).encode())
    assert glue(cache=language_cache).order("rte") == [0, 1]


def test_bodies_are_the_stored_weights_without_heads_and_masks(glue, language):
    suite = glue()
    stored = safetensors.torch.load(language["openai-community/gpt2"]["model.safetensors"])
    expert = safetensors.torch.load(language["tanganke/gpt2_mnli"]["model.safetensors"])
    theta_0, body = suite.pretrained(), suite.expert("mnli")
    assert set(theta_0) == {name for name in stored if not name.endswith(".attn.bias")} == set(body)
    assert body["h.1.attn.c_attn.weight"].shape == (32, 96)  # (in, out), as GPT-2 stores it
    assert all(torch.equal(tensor, stored[name]) for name, tensor in theta_0.items())
    assert all(torch.equal(tensor, expert[f"transformer.{name}"]) for name, tensor in body.items())
    assert list(suite.head("mnli")) == ["score.weight"] and suite.head("mnli")["score.weight"].shape == (3, 32)


def test_a_base_with_a_language_head_and_a_prefix_gives_the_same_body(glue):
    suite = glue("roberta-glue")
    assert set(suite.pretrained()) == set(suite.expert("rte"))
    assert set(suite.head("rte")) == {
        f"classifier.{layer}.{kind}" for layer in ("dense", "out_proj") for kind in ("weight", "bias")
    }


def test_gpt2s_descriptor_depends_neither_on_a_shift_of_the_head_nor_on_the_order_of_classes(glue):
    suite = glue()
    rows = suite.head("mnli")["score.weight"]
    before = suite.descriptor("mnli").clone()
    rows.copy_(rows[[2, 0, 1]] + torch.randn(rows.shape[1]))
    assert torch.allclose(suite.descriptor("mnli"), before, atol=1e-6)
    assert {suite.descriptor(task).shape for task in suite.tasks} == {(32 * 32,)}
    seen = torch.stack([suite.descriptor(task) for task in suite.tasks if task not in UNSEEN])
    assert (seen @ suite.descriptor("rte") >= 0).all()  # of two such matrices no cosine is negative


def test_robertas_descriptor_is_the_papers_dense_layer_with_its_bias(glue):
    suite = glue("roberta-glue")
    head = suite.head("rte")
    dense = torch.cat([head["classifier.dense.bias"], head["classifier.dense.weight"].flatten()])
    assert torch.allclose(suite.descriptor("rte"), F.normalize(dense, dim=0))


def test_the_unseen_tasks_are_the_papers_among_those_there_are(glue):
    assert glue().unseen == UNSEEN and glue("roberta-glue").unseen == ("rte",)
    only = {task: f"you/roberta-{task}" for task in ("cola", "mnli")}
    assert glue("roberta-glue", experts=only).unseen == ()
    assert passes(glue("roberta-glue", experts=only))["unseen"] == 0


def test_a_single_seen_task_makes_no_table_of_unseen_ones(glue):
    """Of one expert there is no merge: Consensus would end the run after hours."""
    for tasks in (("cola", "rte"), ("rte", "sst2"), ("cola", "rte", "sst2")):
        assert glue("roberta-glue", experts={task: f"you/roberta-{task}" for task in tasks}).unseen == ()
    four = {task: f"you/roberta-{task}" for task in ("cola", "mnli", "rte", "sst2")}
    assert glue("roberta-glue", experts=four).unseen == ("sst2", "rte")


def test_a_draw_of_texts_is_of_the_same_ones_each_time_and_keeps_its_results_apart(glue):
    whole, some = glue(), glue(texts=5)
    (ids, _), (few, wanted) = (suite.inputs("cola", "test") for suite in (whole, some))
    assert len(few) == len(wanted) == 5 and some.task_size("cola") == 5 and whole.task_size("cola") == 1_043
    rows = [int((ids == row).all(1).nonzero()[0]) for row in few]
    assert rows == sorted(rows) and torch.equal(few, glue(texts=5).inputs("cola", "test")[0])
    here = logits(some, some.expert("cola"), "cola")
    assert torch.allclose(here, logits(whole, whole.expert("cola"), "cola")[rows], atol=1e-5)
    assert some.folder != whole.folder and "at most 5 texts" in some.notes()[1]
    with pytest.raises(DTSError, match="texts is 0: draw at least one"):
        glue(texts=0)


def test_validation_is_a_part_of_training(glue):
    suite = glue()
    table = read_table(suite.hub.fetch(*suite._data_files(TASKS["qnli"], "validation")[0]))
    ids, labels = suite.inputs("qnli", "validation")
    assert len(ids) == len(labels) == miniglue.ROWS // 10
    pairs = zip(table["question"].to_pylist(), table["sentence"].to_pylist(), strict=True)
    train = {tuple(suite.tokenizer(*pair)["input_ids"]) for pair in pairs}
    assert {tuple(row[row != texts.END].tolist()) for row in ids} <= train
    with pytest.raises(DTSError, match="split is 'train': choose one of validation, test"):
        suite.inputs("qnli", "train")


def test_texts_in_batches_answer_as_one_by_one(monkeypatch):
    monkeypatch.setattr(texts, "TOKENS", 12)
    several = texts.padded([[5, 2], [7], [1, 2, 3, 4], [9, 9, 9], []])
    seen = []

    def answer(ids, mask):
        seen.append(tuple(ids.shape))
        assert (ids[mask == 0] == 3).all()
        return (ids * mask).sum(1)

    assert texts.in_batches(answer, several, pad=3).tolist() == [7, 7, 10, 27, 3]
    assert seen == [(3, 4), (2, 1)]  # at most twelve tokens at once


@pytest.mark.parametrize("module", [texts, streams, keys], ids=lambda module: module.__name__)
def test_the_examples_say_what_happens(module):
    assert not doctest.testmod(module, extraglobs={"torch": torch}).failed


# --- what it refuses ---


def test_what_cannot_be_a_suite_is_refused(glue):
    for options, words in (
        ({"architecture": "roberta-glue", "experts": None}, "has no published experts: name yours, --experts"),
        ({"experts": {"cola": "a/b"}}, "one expert is nothing to merge"),
        ({"experts": {"cola": "a/b", "stsb": "a/c"}}, "task is 'stsb': choose one of cola, mnli"),
        ({"experts": {"cola": "a/b", "rte": "a/b"}}, "a/b is named for cola and rte: its head is of one task"),
        ({"precision": "float8"}, "precision is 'float8'"),
    ):
        with pytest.raises(DTSError, match=words):
            glue(**options)
    with pytest.raises(DTSError, match="task 'signs' is unknown: choose one of cola"):
        glue().task("signs")
    with pytest.raises(DTSError, match="is unknown"):
        load_suite("gpt2-glue:7")


def test_options_of_another_suite_are_refused(capsys):
    for line, words in (
        ("gpt2-glue --tasks 8", "--tasks is of other suites: gpt2-glue has no such option"),
        ("clip-vit-b-32 --experts cola=a/b", "--experts is of other suites"),
        ("clip-vit-b-32 --texts 5", "--texts is of other suites"),
        ("gpt2-glue --figures all", "leave out --figures"),
        ("gpt2-glue --experts cola=a/b rte=a/c cola=a/d", "--experts names two experts of cola: name one for each"),
    ):
        assert main(["reproduce", "--suite", *line.split()]) == 1
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["reproduce", "--suite", "roberta-glue", "--experts", "cola"])
    assert "is not of the form TASK=OWNER/NAME" in capsys.readouterr().err


def _replaced(cache, repo, file, data):
    """Puts a file into a repository in a file's place; without data there is none."""
    folder = minihub.folder_of(cache, repo)
    (snapshot,) = (folder / "snapshots").iterdir()
    (snapshot / file).unlink(missing_ok=True)
    if data is not None:
        blob = folder / "blobs" / minihub.etag(file, data)
        blob.write_bytes(data)
        (snapshot / file).symlink_to(blob)


def test_an_expert_of_another_task_or_size_is_named(glue, language_cache, language):
    qqp = language["tanganke/gpt2_qqp"]["model.safetensors"]
    _replaced(language_cache, "tanganke/gpt2_mnli", "model.safetensors", qqp)
    with pytest.raises(StateError, match="expert of mnli, tanganke/gpt2_mnli: its head has 2 classes, mnli has 3"):
        glue(cache=language_cache).expert("mnli")
    smaller = {n: t for n, t in safetensors.torch.load(qqp).items() if "h.1" not in n}
    _replaced(language_cache, "tanganke/gpt2_rte", "model.safetensors", safetensors.torch.save(smaller))
    with pytest.raises(StateError, match="the expert of rte, tanganke/gpt2_rte does not fit the base"):
        glue(cache=language_cache).expert("rte")


RTE = "tanganke/gpt2_rte"


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("score.weight", torch.ones(2, 16), r"'score.weight' has shape \(2, 16\) in the head of tanganke/gpt2_rte"),
        ("score.bias", torch.ones(2), "head of tanganke/gpt2_rte, the expert of rte, does not fit .* 'score.bias'"),
        ("score.weight", torch.full((2, 32), torch.nan), "rte, tanganke/gpt2_rte: score.weight holds NaN or infinity"),
        ("transformer.ln_f.bias", torch.full((32,), torch.inf), "rte, tanganke/gpt2_rte: ln_f.bias holds NaN or inf"),
    ],
)
def test_what_is_wrong_with_a_head_or_a_value_is_said_before_any_model_is_asked(
    name, tensor, words, glue, language_cache, language
):
    state = safetensors.torch.load(language[RTE]["model.safetensors"]) | {name: tensor}
    _replaced(language_cache, RTE, "model.safetensors", safetensors.torch.save(state))
    with pytest.raises(StateError, match=words):
        glue(cache=language_cache).check()


def test_a_head_that_lacks_a_layer_is_named(glue, language_cache, language):
    state = safetensors.torch.load(language["you/roberta-rte"]["model.safetensors"])
    state = {name: tensor for name, tensor in state.items() if "classifier.dense" not in name}
    _replaced(language_cache, "you/roberta-rte", "model.safetensors", safetensors.torch.save(state))
    with pytest.raises(StateError, match=r"head of you/roberta-rte, .*: it lacks 'classifier.dense.weight'"):
        glue("roberta-glue", cache=language_cache).expert("rte")


def test_an_expert_that_computes_otherwise_than_the_base_is_named(glue, language_cache, language):
    """Its shapes are the same: it would answer, and wrongly."""
    about = json.loads(language[RTE]["config.json"]) | {"n_head": 1}
    _replaced(language_cache, RTE, "config.json", json.dumps(about).encode())
    with pytest.raises(StateError, match=f"expert of rte, {RTE}: its config.json has n_head 1, that of .* has 2"):
        glue(cache=language_cache).expert("rte")
    _replaced(language_cache, RTE, "config.json", b"[]")
    with pytest.raises(FileError, match=r"config.json: is no configuration of a model, but a list"):
        glue(cache=language_cache).expert("rte")


def _pickled(state, **settings) -> bytes:
    with BytesIO() as file:
        torch.save(state, file, **settings)
        return file.getvalue()


def test_an_expert_in_shards_or_in_an_old_file_is_the_same_expert(glue, language_cache, language):
    state = safetensors.torch.load(language[RTE]["model.safetensors"])
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    placed = {name: shards[number % 2] for number, name in enumerate(state)}
    files = {
        shard: safetensors.torch.save({n: state[n] for n, where in placed.items() if where == shard})
        for shard in shards
    }
    files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": placed}).encode()
    old = {"_use_new_zipfile_serialization": False}  # before PyTorch 1.6, as RoBERTas of 2020 are
    for others in (files, {"pytorch_model.bin": _pickled(state)}, {"pytorch_model.bin": _pickled(state, **old)}):
        cache = shutil.copytree(language_cache, language_cache.parent / str(len(others[min(others)])), symlinks=True)
        for file, data in {"model.safetensors": None, **others}.items():
            _replaced(cache, RTE, file, data)
        suite = glue(cache=cache)
        assert {file for repo, file in suite.wanted() if repo.name == RTE} == {"config.json", *others}
        for name, tensor in glue().expert("rte").items():
            assert torch.equal(suite.expert("rte")[name], tensor)


def test_experts_may_lie_in_folders_of_one_repository(glue, language_cache, language, tmp_path):
    """As those do that several papers merge: TASK/roberta-base_lr1e-05."""
    shared, tasks = "you/all", ("cola", "rte")
    files = {f"{t}/lr1e-05/{file}": data for t in tasks for file, data in language[f"you/roberta-{t}"].items()}
    minihub.write(language_cache, {shared: files})
    named = {task: f"{shared}/{task}/lr1e-05" for task in tasks}
    suite = glue("roberta-glue", cache=language_cache, experts=named, home=tmp_path / "shared")
    alone = glue("roberta-glue", experts={task: miniglue.OWN[task] for task in tasks})
    assert {file for repo, file in suite.wanted() if repo.name == shared} == set(files)
    assert suite.identity("cola", "test")["expert"].startswith("you/all/cola/lr1e-05@")
    for task in tasks:
        assert all(torch.equal(tensor, suite.expert(task)[name]) for name, tensor in alone.expert(task).items())
        assert torch.equal(suite.descriptor(task), alone.descriptor(task))
    wrong = glue("roberta-glue", cache=language_cache, experts=named | {"mnli": f"{shared}/mnli"})
    with pytest.raises(FileError, match=r"you/all at .*: has no mnli/model.safetensors"):
        wrong.wanted()


def test_weights_that_cannot_be_had_are_named_with_the_mend(glue, language_cache, language):
    whole = _pickled(safetensors.torch.load(language[RTE]["model.safetensors"]))
    for number, (files, words) in enumerate(
        (
            ({"pytorch_model.bin": whole[:-3_000]}, "pytorch_model.bin: .*is damaged.*; copy it again"),
            ({"pytorch_model.bin": b"version https://git-lfs.github.com/spec/v1"}, "is a Git LFS pointer"),
            (
                {"adapter_config.json": b"{}"},
                f"{RTE} at dcd99d30: has no model.safetensors; it is an adapter: merge it",
            ),
        )
    ):
        cache = shutil.copytree(language_cache, language_cache.parent / str(number), symlinks=True)
        for file, data in {"model.safetensors": None, **files}.items():
            _replaced(cache, RTE, file, data)
        with pytest.raises(FileError, match=words):
            glue(cache=cache).expert("rte")


def test_a_weight_that_only_was_rounded_to_half_precision_has_not_moved(glue, language_cache, language):
    base = safetensors.torch.load(language["openai-community/gpt2"]["model.safetensors"])
    state = safetensors.torch.load(language[RTE]["model.safetensors"])
    state["transformer.wte.weight"] = base["wte.weight"].clone()
    state["transformer.wte.weight"][5] += 1  # a word that was read
    for dtype in (torch.float16, torch.bfloat16):
        stored = safetensors.torch.save({name: tensor.to(dtype) for name, tensor in state.items()})
        _replaced(language_cache, RTE, "model.safetensors", stored)
        suite = glue(cache=language_cache)
        theta_0, expert = suite.pretrained(), suite.expert("rte")
        moved = (expert["wte.weight"] != theta_0["wte.weight"]).any(1)
        assert moved.nonzero().flatten().tolist() == [5]
        for name, tensor in expert.items():  # nothing else has changed by more than the rounding
            assert torch.allclose(tensor, state[f"transformer.{name}"], rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_a_data_file_that_cannot_be_read_is_named_before_any_model_is_asked(glue, language_cache, monkeypatch):
    monkeypatch.setattr(GlueSuite, "answers", lambda *args: pytest.fail("a model was asked"))
    _replaced(language_cache, str(DATA), "sst2/validation-00000-of-00001.parquet", b"PAR1")
    with pytest.raises(FileError, match=r"sst2/validation-00000-of-00001.parquet: is no readable Parquet file"):
        glue(cache=language_cache).check()


def test_hidden_labels_and_missing_columns_are_refused(glue, language_cache):
    for number, (columns, words) in enumerate(
        (
            ({"sentence": ["a", "b"], "label": [-1, -1]}, "labels of cola are from -1 to -1, it has 2 classes"),
            ({"text": ["a"], "label": [0]}, "cola has no column 'sentence', only text, label"),
        )
    ):
        with BytesIO() as file:
            write_table(Table.from_pydict(columns), file)
            _replaced(
                language_cache, "datasets/nyu-mll/glue", "cola/validation-00000-of-00001.parquet", file.getvalue()
            )
        with pytest.raises(DTSError, match=words):
            glue(cache=language_cache, home=language_cache.parent / str(number)).inputs("cola", "test")


# --- the Hub ---


def test_repositories_are_pinned_to_the_commits_that_the_suite_was_written_for(hub_server, tmp_path):
    make = lambda: Hub(
        tmp_path / "pins.json", cache=tmp_path / "hub", endpoint=hub_server.address, wait=0, known=COMMITS
    )
    hub = make()
    assert hub.commit(Repo("tanganke/gpt2_mnli")) == COMMITS["tanganke/gpt2_mnli"]
    assert not hub_server.asked  # a whole commit needs no question
    cola = Repo("tanganke/gpt2_cola")
    assert hub.commit(cola) == "a1a84de".ljust(40, "0")  # not the newest, but the one that begins so
    assert "a1a84de" in hub.fetch(cola, "config.json").parts[-2]
    hub_server.commits["tanganke/gpt2_qqp"] = "b" * 40
    with pytest.raises(
        FileError, match="tanganke/gpt2_qqp: the commit 073ac0c that this suite was written for is gone"
    ):
        hub.commit(Repo("tanganke/gpt2_qqp"))
    hub.repin()
    assert hub.commit(Repo("tanganke/gpt2_qqp")) == "b" * 40
    assert make().commit(Repo("tanganke/gpt2_qqp")) == "b" * 40


def test_what_is_no_repository_of_the_hub_is_named(hub_server, tmp_path, monkeypatch):
    hub = Hub(tmp_path / "pins.json", cache=tmp_path / "hub", endpoint=hub_server.address, wait=0)
    for name in ("./cola", "you/a--b"):
        with pytest.raises(FileError, match=rf"{name}: is no name of a repository of the Hub, OWNER/NAME"):
            hub.commit(Repo(name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "cola").mkdir(parents=True)
    with pytest.raises(FileError, match=r"no such model, .*; the folder of that name here is to be uploaded first"):
        hub.commit(Repo("out/cola"))


def test_after_every_fault_of_the_hub_the_same_command_goes_on(ran, hub_server, tmp_path, monkeypatch):
    shutil.copytree(ran, tmp_path / "home")  # what was measured; no file of the Hub

    def run() -> dict:
        hub = Hub(tmp_path / "pins.json", cache=tmp_path / "hub", endpoint=hub_server.address, wait=0, known=COMMITS)
        return reproduce(GlueSuite(home=tmp_path / "home", hub=hub, device="cpu"), with_curves=False)

    weights, expert = "model.safetensors", "tanganke/gpt2_sst2"
    for fault, mended, words in (
        ({"busy": 1_000}, {"busy": 0}, r"asks for fewer requests \(429\), 5 times"),
        ({"cut": 60_000}, {"cut": 0}, "could not be downloaded.*it goes on where it stopped"),
        ({"spoilt": {weights}}, {"spoilt": set()}, f"{weights}: arrives damaged again and again"),
        ({"revoked": {COMMITS[expert]}}, {"revoked": set()}, "the commit 5a012c98 that .*pins.json pins is gone"),
    ):
        for name, value in fault.items():
            setattr(hub_server, name, value)
        with pytest.raises(FileError, match=words):
            run()
        for name, value in mended.items():
            setattr(hub_server, name, value)
    held = hub_server.repos[expert].pop(weights)
    with pytest.raises(FileError, match=f"{expert} at 5a012c98: has no model.safetensors"):
        run()
    hub_server.repos[expert][weights] = held
    with monkeypatch.context() as patch:
        full = lambda *args, **named: (_ for _ in ()).throw(OSError(ENOSPC, "full"))
        patch.setattr(hub_module, "http_get", full)
        with pytest.raises(FileError, match=r"the disk of .* is full; make room, or set HF_HOME"):
            run()
    before = json.loads((ran / "gpt2-glue" / "G1-7" / "results.json").read_text())
    assert run()["headline"]["rows"] == before["headline"]["rows"]


# --- the command ---


PAGE = (Path(__file__).parents[2] / "docs/how-to/language-suite.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_says_what_the_command_does(ran, _language_cache, monkeypatch, offline):
    commands = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if "dts-mini " in line]
    for line in commands:
        assert _parser().parse_args(shlex.split(line)[1:]).command == "reproduce"
    folder = (ran / re.search(r"`build/(\S+)/report.md: the tables", PAGE)[1]).resolve()
    for name in ("report.md", "report.json", "results.json", "curves.json"):
        assert f"`{name}`" in PAGE and (folder / name).is_file()
    (snippet,) = [text for kind, text in BLOCKS if kind == "python"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(_language_cache))
    monkeypatch.setenv("DTS_HOME", str(ran))
    monkeypatch.setenv("DTS_DEVICE", "cpu")
    with contextlib.redirect_stdout(StringIO()) as out:
        exec(snippet, {})
    assert re.fullmatch(r"[\d.]+% of the expert\n[\d.]+% of the texts are classified rightly\n", out.getvalue())


def test_the_command_measures_and_puts_its_numbers_beside_the_published_ones(ran, glue):
    folder = ran / "gpt2-glue" / "G1-7"
    report, text = json.loads((folder / "report.json").read_text()), (folder / "report.md").read_text()
    assert report["headline"]["columns"] == list(TASKS) and report["unseen"]["columns"] == list(UNSEEN)
    assert [report[name]["title"] for name in reproduction.MEASURES] == [
        "Personalised merging", "Unseen tasks", "The size-accuracy curve",
    ]  # fmt: skip
    assert re.search(r"\| experts \| [\d.]+ \(76\.8\) \|.* [\d.]+ \(82\.0\) \|", text)
    assert re.search(r"\| expert of cola \| [\d.]+ \(46\.1\) \| \(57\.1\) \|", text)
    assert re.search(r"\| TIES \| [\d.]+ \(64\.6\) \|", text) and "| (70.0) |" in text
    mine, _, others = text.partition("## Published for other checkpoints")
    assert "76.98" in others and "76.98" not in mine and "59.71" not in text
    assert "accuracy, CoLA too" in mine and "on test texts" in mine and "image" not in mine
    for repo, commit in miniglue.commits(report["revisions"]).items():
        assert f"| {repo} | {commit} |" in text
    assert len(report["revisions"]) == 9
    assert "- cola: its expert gets" in text and "They differ: find out why" in text  # the experts are random
    assert {row["name"] for row in report["curves"]["rows"]} >= {"experts", "DTS-T"}
    assert "transformers" in report["provenance"]["packages"]


def test_a_second_run_asks_no_model(ran, glue, monkeypatch, tmp_path):
    shutil.copytree(ran, tmp_path / "again")
    monkeypatch.setattr(GlueSuite, "answers", lambda *args: pytest.fail("a model was asked"))
    suite = glue(home=tmp_path / "again")
    before = json.loads((suite.folder / "results.json").read_text())
    assert reproduce(suite, with_curves=False, overwrite=True)["headline"]["rows"] == before["headline"]["rows"]
    assert not suite.store.made


@pytest.mark.slow
def test_a_killed_run_goes_on_and_makes_nothing_twice(ran, glue, monkeypatch, tmp_path):
    home = tmp_path / "killed"
    shutil.copytree(ran, home)
    shutil.rmtree(home / "gpt2-glue" / "store" / "logits")
    shutil.rmtree(home / "gpt2-glue" / "G1-7")
    whole, answers = len(list((ran / "gpt2-glue" / "store" / "logits").iterdir())), GlueSuite.answers
    left = [17]

    def killed(self, *args):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return answers(self, *args)

    monkeypatch.setattr(GlueSuite, "answers", killed)
    with pytest.raises(KeyboardInterrupt):
        reproduce(glue(home=home), with_curves=False)
    suite = glue(home=home)
    report = reproduce(suite, with_curves=False)
    assert suite.store.made["logits"] <= whole - 16
    before = json.loads((ran / "gpt2-glue" / "G1-7" / "results.json").read_text())
    assert report["unseen"]["rows"] == before["unseen"]["rows"]


def test_other_revisions_of_an_expert_are_measured_anew(ran, glue, tmp_path):
    suite = glue(home=tmp_path)
    before = reproduction._made_from(suite)
    suite.hub.pinned["tanganke/gpt2_rte"] = "f" * 40
    assert reproduction._made_from(suite) != before


def test_a_dry_run_says_bytes_and_time_and_fetches_nothing(_language_cache, tmp_path, monkeypatch, capsys, offline):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(_language_cache))
    line = ["reproduce", "--suite", "gpt2-glue", "--out", str(tmp_path), "--dry-run", "--device", "cpu"]
    assert main(line) == 0
    text = capsys.readouterr().out
    assert "to download: 0 bytes (0 bytes)" in text and "texts/s on cpu" in text
    assert "token ids of texts, kept on disk: " in text and "58,308 test texts as published" in text
    assert not (tmp_path / "gpt2-glue" / "store").exists()


def test_without_cache_and_network_a_plan_knows_the_published_shape(glue, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduction, "_timed", lambda suite: (0.01, 1.0))
    found = plan(glue(cache=tmp_path / "empty"), with_curves=False)
    assert found["unknown"] == 9 and found["download"] is None
    assert "to download: unknown, for all 9 repositories" in plan_text(found)


def test_the_parts_that_a_plan_times_are_the_model(glue):
    suite = glue()
    parts = suite.trial().parts
    counted = sum(times * sum(t.numel() for t in part.values()) for part, times in parts)
    whole = sum(tensor.numel() for tensor in suite.pretrained().values())
    assert 0.85 * whole < counted <= whole  # positions and the last norm are left out


@pytest.mark.slow
def test_roberta_with_experts_of_ones_own(_language_cache, tmp_path, monkeypatch, capsys, offline):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(_language_cache))
    experts = [f"{task}={repo}" for task, repo in miniglue.OWN.items()]
    line = ["reproduce", "--suite", "roberta-glue", "--out", str(tmp_path), "--device", "cpu", "--no-curves"]
    assert main([*line, "--experts", *experts]) == 0
    path = capsys.readouterr().out.split(": ")[0]
    report = json.loads((tmp_path / path).with_suffix(".json").read_text())
    assert report["protocol"] == "own" and report["headline"]["columns"] == ["cola", "mnli", "rte"]
    assert report["unseen"]["columns"] == ["rte"]
    for task, found in report["checks"].items():  # nobody has published what these experts get
        assert found["said"].startswith(
            f"its expert gets {found['accuracy']:.1f} % of its texts right, their most frequent"
        )
        assert ("It does no better" in found["said"]) == (found["accuracy"] <= found["most frequent class"])
        assert ("Matthews" in found["said"]) == (task == "cola")
    assert "59.71" in (tmp_path / path).read_text().partition("## Published for other checkpoints")[2]


def test_published_tables_of_a_suites_own_protocol_come_first(glue):
    assert [table["protocol"] for table in published(glue())] == ["G1", "G1", "G2"]


def test_the_published_experts_are_those_that_the_check_compares_with():
    (table,) = [t for t in reproduction._published()["tables"] if (t["protocol"], t["table"]) == ("G1", "headline")]
    experts = next(row for row in table["rows"] if row["name"] == "experts")
    assert experts["accuracy"] == {task.name: task.published for task in TASKS.values()}
    assert {expert_repo(task) for task in TASKS} < COMMITS.keys()
