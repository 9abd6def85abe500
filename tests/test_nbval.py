"""nbval passes some things in silence: that it would, and that the course and its make target leave no room for it."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns, metadata_tags

from dts_mini.course.build import VERSIONS, sources, target

ROOT = Path(__file__).resolve().parents[1]
RULES = (ROOT / "tests/nbval_sanitize.cfg").read_text()
BUILT = [pytest.param((s, version), id=f"{s.stem}-{version}") for s in sources() for version in VERSIONS]


@pytest.fixture(params=BUILT)
def notebook(request):
    """Each built notebook."""
    return nbformat.read(target(*request.param), as_version=4)


def options(*settings: str) -> list[str]:
    """What ``make notebooks-test`` passes to pytest."""
    plain = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    command = ["make", "-n", "notebooks-test", "NOTEBOOKS=HERE", *settings]
    shown = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True).stdout
    return shlex.split(re.search(r"-m pytest ((?:.*\\\n)*.*) HERE", shown)[1].replace("\\\n", " "))


def outcomes(notebook: Path, *pytest_options: str) -> tuple[list[str], int]:
    """Of each cell whether it passed or failed or ended as skipped (xfail too) under nbval, and the exit status."""
    report = notebook.with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *pytest_options]
    ended = subprocess.run([*command, str(notebook)], cwd=ROOT, capture_output=True, text=True)
    cases = ElementTree.parse(report).iter("testcase")
    return [next((child.tag for child in case), "passed") for case in cases], ended.returncode


def cell(source: str, stored: str | None = None, *tags: str, count: int | None = 1):
    outputs = [new_output("stream", name="stdout", text=stored)] if stored else []
    return new_code_cell(source, outputs=outputs, execution_count=count, metadata={"tags": list(tags)} if tags else {})


CELLS = {
    "as stored": cell("print(1)", "1\n"),
    "altered": cell("print(1)", "2\n"),
    "never run": cell("print(1)", count=None),
    "nothing stored": cell("print(1)"),
    "raises no more": cell("x = 1", None, "raises-exception"),
    "trailing comment": cell("print(1)  # NBVAL_IGNORE_OUTPUT", "2\n"),
    "tag": cell("print(1)", "2\n", "nbval-ignore-output"),
    "answer": cell("print(1)", None, "answer", "nbval-ignore-output"),
    "wrong answer": cell("1 / 0", None, "answer", "nbval-ignore-output"),
    "sanitised": cell("print(object())", "<object object at 0x7f00deadbeef>\n"),
    "measured elsewhere": cell(
        "print('holds: A is B. (measured 71.24 % [69.8, 72.5])')", "holds: A is B. (measured 7)\n"
    ),
    "another sentence": cell("print('holds: A is B. (measured 7)')", "holds: A is C. (measured 7)\n"),
    "measured, no claim": cell("print('A is (measured 7)')", "A is (measured 8)\n"),
    "a claim that fails": cell("assert 7 < 6, 'claim a does not hold'", "holds: A is B. (measured 5)\n"),
    "error": cell("1 / 0"),
}
# The first takes too long and hides it; the second is wrong.
LATE = [cell("import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass"), cell("1 / 0")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Outcomes of the cells under the make target's options, and of two variations."""
    folder = tmp_path_factory.mktemp("nbval")
    for name, cells in (("cells", CELLS.values()), ("late", LATE)):
        nbformat.write(new_notebook(cells=list(cells)), folder / f"{name}.ipynb")
    strict, lax = options(), options("NBVAL=--nbval-lax")
    hurried = [*strict, "--nbval-cell-timeout", "3"]
    of_cells = lambda *given: dict(zip(CELLS, outcomes(folder / "cells.ipynb", *given)[0], strict=True))
    return SimpleNamespace(
        strict=of_cells(*strict),
        lax=of_cells(*lax),
        late=outcomes(folder / "late.ipynb", *hurried),
        forgiven=outcomes(folder / "late.ipynb", *(option for option in hurried if option != "--runxfail")),
    )


# --- what the make target compares ---


@pytest.mark.slow
def test_an_altered_output_fails_strictly_and_passes_where_claims_alone_judge(runs):
    assert runs.strict["as stored"] == runs.lax["as stored"] == "passed"
    assert runs.strict["altered"] == "failure" and runs.lax["altered"] == "passed"
    assert runs.strict["nothing stored"] == "failure" and runs.lax["nothing stored"] == "passed"


@pytest.mark.slow
def test_an_error_fails_either_way(runs):
    assert runs.strict["error"] == runs.lax["error"] == "failure"


@pytest.mark.slow
def test_the_sanitise_file_acts_in_the_run(runs):
    assert runs.strict["sanitised"] == "passed"


@pytest.mark.slow
def test_what_a_claim_measured_is_masked_and_nothing_else_of_it(runs):
    assert runs.strict["measured elsewhere"] == "passed"
    assert runs.strict["another sentence"] == runs.strict["measured, no claim"] == "failure"
    assert runs.strict["a claim that fails"] == runs.lax["a claim that fails"] == "failure"


