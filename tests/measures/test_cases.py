"""Cases put together: choices that look at seen tasks alone, gains, worst cases and intervals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import SmallSuite

from dts_mini import DTSError
from dts_mini.measures.cases import SHARES, decide, decided, from_hex, report, summary, to_hex


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
    assert len(points) == 16 and {point["task"] for point in points} == set(SmallSuite.tasks)


def test_equal_seeds_have_no_spread_and_other_seeds_do(entries):
    row = summary({0: entries, 1: entries}, 20, draws=20)["rows"][0]["mean"]
    assert row["over seeds"] == pytest.approx([row["value"]] * 2, abs=1e-4)
    with pytest.raises(DTSError, match="no seed"):
        summary({}, 20)


@pytest.mark.parametrize(
    ("low", "over_seeds", "verdict"),
    [
        (0.01, [0.005, 0.03], "above both on average, surely"),
        (-0.01, [0.005, 0.03], "above both on average, not surely"),
    ]
    + [(0.01, [-0.02, 0.05], "above both on average, not surely"), (-0.05, [-0.05, -0.01], "not above both")],
)
def test_a_gain_is_told_with_its_interval_and_only_one_that_is_sure_is_called_so(low, over_seeds, verdict):
    value = 0.02 if verdict.startswith("above") else -0.03
    gain = {"value": value, "low": low, "high": 0.03, "over seeds": over_seeds}
    row = {"mean": {"value": 0.5}, "gain on zero-shot": gain, "gain on base merge": gain}
    row |= {"worst": {"value": -0.1, "task": "a"}}
    row |= {"cases more than a point below": 1, "cases surely more than a point below": 0}
    names = ("abstain, chosen", "hedge, chosen", "hedge by nearness")
    lines = report({"cases": 2, "rows": [row | {"name": name} for name in names]}).splitlines()
    assert f"{100 * value:+.1f} [{100 * low:+.1f}, +3.0]" in lines[1]
    assert all(f": {verdict}; more than a point below" in line for line in lines[-3:])
