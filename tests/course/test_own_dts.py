"""Notebooks 02 to 06 make a method that is the learner's own."""

import ast
import contextlib
import inspect
import io
import textwrap

import nbformat
import pytest

from dts_mini.course import answers
from dts_mini.course.build import is_exercise, read, sources
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.folding import folded

METHOD = [source for source in sources() if "02" <= source.stem[:2] <= "06"]
FUNCTIONS = ("decompose", "threshold", "scale", "pack", "unpack")
MEASURING = {
    *(
        "logits",
        "divergence",
        "bootstrap",
        "interval",
        "claim",
        "storage",
        "evaluate",
        "compare",
        "score",
        "load_suite",
    ),
    *("cosine_similarity", "norm", "relative", "bring", "check", "measure", "estimate", "get_model_config", "print"),
}


def code_lines(source: str) -> int:
    """The lines of code: without blank ones, comments and docstrings."""
    return sum(1 for line in ast.unparse(_undocumented(ast.parse(source))).splitlines() if line.strip())


def _undocumented(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def measures(source: str) -> bool:
    """Whether a cell judges the method: it evaluates, compares, counts or prints."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return bool(
        {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls} & MEASURING
    )


def test_at_least_half_of_the_methods_lines_are_the_learners():
    """The method's cells are those that neither set up, nor claim, nor draw, nor measure (``measures``)."""
    own = given = 0
    for source in METHOD:
        cells = [cell for cell in read(source).cells if cell.cell_type == "code"]
        plumbing = folded(cells)
        for cell in cells:
            if is_exercise(cell):
                own += code_lines(cell.source)
            elif cell.id not in plumbing and not measures(cell.source):
                given += code_lines(cell.source)
    assert own >= given, f"learners write {own} lines, {given} are given"


def test_nothing_of_the_method_in_06_comes_from_the_core():
    (source,) = (each for each in METHOD if each.stem.startswith("06"))
    code = "\n".join(cell.source for cell in read(source).cells if cell.cell_type == "code")
    assert "dts_mini.core" not in code
    for name in ("compressed", "rebuilt"):
        text = inspect.getsource(EXERCISES[name].reference)
        assert "dts_mini" not in text and f"def {name}(" in code
    assert sum(code_lines(_source(name)) for name in (*FUNCTIONS, "compressed", "rebuilt")) <= 80


def _source(name: str) -> str:
    return textwrap.dedent(inspect.getsource(EXERCISES[name].reference))


def typed_in(source, folder):
    """The learner's notebook of a source, saved in a folder with right answers in its stubs; its code cells."""
    notebook, solved = read(source, "learner"), {cell.id: cell.source for cell in read(source).cells}
    for cell in notebook.cells:
        if is_exercise(cell):
            assert "raise NotImplementedError" in cell.source
            cell.source = solved[cell.id]
    nbformat.write(notebook, folder / f"{source.stem}.ipynb")
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_with_right_answers_typed_in_06_reaches_its_table_on_the_learners_own_functions(tmp_path, monkeypatch):
    cells = [typed_in(source, tmp_path) for source in METHOD][-1]
    monkeypatch.chdir(tmp_path)
    answers._stand_ins.clear()
    end = next(number for number, cell in enumerate(cells) if "06-kl" in cell)
    space, said = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(said):
        for number, cell in enumerate(cells[: end + 1]):
            exec(compile(cell, f"cell {number}", "exec"), space)
    out = said.getvalue()
    for name in FUNCTIONS:
        assert f"{name}: yours, from {EXERCISES[name].notebook}.ipynb\n" in out
        assert space[name] is not EXERCISES[name].reference
    assert "the solution" not in out and out.count("passed, ") == 2
    assert "\nyour files " in out and "holds: In KL divergence your files are as good" in out
    length = {name: sum(row.values()) for name, row in space["length"].items()}
    assert 0.95 < length["yours"] / length["library"] < 1.02
