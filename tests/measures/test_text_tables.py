"""The text suite's tables, from experts made in a moment: what the command writes, and that it goes on where it was."""

import json

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from smalltext import SmallLexicons, SmallPretrained

from dts_mini import DTSError
from dts_mini.measures import curves, text
from dts_mini.measures.cases import report
from dts_mini.measures.tables import MERGES, gain_kept, markdown, rows_of, seeds_markdown
from dts_mini.results import tasks_markdown
from dts_mini.suites.streams import stream
from dts_mini.suites.text import zoo
from dts_mini.suites.text.tasks import CANDIDATES
from dts_mini.suites.text.zoo import Recipe, Zoo, embedded

SEEDS = (0, 1)


def moved(encoder, head, ids, labels, recipe, words):
    """In place of fine-tuning: a body that moved at random, and a linear head that was fitted on it."""
    g = stream(*words)
    state = {name: x + 0.5 * x.std() * torch.randn(x.shape, generator=g) for name, x in encoder.state_dict().items()}
    encoder.load_state_dict({name: torch.nan_to_num(x) for name, x in state.items()})
    fitted = LogisticRegression(C=100, fit_intercept=False, max_iter=500).fit(embedded(encoder, ids), labels)
    return torch.from_numpy(fitted.coef_).float()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A zoo of two seeds, the folder of its tables, and the tables."""
    folder = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "fine_tune", moved)
        patch.setattr(zoo, "ENOUGH", -1.0)
        few = [cell for cell in text.cells() if cell.name in ("theta_0", "DTS-T") and cell.size in ("none", "3.7%")]
        patch.setattr(text, "cells", lambda: few)
        recipe = Recipe(most=120, validation=40, test=60)
        small = Zoo(folder / "work", recipe, CANDIDATES[-3:], SmallPretrained(), SmallLexicons())
        for seed in SEEDS:
            zoo.train(small, seed)
        yield small, folder / "data", text.measure(small, SEEDS, folder / "data")


def test_every_table_is_written_and_says_what_it_is_made_of(made):
    _, folder, found = made
    assert {path.stem for path in folder.iterdir()} == {"zoo", "results", "seeds", "curves", "unseen"} == set(found)
    for name, table in found.items():
        assert json.loads((folder / f"{name}.json").read_text()) == json.loads(json.dumps(table))
    about = found["zoo"]
    assert [row["task"] for row in about["rows"] if row["kept"]] == list(found["results"]["headline"]["columns"])
    assert all(package["licence"] and package["sha256"] for package in about["packages"])


def test_the_headline_has_every_merge_a_linear_head_and_the_gain_kept(made):
    headline = made[2]["results"]["headline"]
    rows = {row["name"]: row for row in headline["rows"]}
    assert {row["name"] for row in rows_of(headline, "base merge")} == set(MERGES)
    assert rows["zero-shot"]["gain kept"]["value"] == 0 and rows["experts"]["gain kept"]["value"] == 1
    start, end = (rows[name]["mean"]["value"] for name in ("zero-shot", "experts"))
    for row in headline["rows"]:
        assert row["gain kept"]["value"] == pytest.approx((row["mean"]["value"] - start) / (end - start), abs=1e-3)
    assert rows[text.FROZEN]["kind"] == "cheap" and 0 < rows[text.FROZEN]["storage"] < 0.1


def test_tables_over_seeds_and_of_the_curve_hold_the_gain_kept_and_the_divergence(made):
    *_, found = made
    for row in found["seeds"]["rows"]:
        assert len(row["gain kept"]["each"]) == 2 and len(row["kl from experts"]["each"]) == 2
    assert "| gain kept | KL from the expert (nats) |" in seeds_markdown(found["seeds"])
    rows = {row["name"]: row for row in found["curves"]["rows"]}
    assert rows["theta_0"]["gain kept"]["value"] == 0 and rows["experts"]["gain kept"]["value"] == 1
    assert "gain kept" in rows["DTS-T"]
    assert curves.listing(found["curves"]).splitlines()[2] == ("| experts | whole | 100.00 % | 100.0 | 0.0000 |")


def test_tables_read_as_markdown(made):
    *_, found = made
    lines = tasks_markdown(found["zoo"]).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:5]] == [row["task"] for row in found["zoo"]["rows"]]
    assert "Means over 2 seeds" in lines[-1] and "[" in lines[2]
    head, _, first, *_ = markdown(found["results"]["headline"]).splitlines()
    assert head.endswith("| mean | gain kept | storage | KL from the expert (nats) |") and head.count(
        "|"
    ) == first.count("|")
    report(found["unseen"])


def test_every_task_is_held_out_alone_with_its_experts_head(made):
    unseen = made[2]["unseen"]
    assert unseen["suite"] == "text" and unseen["cases"] == 2 * 3
    rows = {row["name"]: row for row in unseen["rows"]}
    oracle = {row["name"]: row for row in made[2]["results"]["headline"]["rows"]}["experts"]["accuracy"]
    for task, entry in rows["oracle"]["accuracy"].items():
        assert entry["each"][0] == pytest.approx(oracle[task]["value"], abs=1e-5)


def test_what_was_measured_is_not_measured_again(made, monkeypatch):
    small, folder, found = made
    ask = lambda *arguments, **settings: pytest.fail("a model was asked again")
    monkeypatch.setattr(text.TextSuite, "answers", ask)
    monkeypatch.setattr(text, "headline", ask)
    again = text.measure(small, SEEDS, folder, ("zoo", "headline", "unseen"))
    for name, table in again.items():
        for key in ("rows", "headline"):
            assert table.get(key) == found[name].get(key)


def test_experts_that_gain_nothing_have_no_share_to_keep():
    same = {name: {"a": torch.tensor([True, False])} for name in ("zero-shot", "experts")}
    draws = {name: torch.full((10, 1), 0.5) for name in same}
    with pytest.raises(DTSError, match="do not gain on zero-shot"):
        gain_kept("experts", same, draws)


def test_the_command_says_which_expert_is_missing_before_any_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(text, "train", lambda *arguments: None)
    assert text.main(["--work", str(tmp_path), "--out", str(tmp_path / "data"), "--seeds", "0"]) == 1
    assert "train the text suite with make text" in capsys.readouterr().err and not (tmp_path / "data").exists()
