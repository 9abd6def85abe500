"""The size-accuracy curve's command: cells measured once, rows over seeds, goals read off the rows."""

import json

import pytest
from small import SmallSuite

from dts_mini.core.file import read_bytes
from dts_mini.measures import cells, curves


def row(name, size, storage, kl, share=0.99, group="curve"):
    return {
        "group": group,
        "name": name,
        "size": size,
        "storage": storage,
        "share of experts": {"value": share, "each": [share]},
        "kl from experts": {"value": kl, "each": [kl]},
        "images": {"low": share - 0.01, "high": share + 0.01},
    }


def cell(name, size, kl, right):
    return {
        "group": "curve",
        "name": name,
        "size": size,
        "storage": dict.fromkeys(right, 0.01),
        "kl": dict.fromkeys(right, kl),
        "right": right,
    }


@pytest.fixture(scope="module")
def suite():
    return SmallSuite(n=12)


@pytest.fixture
def few(monkeypatch):
    """Three cells instead of all: one that fits, one that cannot, one of a peer."""
    kept = {("DTS-T", "keep 0.3"), ("DRC-T", "0.25%"), ("BitDelta", "natural")}
    every = cells.cells_of(["curve"])
    monkeypatch.setattr(curves, "cells_of", lambda groups: [c for c in every if (c.name, c.size) in kept])


def test_a_cell_holds_sizes_kl_and_answers_or_why_its_size_is_impossible(suite, few, tmp_path):
    found = {(c["name"], c["size"]): c for c in curves.measure(suite, curves.cells_of(["curve"]), tmp_path).values()}
    dts, drc = found["DTS-T", "keep 0.3"], found["DRC-T", "0.25%"]
    assert set(dts["storage"]) == set(dts["kl"]) == set(suite.tasks)
    assert all(len(text) == 12 and set(text) <= set("01") for text in dts["right"].values())
    assert "least possible" in drc["impossible"] and "kl" not in drc
    assert found["experts", "whole"]["kl"] == pytest.approx(dict.fromkeys(suite.tasks, 0), abs=1e-6)


def test_a_measured_cell_is_read_and_one_of_other_checkpoints_is_measured_again(suite, few, tmp_path):
    first = curves.measure(suite, curves.cells_of(["curve"]), tmp_path)
    path = next(path for path in tmp_path.iterdir() if "bitdelta" in path.name)
    held = json.loads(read_bytes(path))
    path.write_text(json.dumps(held | {"kl": {"marked": 1.0}}))
    assert curves.measure(suite, curves.cells_of(["curve"]), tmp_path)[path.name]["kl"] == {"marked": 1.0}
    path.write_text(json.dumps(held | {"kl": {"marked": 1.0}, "made from": []}))
    assert curves.measure(suite, curves.cells_of(["curve"]), tmp_path)[path.name] == first[path.name]


def test_rows_are_shares_of_the_experts_with_an_interval_over_images_and_over_seeds():
    seeds = {
        seed: {
            "experts": cell("experts", "whole", 0.0, {"a": "1111", "b": "1110"}),
            "other": cell("other", "1%", kl, {"a": "1110", "b": "1110"}),
        }
        for seed, kl in ((0, 0.1), (1, 0.3))
    }
    one = next(r for r in curves.gather({0: seeds[0]}) if r["name"] == "other")
    assert one["share of experts"]["value"] == pytest.approx(0.75 / 0.875, abs=1e-5)
    assert "low" not in one["kl from experts"] and one["images"]["low"] <= 0.75 / 0.875 <= one["images"]["high"]
    two = next(r for r in curves.gather(seeds) if r["name"] == "other")
    assert two["kl from experts"]["value"] == pytest.approx(0.2)
    assert two["kl from experts"]["low"] < 0.1 < 0.3 < two["kl from experts"]["high"]


def test_bytes_between_two_points_lie_on_a_straight_line_of_logarithms():
    rows = [row("DRC-T", "a", 0.01, 0.04), row("DRC-T", "b", 0.04, 0.01)]
    assert curves.bytes_for(0.02, rows) == pytest.approx(0.02)
    assert curves.bytes_for(0.04, rows) == pytest.approx(0.01)


def test_bytes_for_the_divergence_of_dts_are_asked_of_drc_over_the_same_base():
    rows = [row("DTS-T", "keep 0.1", 0.02, 0.02), row("DTS-D, average", "keep 0.1", 0.02, 0.012)]
    for name, half in (("DRC-T", 0.01), ("DRC-D, average", 0.012)):
        rows += [row(name, "small", half / 2, 0.024), row(name, "large", 2 * half, 0.012)]
    found = {g["goal"].split(" needs ")[0]: g["value"] for g in curves.goals(rows) if g["goal"].startswith("bytes")}
    assert list(found) == ["bytes that DRC-T", "bytes that DRC-D, average"]
    assert found["bytes that DRC-D, average"] == pytest.approx(0.024 / 0.02, abs=1e-3) != found["bytes that DRC-T"]


