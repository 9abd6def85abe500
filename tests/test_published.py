"""What is published is what was measured: tables, claims, timings, the notebooks, and the bars of the mini suite."""

import ast
import json
import re
from math import inf

import nbformat
import pytest
from bs4 import BeautifulSoup

from dts_mini import DTSError
from dts_mini.course import claims, front, github, launch, timings
from dts_mini.course.build import VERSIONS, drifted, read, sources, target
from dts_mini.course.exercises import EXERCISES
from dts_mini.measures.cheap import ROWS
from dts_mini.measures.tables import KINDS, MERGES, rows_of
from dts_mini.results import PAGES, README, RESULTS, SAID, SEEDS, TOLD, blocks, fill

SOURCES = pytest.mark.parametrize("source", sources(), ids=lambda source: source.stem)
NOTEBOOKS = pytest.mark.parametrize(
    ("source", "version"),
    [(source, version) for source in sources() for version in VERSIONS],
    ids=lambda part: getattr(part, "stem", part),
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_the_committed_results(page):
    assert fill(page.read_text(), blocks()) == page.read_text(), "run python -m dts_mini.results --readme-only"


@pytest.mark.parametrize("page", github.PAGES, ids=lambda page: page.stem)
def test_the_places_of_a_page_are_filled_for_github_with_what_the_notebooks_say_now(page, table):
    now = github.filled(page.read_text(), github.lessons(), table, launch.repository())
    assert now == page.read_text(), "run python -m dts_mini.results --readme-only"


SHOWN = [README, *github.PAGES, README.parent / "notebooks/glossary.md"]


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_a_page_on_github_shows_no_bare_place_and_leads_to_what_is_there(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"^\[[a-z][^\]]*\]$", text, re.MULTILINE), "GitHub shows it as it stands"
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link


def test_every_table_stands_on_one_page():
    marked = [re.findall(r"<!-- results:(\w+) -->", page.read_text()) for page in PAGES]
    assert marked[0] == ["picture", "front", "said"] and marked[2] == ["honest"]
    assert all(name.startswith("text") for name in marked[3])
    assert sorted(name for page in marked for name in page) == sorted(blocks())


# --- the front page ---


@pytest.fixture
def table():
    return json.loads(RESULTS.read_text())["headline"]


def test_the_front_page_is_short_and_shows_the_result_before_the_method():
    text = README.read_text()
    assert len(text.splitlines()) <= 120
    assert text.index("results:picture") < text.index("**DTS**") and text.index("results:picture") < text.index("SVD")


def test_the_front_page_says_where_to_go_in_six_rows():
    rows = README.read_text().partition("## Where to go")[2].partition("## ")[0]
    assert len(re.findall(r"^\| ", rows, re.MULTILINE)) == 1 + 6


def test_the_front_page_has_two_commands_that_the_makefile_knows():
    text = README.read_text()
    shell = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert [re.findall(r"^make (\w+)", block, re.MULTILINE) for block in shell] == [["tutorial", "test"]]


def test_every_link_of_the_front_page_leads_to_a_file():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text()):
        assert (README.parent / link).is_file(), link


def test_the_picture_is_that_of_the_committed_results(table):
    assert front.PATH.read_text() == front.picture(table), "run python -m dts_mini.results --readme-only"


def test_the_picture_draws_each_number_to_scale_and_says_it(table):
    drawn = BeautifulSoup(front.picture(table), "html.parser")
    bars = [float(bar["width"]) for bar in drawn.select("rect[y]")]
    said = [text.get_text() for text in drawn.select("text")]
    rows = front.rows(table)
    for number, row in enumerate(rows):
        accuracy, models = bars[2 * number : 2 * number + 2]
        assert accuracy / bars[0] == pytest.approx(
            row.entry["mean"]["value"] / rows[0].entry["mean"]["value"], rel=1e-3
        )
        assert models / bars[1] == pytest.approx(row.models, rel=0.01)
        assert f"{100 * row.entry['mean']['value']:.1f}" in said and f"{row.what} · {row.how}" in said
    assert drawn.title.get_text() == front.alt(table)
    box = [float(end) for end in drawn.svg["viewbox"].split()]
    assert all(float(bar["x"]) + float(bar["width"]) < box[2] - 30 for bar in drawn.select("rect[y]")), (
        "room for numbers"
    )


def test_the_front_pages_table_has_six_rows_of_the_headline_and_says_what_is_stored(table):
    lines = front.table(table).splitlines()
    assert len(lines) == 2 + 6 and "KL from the expert (nats)" in lines[0]
    named = {row["name"]: row for row in table["rows"]}
    merges = [row["mean"]["value"] for row in named.values() if row["kind"] == "merge"]
    found, tasks = front.rows(table), len(table["columns"])
    assert found[2].entry["mean"]["value"] == max(merges) and f"the best of {len(merges)}" in found[2].how
    stored = [1 + tasks * named[name]["storage"] for name in front.NAMED[:-1]]
    assert [row.models for row in found] == pytest.approx([*stored[:2], 1, *stored[2:], tasks])


