"""Tables written for people, and over seeds; on numbers made up so that the answer is known."""

import json
import math

import pytest

from dts_mini import DTSError
from dts_mini.measures import honest
from dts_mini.measures.tables import FAMILIES, MERGES, family, markdown, over_seeds, rows_of, seeds_markdown
from dts_mini.suites.mini.suite import DATA


def entry(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def table(mean):
    row = {"name": "DTS-T, 0.1", "accuracy": {"x": entry(mean), "y": entry(mean)}, "mean": entry(mean)}
    row |= {"share of experts": entry(mean), "storage": 0.0123}
    return {"title": "t", "split": "test", "columns": ["x", "y"], "rows": [row]}


def test_a_table_prints_percent_with_intervals():
    lines = markdown(table(0.5)).splitlines()
    assert lines[0] == "|  | x | y | mean | share of experts | storage |"
    assert lines[2] == "| DTS-T, 0.1 | 50.0 | 50.0 | 50.0 [49.0, 51.0] | 50.0 [49.0, 51.0] | 1.23 % |"


def test_seeds_give_students_interval():
    row = over_seeds({0: table(0.5), 1: table(0.6), 2: table(0.7)})["rows"][0]["mean"]
    half = 4.303 * 0.1 / math.sqrt(3)
    assert (row["value"], row["low"], row["high"]) == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=1e-3)
    assert row["each"] == [0.5, 0.6, 0.7]


def test_each_seed_has_a_column():
    text = seeds_markdown(over_seeds({0: table(0.5), 4: table(0.6)}))
    assert "| seed 0 | seed 4 |" in text and "| 50.0 | 60.0 | 55.0 [" in text


def test_one_seed_has_no_interval():
    with pytest.raises(DTSError, match="at least two"):
        over_seeds({0: table(0.5)})


def test_two_suites_stand_beside_each_other_row_by_row():
    first, second = table(0.5), table(0.6)
    for each in (first, second):
        each["rows"][0] |= {"uses": "its expert", "kl from experts": 0.0123}
    assert honest.markdown(first, second).splitlines()[2] == (
        "| DTS-T, 0.1 | its expert | 50.0 [49.0, 51.0] | 60.0 [59.0, 61.0] | 50.0 [49.0, 51.0] | 60.0 [59.0, 61.0] |"
        " 0.0123 | 0.0123 |"
    )


def test_a_zoo_that_was_not_trained_is_asked_for_before_anything_is_measured(tmp_path, capsys):
    with pytest.raises(SystemExit):
        honest.main(["--zoo", str(tmp_path / "none")])
    assert "make zoo HONEST=1" in capsys.readouterr().err


# --- which rows a claim is about ---


@pytest.mark.parametrize("name", ["results", "seeds"])
def test_every_row_of_the_committed_tables_is_of_a_family_and_every_merge_stands_in_them(name):
    found = json.loads((DATA / f"{name}.json").read_text())
    for each in found.values() if name == "results" else [found]:
        assert {family(row) for row in each["rows"]} <= set(FAMILIES)
        assert {row["name"] for row in rows_of(each, "base merge")} == set(MERGES)


def test_a_row_of_no_family_is_an_error_not_left_out_of_claims():
    with pytest.raises(DTSError, match="'linear head' is of no family"):
        rows_of({"rows": [{"name": "TIES"}, {"name": "linear head"}]}, "base merge")


def test_no_row_of_a_family_is_an_error_not_an_empty_claim():
    with pytest.raises(DTSError, match="no row of DTS-T or DTS-D"):
        rows_of({"rows": [{"name": "TIES"}, {"name": "DTS-T, 0.05"}]}, "DTS-T", "DTS-D", keep_ratio=0.1)
    with pytest.raises(DTSError, match="no family 'merge'"):
        rows_of({"rows": [{"name": "TIES"}]}, "merge")


def test_what_a_row_says_of_itself_comes_before_its_name():
    assert [family({"name": name, "kind": kind}) for name, kind in (("linear head", "cheap"), ("Fisher", "merge"))] == [
        "cheap",
        "base merge",
    ]
