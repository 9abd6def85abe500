"""Notebooks 02 to 06 make a method that is the learner's own."""

import ast
import contextlib
import inspect
import io
import textwrap

import nbformat
import pytest
import torch

from dts_mini.core import paper
from dts_mini.course import answers
from dts_mini.course.build import is_exercise, read, sources
from dts_mini.course.exercises import EXERCISES

METHOD = [source for source in sources() if "02" <= source.stem[:2] <= "06"]
FUNCTIONS = ("decompose", "threshold", "scale", "pack", "unpack")
OWN = {name: each for name, each in EXERCISES.items() if "02" <= each.notebook[:2] <= "06"}
LIBRARY = {"svd", "compress", "rebuild"}
JUDGES = {"logits", "divergence", "bootstrap", "rank_of"}  # what evaluates models, or counts bits from shapes
SAYS = {"claim", "print", "show"}


def code_lines(source: str) -> int:
    """The lines of code: without blank ones, comments and docstrings."""
    return sum(1 for line in ast.unparse(_undocumented(ast.parse(source))).splitlines() if line.strip())


def _undocumented(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def called(node: ast.AST) -> set[str]:
    """The names of the functions that code calls, without what stands before a dot."""
    calls = (each.func for each in ast.walk(node) if isinstance(each, ast.Call))
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


def of_the_method() -> set[str]:
    """The exercises that the method is made of: what 06 writes and reads, and the steps on the way, with all that they
    call. Those that count bits, state an error or choose a cut are none of it."""
    found = {"grouped", "dts", "compressed", "rebuilt"}
    while more := {name for each in found for name in called(ast.parse(_source(each)))} & set(OWN) - found:
        found |= more
    return found


def steps(node: ast.stmt):
    """The statements in a statement that hold no others."""
    inner = [child for part in ("body", "orelse", "finalbody") for child in getattr(node, part, [])]
    if not inner:
        yield node
    for child in inner:
        yield from steps(child)


def given_lines(code: str, method: set[str]) -> int:
    """Lines of a cell that do what the method does; names of functions that do are added to ``method``."""
    count = 0
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef) and not called(node) & JUDGES:
            method.add(node.name)
            count += code_lines(ast.unparse(node))
        else:
            count += sum(bool(called(step) & method) and not called(step) & SAYS for step in steps(node))
    return count


def test_at_least_half_of_the_methods_lines_are_the_learners():
    """The method takes a task vector apart, makes it coarse, stores it, and brings a model back.

    The learner's lines are those of the exercises that it is made of (``of_the_method``), and of no others. Given is
    every line, in whichever cell, folded or not, that takes a matrix apart or calls one of these exercises, the
    library's ``compress`` or ``rebuild``, or a given function; and all lines of given functions. Left out are lines
    that only say something (claims, prints, figures), and functions that evaluate models or count bits from shapes, but
    for their lines that call the method.
    """
    method = of_the_method()
    assert set(FUNCTIONS) | {"group_value", "averaged"} <= method
    own, known = sum(code_lines(_source(name)) for name in method), method | LIBRARY
    cells = [cell.source for source in METHOD for cell in read(source).cells if cell.cell_type == "code"]
    exercises = [cell.source for source in METHOD for cell in read(source).cells if is_exercise(cell)]
    given = sum(given_lines(code, known) for code in cells if code not in exercises)
    assert own >= given, f"learners write {own} lines, {given} are given"


def test_a_line_that_applies_the_method_is_given_wherever_it_stands_and_one_that_judges_is_not():
    code = """
def kept(x):
    return averaged(x, threshold(x))

def judged(x):
    found = kept(x)
    return logits(found)

for x in things:
    models[x] = kept(x)
size = len(things)
claim("03-a", "It is.", threshold(x).sum(), low=0)
"""
    assert given_lines(code, of_the_method()) == 2 + 1 + 1


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


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_the_learners_functions_are_those_of_the_page_for_every_kind_and_shape(kind):
    g = torch.Generator().manual_seed(3)
    for shape in ((), (1,), (9,), (7, 4), (3, 8), (2, 3, 2, 2)):
        x = torch.randn(shape, generator=g, dtype=kind)
        if x.dim() == 1:
            x[::2] = x[::2].abs()
            x[0] = 0
        for name in ("threshold", "coarse", "dts"):
            mine, page = getattr(page_of_learners, name)(x), getattr(paper, name)(x)
            assert mine.dtype == page.dtype and torch.equal(mine, page), (name, shape)
        codes = paper.threshold(x)
        values = OWN["scale"].reference(x, codes)
        assert values.dtype == kind and torch.equal(values, paper.scale(x, codes))
    assert OWN["averaged"].reference(x, codes).dtype == kind


class page_of_learners:
    """The learner's functions under the names of ``core/paper.py``."""

    threshold = staticmethod(OWN["threshold"].reference)
    dts = staticmethod(OWN["dts"].reference)

    @staticmethod
    def coarse(x):
        codes = OWN["threshold"].reference(x)
        return OWN["scale"].reference(x, codes)[codes]


def test_a_file_keeps_the_kind_of_its_numbers():
    base = {"weight": torch.zeros(5, 4).double(), "bias": torch.zeros(3).double()}
    expert = {
        name: torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double() for name, x in base.items()
    }
    found = OWN["rebuilt"].reference(base, OWN["compressed"].reference(base, expert, 0.5))
    assert all(x.dtype == torch.float64 for x in found.values())


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