def test_the_front_page_shows_what_costs_nothing_and_comes_far(table):
    free = [row for row in table["rows"] if row["kind"] == "cheap" and row["storage"] == 0]
    assert {row["name"] for row in free} <= {row.entry["name"] for row in front.rows(table)}


def test_a_headline_table_without_a_row_of_the_front_page_is_refused(table):
    with pytest.raises(DTSError, match=r"lacks DTS-D, average, 0\.1"):
        front.rows(table | {"rows": [row for row in table["rows"] if row["name"] != "DTS-D, average, 0.1"]})


def test_the_front_page_tells_the_claim_on_new_aerial_images_and_not_the_one_that_did_not_repeat():
    assert "08-new-zero-shot" in SAID and not {"08-aerial-zero-shot", "08-aerial-average"} & {*SAID, *TOLD}


def test_the_headline_has_every_merge_and_all_that_is_cheap_and_says_what_each_row_uses():
    rows = json.loads(RESULTS.read_bytes())["headline"]["rows"]
    of = lambda kind: [row["name"] for row in rows if row["kind"] == kind]
    assert of("merge") == list(MERGES) and of("cheap") == list(ROWS) and of("experts") == ["experts"]
    assert {row["kind"] for row in rows} == set(KINDS) and all(row["uses"] for row in rows)


def test_blocks_are_replaced_and_the_rest_is_left():
    text = "a\n<!-- results:x -->\nold\n<!-- end -->\nb"
    once = fill(text, {"x": "new\n"})
    assert once == "a\n<!-- results:x -->\n\nnew\n\n<!-- end -->\nb"
    assert fill(once, {"x": "new\n"}) == once


def test_a_block_that_is_not_measured_is_named():
    with pytest.raises(DTSError, match="'y' that is not measured"):
        fill("<!-- results:y --><!-- end -->", {"x": ""})


@NOTEBOOKS
def test_notebook_is_built_from_its_source(source, version):
    assert not drifted(source, version), "run make notebooks"


