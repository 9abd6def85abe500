"""What is published is what was measured: the README's tables, the notebooks, and the bars of the mini suite."""

import json

import nbformat
import pytest

from dts_mini.course.build import VERSIONS, drifted, sources, target
from dts_mini.results import README, RESULTS, SEEDS, blocks, fill

NOTEBOOKS = pytest.mark.parametrize(
    ("source", "version"),
    [(source, version) for source in sources() for version in VERSIONS],
    ids=lambda part: getattr(part, "stem", part),
)


def test_the_readmes_tables_are_the_committed_results():
    assert fill(README.read_text(), blocks()) == README.read_text()


def test_the_readme_has_every_table():
    assert all(f"<!-- results:{name} -->" in README.read_text() for name in blocks())


@NOTEBOOKS
def test_notebook_is_built_from_its_source(source, version):
    assert not drifted(source, version), "run make notebooks"


@NOTEBOOKS
def test_notebook_was_executed_in_order_and_without_error(source, version):
    cells = [c for c in nbformat.read(target(source, version), as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert not [out for cell in cells for out in cell.outputs if out.get("name") == "stderr"]


@NOTEBOOKS
def test_every_figure_has_alt_text(source, version):
    for cell in nbformat.read(target(source, version), as_version=4).cells:
        for out in cell.get("outputs", []):
            if "image/png" in out.get("data", {}):
                assert len(out.metadata.get("image/png", {}).get("alt", "")) > 20


def rows(table):
    return {row["name"]: row for row in table["rows"]}


def test_the_suite_behaves_as_its_documentation_says():
    """The bars that hold on every seed; the order of the merges is not one of them."""
    table = rows(json.loads(RESULTS.read_text())["headline"])
    mean = {name: row["mean"]["value"] for name, row in table.items()}
    merges = [mean[name] for name in ("average", "Task Arithmetic", "TIES", "DARE")]
    assert 0.40 <= mean["zero-shot"] <= 0.65
    assert mean["average"] > mean["zero-shot"]
    assert mean["experts"] >= max(merges) + 0.08  # 0.12 was aimed at and missed, as the README says
    assert mean["experts"] >= 0.92 and min(e["value"] for e in table["experts"]["accuracy"].values()) >= 0.85
    for task, expert in table["experts"]["accuracy"].items():
        assert expert["value"] >= table["zero-shot"]["accuracy"][task]["value"] + 0.08, task
    for name, row in table.items():
        if name.startswith("DTS") and not name.endswith("0.05"):
            assert row["share of experts"]["value"] >= (0.992 if name.endswith("0.3") else 0.985), name


def test_three_seeds_were_measured():
    assert len(json.loads(SEEDS.read_text())["seeds"]) >= 3
