"""``bring``: a notebook runs on what a learner wrote elsewhere, or says that the solution stands in."""

import base64
import inspect
import json
import textwrap

import pytest
import torch

from dts_mini.course import answers, bring, whose
from dts_mini.course.build import read, sources
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.learned import Notebook
from dts_mini.course.worker import brought
from dts_mini.course.worker import read as read_submission

HALF = textwrap.dedent(inspect.getsource(EXERCISES["half_width"].reference))
PACK = textwrap.dedent(inspect.getsource(EXERCISES["pack"].reference))


def notebook(*cells: str) -> bytes:
    return json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells], "nbformat": 4}).encode()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answers._stand_ins.clear()
    return tmp_path


def here(*cells: str) -> dict:
    """The names of a notebook in which these cells ran."""
    space = {"bring": bring}
    for cell in cells:
        exec(cell, space)
    return space


def test_what_passes_in_the_notebook_of_the_exercise_is_brought(folder, capsys):
    cells = ["import torch\nZ = 1.96", HALF.replace("1.96", "Z"), "half_width = check(half_width)", "1 / 0"]
    (folder / "00_start_here.ipynb").write_bytes(notebook("from dts_mini.course import check", *cells))
    space = here('half_width = bring("half_width")')
    assert space["half_width"] is not EXERCISES["half_width"].reference and space["half_width"](0.5, 1) == 0.98
    assert capsys.readouterr().out == "half_width: yours, from 00_start_here.ipynb\n"
    assert whose("half_width") == "your"


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("def half_width(p, n):\n    raise NotImplementedError", "00_start_here.ipynb: not attempted yet"),
        ("def half_width(p, n):\n    return 0.0", "00_start_here.ipynb: failed: expected"),
        ("def half_width(p, n=nothing):\n    return 0.0", "00_start_here.ipynb: code cell 1 raises NameError"),
        ("print('hello')", "00_start_here.ipynb holds no function of this name"),
        ("from dts_mini.course.exercises.nb00_start_here import half_width", "holds no function of this name"),
        (None, "there is no 00_start_here.ipynb in this folder"),
    ],
)
def test_else_the_solution_stands_in_and_the_line_says_why(folder, capsys, cell, why):
    if cell:
        (folder / "00_start_here.ipynb").write_bytes(notebook(cell))
    assert here('f = bring("half_width")')["f"] is EXERCISES["half_width"].reference
    assert (out := capsys.readouterr().out).startswith("half_width: the solution (") and why in out
    assert whose("half_width") == "the solution's"


def test_a_file_that_is_no_notebook_is_said_and_nothing_is_raised(folder, capsys):
    (folder / "00_start_here.ipynb").write_bytes(b"not a notebook")
    here('f = bring("half_width")')
    assert "half_width: the solution (00_start_here.ipynb: ValueError" in capsys.readouterr().out


def test_what_is_pasted_comes_first_and_what_was_brought_before_is_not_pasted(folder, capsys):
    (folder / "00_start_here.ipynb").write_bytes(notebook(HALF))
    here(HALF, 'half_width = bring("half_width")', 'half_width = bring("half_width")')
    here('half_width = bring("half_width")', 'half_width = bring("half_width")')
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == [
        *["yours, from this notebook"] * 2,
        *["yours, from 00_start_here.ipynb"] * 2,
    ]


def test_a_paste_that_fails_is_named_and_the_saved_one_is_taken(folder, capsys):
    (folder / "00_start_here.ipynb").write_bytes(notebook(HALF))
    here("def half_width(p, n):\n    return 0.0", 'half_width = bring("half_width")')
    assert "yours, from 00_start_here.ipynb" in capsys.readouterr().out


def test_several_names_give_a_tuple_and_a_name_that_is_none_is_refused():
    assert here('f, g = bring("half_width", "pack")')["g"] is EXERCISES["pack"].reference
    with pytest.raises(ValueError, match="no exercise called 'packed'"):
        here('bring("packed")')


# --- in a box, when notebooks are graded ---


def submission(**notebooks: tuple[str, ...]):
    """(answers, what was read) of a submission's notebooks."""
    files = [[name, base64.b64encode(notebook(*cells)).decode()] for name, cells in notebooks.items()]
    return read_submission(files, list(EXERCISES))


def test_a_box_brings_the_submissions_own_function_and_else_the_librarys():
    found, told = submission(five=("import torch", PACK.replace("16 *", "(8 + 8) *")))
    mine, theirs = brought(("pack", "unpack"), found, told["found"])
    codes = torch.tensor([3, 0, 2, 1, 1])
    assert mine(codes).tolist() == [99, 1] and theirs(mine(codes), 5).tolist() == codes.tolist()
    stubbed, told = submission(five=("def pack(codes):\n    raise NotImplementedError",))
    assert brought(("pack",), stubbed, told["found"])(codes).tolist() == [99, 1]


def test_what_a_notebook_brings_or_imports_from_the_library_is_nobodys_answer():
    cells = ["from dts_mini.core.paper import scale", 'pack = bring("pack")', "import dts_mini.core.svd as dts"]
    assert all(Notebook("n.ipynb", notebook(*cells)).last(name) is None for name in ("scale", "pack", "dts"))
    checked = Notebook("n.ipynb", notebook("from dts_mini.core.paper import scale", "scale = check(scale)"))
    assert checked.last("scale") == 0  # it is given as an answer, and judged as one


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.stem)
def test_each_notebook_holds_answers_to_its_own_exercises_alone(source):
    cells = [cell.source for cell in read(source).cells if cell.cell_type == "code"]
    book = Notebook(source.name, notebook(*cells))
    found = {name for name in EXERCISES if book.last(name) is not None}
    assert found == {name for name, exercise in EXERCISES.items() if exercise.notebook == source.stem}