def test_strict_is_the_default_and_the_environment_is_the_current_one():
    strict = options()
    assert "--nbval" in strict and "--nbval-lax" not in strict
    assert [option for option in options("NBVAL=--nbval-lax") if option in ("--nbval", "--nbval-lax")] == [
        "--nbval-lax"
    ]
    assert {"--nbval-current-env", "tests/nbval_sanitize.cfg", "--runxfail"} <= set(strict)


# --- (a) a cell that was never run is run but not compared ---


@pytest.mark.slow
def test_nbval_passes_a_cell_that_was_never_run(runs):
    assert runs.strict["never run"] == "passed"


def test_every_cell_was_run_and_those_that_show_something_have_outputs(notebook):
    for code in (cell for cell in notebook.cells if cell.cell_type == "code"):
        assert code.execution_count, code.id
        called = {ast.unparse(n.value.func) for n in ast.parse(code.source).body if is_call(n)}
        if called & {"print", "claim", "show"} and not cleared(code):
            assert code.outputs, code.id


def cleared(code) -> bool:
    """Whether a cell's output would give an exercise away, and so is not stored; nbval only runs it then."""
    return {"answer", "nbval-ignore-output"} <= set(code.metadata.get("tags", [])) and not code.outputs


def is_call(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


# --- (b) a cell that is to raise, and no longer does, passes; (e) a marker in a trailing comment has no effect ---


@pytest.mark.slow
def test_nbval_passes_a_cell_that_raises_no_more(runs):
    assert runs.strict["raises no more"] == "passed"


@pytest.mark.slow
def test_nbval_minds_a_tag_but_no_trailing_comment(runs):
    assert runs.strict["tag"] == "passed" and runs.strict["trailing comment"] == "failure"


@pytest.mark.slow
def test_a_cell_whose_answer_is_not_stored_is_run_all_the_same(runs):
    assert (runs.strict["answer"], runs.strict["wrong answer"]) == ("passed", "failure")


def test_cells_are_marked_by_tags_alone_and_none_is_expected_to_raise(notebook):
    for code in (cell for cell in notebook.cells if cell.cell_type == "code"):
        assert set(code.metadata.get("tags", [])) & set(metadata_tags) <= {"nbval-ignore-output"}, code.id
        assert not re.search(r"#.*(NBVAL|PYTEST_VALIDATE)_", code.source), code.id


# --- (c) a rule with a blank line in it is ignored ---


def test_nbval_ignores_a_rule_with_a_blank_line_in_it():
    assert len(get_sanitize_patterns("regex: a\nreplace: b\n")) == 1
    assert not get_sanitize_patterns("regex: a\n\nreplace: b\n")


def test_every_rule_is_read_and_acts_and_none_but_a_claims_cuts_digits():
    rules = get_sanitize_patterns(RULES)
    assert len(rules) == len(re.findall(r"^\s*regex\b", RULES, re.MULTILINE)) == 3
    acts = {
        "1\nholds: A (b) is 2 %. (measured 71.2 % [69.8, 72.5])\n2": "1\nholds: A (b) is 2 %. (measured 3)\n2",
        "<Axes at 0x7f3a2c10>": "<Axes at 0x10ab44d90>",
        "<Figure size 640x480 with 2 Axes>": "<Figure size 9x3 with 1 Axes>",
    }

    def sanitise(output: str, rules: list = rules) -> str:
        for pattern, replacement in rules:
            output = re.sub(pattern, replacement, output)
        return output

    for one, other in acts.items():
        assert sanitise(one) == sanitise(other)
    for rule in rules:
        assert any(sanitise(one, [rule]) != one for one in acts), rule
    kept = ["0.1062 bits", "shape (8, 8)", "640x480 pixels", "1e-06", "(measured 5)", "it holds: 5 (measured 5)"]
    for text in [*kept, "holds: At least 2 %.", "does not hold on this suite: It is 2. (measured 3)"]:
        assert sanitise(text) == text
    assert sanitise("holds: A is 2 %. (measured 1)") != sanitise("holds: A is 3 %. (measured 1)")


# --- (d) after a time-out what fails is expected to ---


@pytest.mark.slow
def test_a_cell_that_fails_after_a_time_out_fails_the_run(runs):
    assert runs.forgiven == (["passed", "skipped"], 0)  # nbval alone would let it pass
    assert runs.late == (["passed", "failure"], 1)


def test_every_notebook_is_run_once_and_no_solved_version_beside_its_learners():
    """What one version has computed is in build/store when the other asks for it."""
    plain = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    command = ["make", "-n", "notebooks-test"]
    shown = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"notebooks/\S+\.ipynb", shown.split("-m pytest")[-1])
    every = [str(target(source, version).relative_to(ROOT)) for source in sources() for version in VERSIONS]
    assert sorted(found) == sorted(every)
    solved = [path.startswith("notebooks/solved/") for path in found]
    assert solved == sorted(solved)
    assert "--no-loadscope-reorder" in options()
