"""Learners' code as learners write it: their functions are found, with what they need, and nothing else is run."""

import inspect
import json
import textwrap

import pytest

from dts_mini.course.exercise import verdict
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.learned import Notebook, code_cells, shape
from dts_mini.course.worker import Inert, described, read

SQRT = "def half_width(p, n):\n    return 1.96 * sqrt(p * (1 - p) / n)"
HALF = "def half_width(p, n):\n    return 1.96 * (p * (1 - p) / n) ** 0.5"


def notebook(*cells: str, **extra) -> bytes:
    code = [{"cell_type": "code", "source": cell} for cell in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": "# Mine"}, *code], "nbformat": 4} | extra).encode()


def made(*cells: str, name: str = "half_width"):
    """(the function of these cells, what went wrong on the way), as a box makes it."""
    inert = Inert()
    space = {"__name__": "__main__", "display": inert, "get_ipython": lambda: inert, "check": lambda answer: answer}
    return Notebook("lab.ipynb", notebook(*cells)).run(name, space)


AS_WRITTEN = {
    "plainly": [HALF],
    "with a constant and a helper": [
        "Z = 1.96",
        "def spread(p, n):\n    return (p * (1 - p) / n) ** POWER",
        "POWER = 0.5",
        "def half_width(p, n):\n    return Z * spread(p, n)",
    ],
    "with a helper below": [SQRT, "sqrt = lambda x: x**0.5"],
    "as a lambda": ["half_width = lambda p, n: 1.96 * (p * (1 - p) / n) ** 0.5", "half_width = check(half_width)"],
    "under if": ["if True:\n    " + HALF.replace("\n", "\n    ")],
    "under try": ["try:\n    from math import sqrt\nexcept ImportError:\n    sqrt = None", SQRT],
    "with a shell line": [f"!ls\nlisting = !ls\n{HALF}\nprint(listing)"],
    "with magics": [f"%matplotlib inline\n%timeit 1 + 1\n{HALF}\n%time half_width(0.5, 3)"],
    "in a timed cell": [f"%%time\n{HALF}"],
    "in a captured cell": [f"%%capture out\n{HALF}"],
    "with questions": [f"print?\n?print\nlen??\n{HALF}"],
    "with display": [HALF.replace("    return", "    display(p)\n    print(p)\n    return")],
    "with a magic in the function": [HALF.replace("    return", "    !echo hello\n    %timeit 1\n    return")],
    "with a future import": ["from __future__ import annotations", HALF.replace("(p, n)", "(p: Nowhere, n) -> Never")],
    "with a future import in its cell": ["from __future__ import annotations\n" + HALF.replace("p,", "p: Nowhere,")],
    "with an import of all": ["from math import *", SQRT],
    "with imports in a row": ["import os, math as m", SQRT.replace("sqrt", "m.sqrt")],
    "after what fails": ["raise SystemExit", "1 / 0", "x = undefined", HALF],
    "beside a cell that is no Python": ["def other(:\n    pass", HALF],
    "with what the course gives": ["from dts_mini.core.errors import DTSError", HALF, "half_width = check(half_width)"],
    "with a table that is filled": [
        "Z = {}", "Z['95 %'] = 1.96", "POWERS = []", "POWERS.append(0.5)",
        "def half_width(p, n):\n    return Z['95 %'] * (p * (1 - p) / n) ** POWERS[-1]",
    ],
    "with a class": ["class Interval:\n    z = 1.96", HALF.replace("1.96", "Interval.z")],
    "with a decorator": ["from functools import cache", "@cache\n" + HALF],
    "twice, the last one right": ["def half_width(p, n):\n    return 0", HALF],
    "with a constant that changes after the check": [
        "Z = 1.96", HALF.replace("1.96", "Z"), "half_width = check(half_width)", "Z = 3",
    ],
    "with a loop around a constant": ["for Z in (1, 1.96):\n    pass", HALF.replace("1.96", "Z")],
    "with a walrus": ["print(Z := 1.96)", HALF.replace("1.96", "Z")],
    "with tabs and Windows's line ends": [HALF.replace("    ", "\t").replace("\n", "\r\n")],
    "with a partial": ["from functools import partial\ndef f(z, p, n):\n    return z * (p * (1 - p) / n) ** 0.5",
                       "half_width = partial(f, 1.96)\nhalf_width = check(half_width)"],
}  # fmt: skip


@pytest.mark.parametrize("how", AS_WRITTEN)
def test_a_right_answer_passes_however_it_is_written(how):
    function, errors = made(*AS_WRITTEN[how])
    assert "half_width" not in errors, errors
    assert verdict(EXERCISES["half_width"], function).status == "passed"


def test_only_what_the_function_needs_is_run(tmp_path):
    victim = tmp_path / "victim"
    cells = [f"open({str(victim)!r}, 'w')", "while True:\n    pass", f"model = open({str(victim)!r}, 'w')\nZ = 1.96"]
    function, _ = made(*cells, HALF.replace("1.96", "Z"), "half_width(0.5, 3)")
    assert function(0.5, 1) == 0.98 and not victim.exists()


def test_what_is_needed_and_fails_is_told():
    function, errors = made("Z = load_suite()", HALF.replace("1.96", "Z"))
    assert function and "code cell 1 raises NameError: name 'load_suite'" in errors["Z"]


@pytest.mark.parametrize(
    ("cells", "error"),
    [
        (["def half_width(p=1 / 0):\n    return 1"], "code cell 1 raises ZeroDivisionError"),
        (["def half_width(p: Tensor):\n    return 1"], "code cell 1 raises NameError"),
        (["@exit\ndef half_width():\n    return 1"], "code cell 1 raises"),
        ([HALF, "def half_width(p, n=undefined):\n    return 2"], "code cell 2 raises NameError"),
        (["from nowhere import half_width"], "code cell 1 raises ModuleNotFoundError"),
    ],
)
def test_a_function_that_cannot_be_made_is_told(cells, error):
    function, errors = made(*cells)
    assert function is None and errors["half_width"].startswith(error)


@pytest.mark.parametrize(
    "cell",
    ["def half_width(:\n  pass", "def half_width(): return " + "(" * 10**4, "def half_width(): return '\0'",
     "def half_width():\n    return 1\nreturn 2", "def half_width(): return " + "-" * 10**5 + "1"],
    ids=lambda cell: cell[:40],
)  # fmt: skip
def test_a_cell_that_is_no_python_costs_its_own_function(cell):
    told = read([["lab.ipynb", coded(notebook(cell, "def head_of(x):\n    return x"))]], ["half_width", "head_of"])[1]
    assert list(told["found"]) == ["head_of"] and "code cell 1 is no Python" in told["errors"]["half_width"]


def coded(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def test_a_variable_called_as_an_exercise_is_none():
    data = coded(notebook("half_width = 3", "for head_of in range(3):\n    pass"))
    assert not read([["lab.ipynb", data]], ["half_width", "head_of"])[1]["found"]


def test_of_two_notebooks_the_stub_gives_way():
    stub = notebook("def half_width(p, n):\n    '''Half.'''\n    raise NotImplementedError")
    for files in (
        [["a", coded(stub)], ["b", coded(notebook(HALF))]],
        [["a", coded(notebook(HALF))], ["b", coded(stub)]],
    ):
        found, told = read(files, ["half_width"])
        assert found["half_width"].last("half_width") == 0 and not told["found"]["half_width"]["stub"]
        assert "half_width stands in a and in b" in told["notes"][0]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        *((text, "is no notebook") for text in (b"", b"{}", b"[]", b"null", b'{"cells": 3}')),
        *((text, "is no notebook") for text in (b'{"cells": [3]}', b'{"cells": [{}]}')),
        (b"[" * 10**5, "is no notebook"),
        (b"1" * 9999, "is no notebook"),
        (b'{"cells": [], "x": "\xff"}', "not in UTF-8"),
        (json.dumps({"worksheets": [{"cells": []}], "nbformat": 3}).encode(), "nbformat 3"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_file_that_is_no_notebook_is_told_in_words(data, word):
    with pytest.raises(ValueError, match=word):
        code_cells(data)
    assert word in read([["lab.ipynb", coded(data)]], ["half_width"])[1]["reasons"][0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_of_json_are_read(encoding):
    assert code_cells(notebook("x = 'ä'").decode().encode(encoding)) == ["x = 'ä'"]


# --- what is told of a function ---


def about(*cells: str, name: str = "half_width") -> dict:
    return described(Notebook("lab.ipynb", notebook(*cells)), name, list(EXERCISES))


def test_what_a_function_takes_from_the_library_is_told():
    assert about("from dts_mini.core.tensor import scale, threshold", "def half_width(p, n):\n    return scale(p, n)")[
        "library"
    ] == ["dts_mini.core.tensor.scale"]
    assert about("def half_width(p, n):\n    import dts_mini\n    return dts_mini.fuse(p)")["library"] == ["dts_mini"]
    helper = ["from dts_mini import fuse as f", "def g(x):\n    return f(x)", "def half_width(p, n):\n    return g(p)"]
    assert about(*helper)["library"] == ["dts_mini.fuse"]
    assert about("from dts_mini import fuse", "from dts_mini.course import check", HALF)["library"] == []


def test_what_a_function_seldom_uses_is_told():
    robber = "def half_width(p, n):\n    import os\n    return eval(open('x').read())"
    assert about(robber)["seldom"] == ["eval", "open", "os"]
    assert about("import sys, os", "print(open(os.devnull))", HALF)["seldom"] == []


def test_the_shape_of_a_function_does_not_depend_on_its_names_words_and_hints():
    def of(code: str):
        return about(code)["shape"]

    other = 'def half_width(share: float, images: int) -> float:\n    """Mine."""\n    # as I like it\n'
    assert of(HALF) == of(other + "    return 1.96 * (share * (1 - share) / images) ** 0.5")
    assert of(HALF) != of(HALF.replace("1.96", "2")) and of(HALF) != of(HALF.replace("p * (1 - p)", "p * (1 - n)"))


@pytest.mark.parametrize("name", EXERCISES)
def test_a_reference_has_the_shape_of_itself_in_a_notebook(name):
    import ast

    source = textwrap.dedent(inspect.getsource(EXERCISES[name].reference))
    assert about(source, name=name)["shape"] == shape(ast.parse(source).body[0])[0]


def test_what_else_of_the_course_a_function_calls_is_told():
    cells = [
        "def information_bits(m, n, r):\n    return 3",
        "def rank_within_bits(m, n, b):\n    return information_bits(m, n, 1)",
    ]
    assert about(*cells, name="rank_within_bits")["calls"] == ["information_bits"]