def test_a_list_of_points_says_what_its_brackets_are_and_shows_the_gain_kept_where_it_was_measured():
    plain = {"rows": [row("a", "1%", 0.01, 0.1)], "seeds": [0]}
    assert "| share of experts |" in curves.listing(plain) and "over test images" in curves.listing(plain)
    kept = {"value": 0.8, "low": 0.7, "high": 0.9}
    gains = {"rows": [row("a", "1%", 0.01, 0.1) | {"gain kept": kept}], "seeds": [0, 1]}
    lines = curves.listing(gains).splitlines()
    assert lines[2] == "| a | 1% | 1.00 % | 80.0 [70.0, 90.0] | 0.1000 |" and "over the seeds" in lines[-1]


@pytest.mark.parametrize(("peers_kl", "reached"), [(0.021, True), (0.019, False)])
def test_goals_are_read_off_the_rows_and_a_missed_one_says_so(peers_kl, reached):
    rows = [
        row("DTS-T", f"keep {k}", s, kl) for k, s, kl in ((0.1, 0.021, 0.02), (0.2, 0.04, 0.015), (0.3, 0.06, 0.01))
    ]
    rows += [row("DRC-T", size, s, kl, 0.996) for size, s, kl in (("0.7%", 0.007, 0.025), ("1%", 0.01, 0.02))]
    rows += [row("DRC-D, average", size, s, kl, 0.98) for size, s, kl in (("0.7%", 0.007, 0.03), ("1%", 0.01, 0.025))]
    found = curves.goals([*rows, row("TSV-C", "1%", 0.01, peers_kl, 0.9)])
    paper = next(goal for goal in found if "keep ratio 0.1" in goal["goal"])
    assert paper["value"] == pytest.approx(0.01 / 0.021, abs=1e-3) and paper["reached"]
    beside = next(goal for goal in found if goal["goal"].startswith("KL divergence of DRC-T at 1%, beside TSV-C"))
    assert beside["reached"] is reached and beside["bound"] == peers_kl
    ahead = next(goal for goal in found if goal["goal"].startswith("KL divergence of the nearest peer at 1%, TSV-C"))
    assert ahead["value"] == pytest.approx(peers_kl / 0.02) and ahead["reached"] is (peers_kl >= 1.5 * 0.02)
    assert all(goal["reached"] for goal in found if goal["goal"].startswith("share of the experts' accuracy kept"))


def test_a_peer_over_the_average_is_set_beside_drc_over_the_average():
    rows = [row("DRC-T", "1%", 0.01, 0.02), row("DRC-D, average", "1%", 0.01, 0.01)]
    rows += [row("DeltaMix", "1%", 0.01, 0.03), row("DeltaMix, average", "1%", 0.01, 0.012)]
    found = {goal["goal"]: goal["value"] for goal in curves.goals(rows) if "nearest peer" in goal["goal"]}
    assert found == {
        "KL divergence of the nearest peer at 1%, DeltaMix, over that of DRC-T": pytest.approx(1.5),
        "KL divergence of the nearest peer at 1%, DeltaMix, average, over that of DRC-D, average": pytest.approx(1.2),
    }


def test_a_missed_goal_is_told_as_plainly_as_a_reached_one():
    goal = lambda text, value, bound, reached: {"goal": text, "value": value, "bound": bound, "reached": reached}
    beside = ("KL divergence of DRC-T at 1%, beside A", "share of the experts' accuracy of DRC-T at 1%, beside A")
    found = [
        goal("bytes that DRC-T needs", 0.52, 0.5, False),
        goal("KL divergence of the nearest peer at 1%, A, over that of DRC-T", 1.6, 1.5, True),
        goal(beside[0], 0.01, 0.02, True),
        goal(beside[1], 0.99, 0.995, False),
    ]
    text = curves.aims({"goals": found})
    assert "| bytes that DRC-T needs | at most 50.0 % | 52.0 % | **missed** |" in text
    assert "A, over that of DRC-T | at least 1.50 times | 1.60 times | reached |" in text
    assert "By KL divergence, DRC-T is at or ahead of the peer in 1 of 1 comparisons." in text
    assert f"in 0 of 1 comparisons; **missed**: {beside[1]}: 99.00 % against 99.50 %." in text


def test_the_table_has_every_method_at_the_size_from_the_nearest_to_the_farthest():
    rows = [
        row("b", "1%", 0.01, 0.2),
        row("a", "1%", 0.01, 0.1),
        row("c", "natural", 0.03, 0.15),
        row("d", "2%", 0.02, 0),
    ]
    rows.append({"group": "curve", "name": "e", "size": "1%", "impossible": "too small"})
    *lines, _, said = curves.markdown({"rows": rows, "seeds": [0]}).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| a", "| c", "| b"]
    assert lines[0] == "| a | 1.00 % | 99.0 [98.0, 100.0] | 0.1000 |"
    assert said.startswith("One seed") and "3 seeds" in curves.markdown({"rows": rows, "seeds": [0, 1, 2]})


def test_a_zoo_that_is_not_there_is_named_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(curves, "measure", lambda *arguments: pytest.fail("measured before all zoos were there"))
    monkeypatch.setattr("sys.argv", ["curves", "--seeds", "9", "--zoo", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        curves.main()
    assert stop.value.code == 2
    assert f"{tmp_path / '9'}: there is no such folder; train the checkpoints with make zoo" in capsys.readouterr().err