@NOTEBOOKS
def test_notebook_was_executed_in_order_and_without_error(source, version):
    cells = [c for c in nbformat.read(target(source, version), as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert not [out for cell in cells for out in cell.outputs if out.get("name") == "stderr"]


@SOURCES
def test_a_stored_verdict_counts_the_checks_that_there_are(source):
    for cell in nbformat.read(target(source, "solved"), as_version=4).cells:
        if cell.cell_type == "code" and (checked := re.search(r"^(\w+) = check\(\1\)", cell.source, re.MULTILINE)):
            said = "".join(out.get("text", "") for out in cell.outputs)
            assert f"passed, {len(EXERCISES[checked[1]].checks)} checks" in said, f"{checked[1]}: run make notebooks"


@NOTEBOOKS
def test_every_figure_has_alt_text(source, version):
    for cell in nbformat.read(target(source, version), as_version=4).cells:
        for out in cell.get("outputs", []):
            if "image/png" in out.get("data", {}):
                assert len(out.metadata.get("image/png", {}).get("alt", "")) > 20


# --- claims ---


def code_of(source) -> list[str]:
    return [cell.source for cell in read(source).cells if cell.cell_type == "code"]


@SOURCES
def test_the_recorded_claims_are_those_that_the_notebook_makes(source):
    names = [claim["name"] for claim in claims.recorded() if claim["notebook"] == source.stem]
    calls = [call.name for code in code_of(source) for call in claims.calls(code)]
    for name in names:
        assert [call for call in calls if re.fullmatch(call, name)], f"{name} is made no more: run make notebooks"
    for call in calls:
        assert [name for name in names if re.fullmatch(call, name)], f"{call} was not recorded: run make notebooks"


@SOURCES
def test_the_solved_notebook_prints_what_was_recorded(source):
    wanted = {claim["sentence"]: claims.reads(claim) for claim in claims.recorded() if claim["notebook"] == source.stem}
    cells = [cell for cell in nbformat.read(target(source, "solved"), as_version=4).cells if cell.cell_type == "code"]
    lines = [line for cell in cells for out in cell.outputs for line in out.get("text", "").splitlines()]
    printed = [found for line in lines if (found := claims.PRINTED.fullmatch(line))]
    assert {found["sentence"]: found["measured"] for found in printed} == wanted, "run make notebooks"


@SOURCES
def test_a_claim_that_speaks_of_the_learners_function_says_which(source):
    for code in code_of(source):
        for node in (
            n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "claim"
        ):
            (sentence,) = [call.sentence for call in claims.calls(code) if re.fullmatch(call.name, name_of(node))][:1]
            told = {keyword.arg for keyword in node.keywords}
            assert "of" in told or not re.search(r"\b[Yy]our \w*(function|result|answer)\b", sentence), sentence


def name_of(call: ast.Call) -> str:
    first = call.args[0] if call.args else next(k.value for k in call.keywords if k.arg == "name")
    parts = [first] if isinstance(first, ast.Constant) else first.values
    return "".join(part.value if isinstance(part, ast.Constant) else "x" for part in parts)  # x: what is filled in


@SOURCES
def test_a_claim_is_named_after_its_notebook(source):
    for call in (call for code in code_of(source) for call in claims.calls(code)):
        assert re.match(source.stem[:2] + r"\\?-[a-z.]", call.name), call.name


def test_claims_are_recorded_in_order_once_and_of_notebooks_that_exist():
    found = claims.recorded()
    assert len({claim["name"] for claim in found}) == len(found)
    order = [source.stem for source in sources()]
    assert [order.index(claim["notebook"]) for claim in found] == sorted(order.index(c["notebook"]) for c in found)


def test_every_recorded_claim_is_a_sentence_with_bounds_that_hold():
    for claim in claims.recorded():
        assert re.fullmatch(r"[\W\d]*([A-Z]|\w+_).*\.", claim["sentence"], re.DOTALL), claim["sentence"]
        assert {"low", "high"} & set(claim), claim["name"]
        for end in (claim["value"], *claim.get("interval", ())):
            assert claim.get("low", -inf) <= end <= claim.get("high", inf), claim["name"]
        if interval := claim.get("interval"):
            assert interval[0] <= claim["value"] <= interval[1], claim["name"]
        assert claim["unit"] not in ("%", "points") or abs(claim["value"]) < 5, claim["name"]


def test_the_pages_tell_claims_that_were_recorded():
    assert 8 <= len(TOLD) == len(set(TOLD)) <= 14
    assert {*SAID, *TOLD} <= {claim["name"] for claim in claims.recorded()}


# --- timings ---


@pytest.fixture
def measured():
    return json.loads(timings.PATH.read_bytes())


def test_every_notebook_is_timed_and_all_stay_within_the_courses_limits(measured):
    seconds = measured["seconds"]
    assert list(seconds) == list(measured["slow cells"]) == [source.stem for source in sources()], "run make timings"
    assert max(seconds.values()) <= 90
    assert sum(seconds.values()) <= 8 * 60
    assert max(value for cells in measured["slow cells"].values() for value in cells.values()) <= 20


@SOURCES
def test_the_text_before_a_slow_cell_says_that_it_takes_seconds(source, measured):
    cells = read(source).cells
    at = {cell.id: number for number, cell in enumerate(cells)}
    for name, seconds in measured["slow cells"].get(source.stem, {}).items():
        if seconds > timings.SLOW:
            assert name in at, f"the notebook has no cell {name}: run make timings"
            before = [cell.source for cell in cells[: at[name]] if cell.cell_type == "markdown"][-1]
            assert re.search(r"\b(seconds|minute)", before + cells[at[name]].source), f"{name} takes {seconds} s"


# --- the mini suite ---


def rows(table):
    return {row["name"]: row for row in table["rows"]}


def test_the_suite_behaves_as_its_documentation_says():
    """The bars that hold on every seed; the order of the merges is not one of them."""
    headline = json.loads(RESULTS.read_text())["headline"]
    table = rows(headline)
    mean = {name: row["mean"]["value"] for name, row in table.items()}
    merges = [row["mean"]["value"] for row in rows_of(headline, "base merge")]
    assert 0.40 <= mean["zero-shot"] <= 0.65
    assert mean["average"] > mean["zero-shot"]
    assert mean["experts"] >= max(merges) + 0.04  # 0.12 was aimed at and missed, as docs/mini-suite.md says
    assert mean["experts"] >= 0.92 and min(e["value"] for e in table["experts"]["accuracy"].values()) >= 0.85
    for task, expert in table["experts"]["accuracy"].items():
        assert expert["value"] >= table["zero-shot"]["accuracy"][task]["value"] + 0.08, task
    for name, row in table.items():
        if name.startswith("DTS") and not name.endswith("0.05"):
            assert row["share of experts"]["value"] >= (0.992 if name.endswith("0.3") else 0.985), name


def test_every_merge_is_worse_at_every_task_than_its_expert():
    """What notebook 00 says of merged models."""
    table = rows(json.loads(RESULTS.read_text())["headline"])
    for name in MERGES:
        for task, expert in table["experts"]["accuracy"].items():
            assert table[name]["accuracy"][task]["value"] < expert["value"], (name, task)


def test_notebook_01_measures_the_best_merge_of_the_table():
    """Its claim about "the best merge of the course's table" covers them all."""
    table = rows(json.loads(RESULTS.read_text())["headline"])
    best = max(MERGES, key=lambda name: table[name]["mean"]["value"])
    assert any(f'merges["{best}"] =' in code for code in code_of(sources()[1]))


def test_three_seeds_were_measured():
    assert len(json.loads(SEEDS.read_text())["seeds"]) >= 3
