"""Unseen tasks measured: cases by the core's functions, files to go on from, and the command that writes it all."""

import json

import pytest
import torch
from small import SmallSuite

from dts_mini import DTSError, average, compress, fuse, fusion_weights, task_arithmetic
from dts_mini.measures.cases import SHARES, from_hex, report
from dts_mini.measures.unseen import Bench, held_out, main, measure, resumed
from dts_mini.ours.weightings import hedged_weights, nearness
from dts_mini.suites.evaluation import correct

SUITE = SmallSuite()


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


def test_a_run_that_goes_on_measures_only_what_is_missing_and_ends_alike(rows, entries):
    calls = []
    again = measure(SUITE, rows, entries[:7], 20, 20, lambda so_far: calls.append(len(so_far)))
    assert again == entries and calls == [8, 9, 10]


# --- the command ---


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("dts_mini.measures.unseen.MiniSuite.of_seed", lambda seed, zoo: SUITE)


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
