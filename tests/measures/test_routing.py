"""Routing measured on a small suite, and the command that writes it."""

import json

import pytest
from small import SmallSuite

from dts_mini.measures.routing import main, measure, report
from dts_mini.measures.tables import base_merges
from dts_mini.suites.evaluation import correct


@pytest.fixture(scope="module")
def found() -> dict:
    return measure(SmallSuite())


def test_the_oracle_is_the_rebuilt_expert_and_shares_are_of_it(found):
    rows = {row["name"]: row for row in found["rows"]}
    oracle = rows["oracle: task known"]
    assert oracle["share of oracle"]["value"] == 1 and "routing" not in oracle
    for row in rows.values():
        share = row["end to end"]["value"] / oracle["end to end"]["value"]
        assert row["share of oracle"]["value"] == pytest.approx(share, abs=1e-4)
        if "routing" in row:
            assert row["task and class"]["value"] <= min(row["routing"]["value"], row["end to end"]["value"])


def test_heads_alone_cannot_tell_twins_apart_and_their_answer_counts_by_name(found):
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["heads"]["routing"]["value"] <= 0.75  # of equal scores the first task is taken
    assert rows["heads"]["end to end"]["value"] >= rows["heads"]["task and class"]["value"]


def test_the_best_merge_is_measured_with_the_task_known(found):
    suite, name = SmallSuite(), found["chosen on validation"]["best merge"]
    state = base_merges(suite.pretrained(), [suite.expert(task) for task in suite.tasks])[name]
    wanted = sum(correct(suite, state, task).float().mean().item() for task in suite.tasks) / 4
    row = next(row for row in found["rows"] if row["name"] == f"best merge, task known: {name}")
    assert row["end to end"]["value"] == pytest.approx(wanted, abs=1e-5)


def test_the_command_writes_the_results_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    calls = []
    counted = lambda suite, progress: calls.append(suite) or measure(suite, progress)
    monkeypatch.setattr("dts_mini.measures.routing.measure", counted)
    monkeypatch.setattr("dts_mini.measures.routing.MiniSuite.of_seed", lambda seed, zoo: SmallSuite())
    out, work = tmp_path / "routing.json", ["--work", str(tmp_path / "work")]
    assert main(["--out", str(out), *work]) == 0
    result = json.loads(out.read_text())
    assert result["provenance"]["python"] and capsys.readouterr().out.strip() == report(result).strip()
    assert main(["--out", str(tmp_path), *work]) == 1 and "is a folder" in capsys.readouterr().err
    assert main(["--out", str(out), *work, "--seeds", "0", "1"]) == 0 and len(calls) == 2  # seed 0 was there
    over = json.loads(out.read_text())["over seeds"]
    assert over["seeds"] == [0, 1] and "means over 2 seeds" in capsys.readouterr().out
    for row, one in zip(over["rows"], result["rows"], strict=True):  # both seeds are the same suite here
        assert one["name"].startswith(row["name"]) and row["end to end"]["low"] == row["end to end"]["value"]
        assert row["end to end"]["value"] == one["end to end"]["value"]
