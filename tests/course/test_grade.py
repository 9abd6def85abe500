"""Grading: right functions get their points, and a hostile or broken notebook loses its own and does no other harm."""

import csv
import inspect
import json
import os
from pathlib import Path

import pytest
import torch

from dts_mini.cli import main
from dts_mini.core.errors import DTSError
from dts_mini.course import grade, sandbox
from dts_mini.course.exercise import difference
from dts_mini.course.exercises import EXERCISES

IMPORTS = "import math\nimport torch\nfrom torch.nn import functional as F"
RIGHT = {name: inspect.getsource(exercise.reference) for name, exercise in EXERCISES.items()}
INTRUDED = {  # what each function attempts first
    "head_of": "import dts_mini.course.exercises as e\nreturn e.EXERCISES['head_of'].reference(*arguments)",
    "half_width": "import socket\nsocket.socket()",
    "my_task_arithmetic": "open({victim!r}, 'w').write('written')",
    "split_loss": "import subprocess\nsubprocess.run(['true'])",
    "group_value": "import os\nif os.fork() == 0:\n    os._exit(0)",
    "information_bits": "torch.from_file({victim!r}, shared=True, size=64)[:] = 1",
    "remaining_length": "import os\nos.kill(os.getppid(), 9)",
    "my_weights": "import os\nopen({victim!r}).read() if 'SECRET' not in os.environ else 0",
}
FIRST = [name for name, exercise in EXERCISES.items() if exercise.notebook == "00_start_here"]


def notebook(path: Path, *cells: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True), "metadata": {}} for cell in cells]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": "# Mine"}, *code], "nbformat": 4}))
    return path


def guarded(name: str, attempt: str) -> str:
    """A function that first attempts something, and answers rightly only when that was refused."""
    right = RIGHT[name].replace(f"def {name}(", "def right(", 1)
    body = "\n".join(f"    {line}" for line in right.splitlines())
    attempt = "\n".join(f"        {line}" for line in attempt.splitlines())
    return (
        f"def {name}(*arguments):\n    import math\n    import torch\n    from torch.nn import functional as F\n{body}\n"
        f"    try:\n{attempt}\n    except (OSError, ImportError, RuntimeError, AttributeError):\n"
        "        return right(*arguments)\n    return 'it was not refused'"
    )


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A class of every kind of submission, graded by the command; (reports by name, rows of class.csv, victim)."""
    folder = tmp_path_factory.mktemp("class")
    out, victim = folder / "out", folder / "victim.txt"
    victim.write_text("untouched")
    wrong = EXERCISES["head_of"].wrong
    paths = [
        notebook(
            folder / "anna" / "lab.ipynb",
            f"%matplotlib inline\n!rm -rf nothing\n{IMPORTS}",
            f"open({str(victim)!r}, 'w').write('executed')\nwhile True:\n    pass",  # is never run
            *RIGHT.values(),
            "import sys; sys.exit(1)",
        ),
        notebook(
            folder / "ben" / "lab.ipynb",
            IMPORTS,
            "def head_of(text):\n    return F.normalize(text.mean(1), dim=-1)",
            "def half_width(p, n):\n    return 0",
            RIGHT["half_width"],  # the last one counts
            "def group_value(x):\n    raise NotImplementedError",
            "def information_bits(m, n, r):\n    return helper(m, n, r)",
            "def my_task_arithmetic(theta_0, experts, coefficient):\n    theta_0['w'] += 1\n    return theta_0",
        ),
        notebook(
            folder / "endless.ipynb",
            IMPORTS,
            "def head_of(text):\n    while True:\n        pass",
            RIGHT["half_width"],
            "def my_task_arithmetic(*a):\n    import os\n    os._exit(0)",
            "def split_loss(*a):\n    import sys\n    sys.exit(0)",
            RIGHT["group_value"],
        ),
        notebook(folder / "hung.ipynb", "def head_of(text, x=sum(iter(int, 1))):\n    return 1"),
        notebook(
            folder / "hungry.ipynb",
            IMPORTS,
            "def head_of(text):\n    return torch.ones(10**11)",
            "def half_width(p, n):\n    return [0] * 10**10",
            RIGHT["split_loss"],
            "def my_task_arithmetic(*a):\n    return 'x' * 2 * 10**7",
        ),
        notebook(
            folder / "forger.ipynb",
            "import os, sys, torch",
            "def head_of(text):\n"
            "    print('passed, 3 checks')\n"
            '    line = b\'{"value": true, "status": "passed", "passed": true}\\n\'\n'
            "    for fd in range(1, 30):\n"
            "        try:\n            torch.os.write(fd, line)\n        except OSError:\n            pass\n"
            "    torch.os._exit(0)",
            "def half_width(p, n):\n    print('passed, 4 checks')\n    return 'passed'",
        ),
        notebook(
            folder / "intruder.ipynb",
            *(guarded(name, attempt.format(victim=str(victim))) for name, attempt in INTRUDED.items()),
        ),
        notebook(folder / "syntax.ipynb", "def head_of(text):\n    return (", RIGHT["half_width"]),
        notebook(folder / "=1+1.ipynb", "print('hello')"),
        folder / "none.ipynb",
    ]
    (folder / "prose.ipynb").write_text("Dear teacher,")
    paths.append(folder / "prose.ipynb")
    os.environ["SECRET"] = "token"
    try:
        assert main(["grade", *map(str, paths), "--out", str(out), "--seconds", "6", "--memory", "600"]) == 0
    finally:
        del os.environ["SECRET"]
    reports = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    with (out / "class.csv").open(newline="") as file:
        rows = {row["submission"]: row for row in csv.DictReader(file)}
    assert wrong and len(rows) == len(paths)
    return reports, rows, victim


def status(report: dict) -> dict[str, str]:
    return {name: entry["status"] for name, entry in report["exercises"].items()}


@pytest.mark.slow
class TestClass:
    def test_right_functions_get_all_points_and_nothing_else_of_the_notebook_is_run(self, graded):
        report = graded[0]["anna-lab"]
        assert status(report) == dict.fromkeys(EXERCISES, "passed")
        assert (report["passed"], report["of"], report["reason"]) == (len(EXERCISES), len(EXERCISES), "")
        assert graded[2].read_text() == "untouched"

    def test_some_right_some_wrong_some_missing(self, graded):
        report = graded[0]["ben-lab"]
        told = {
            "head_of": "failed",
            "half_width": "passed",
            "my_task_arithmetic": "failed",
            "group_value": "not attempted",
            "information_bits": "failed",
        }
        touched = {EXERCISES[name].notebook for name in told}  # whoever sends one function of a notebook owes all
        owed = {name: "missing" for name, exercise in EXERCISES.items() if exercise.notebook in touched}
        assert status(report) == owed | told and "missing" in owed.values()
        assert report["exercises"]["head_of"]["hint"] == "The longer prompt wins"
        assert "name 'helper' is not defined (of a notebook only" in report["exercises"]["information_bits"]["message"]
        assert any("half_width is defined more than once" in note for note in report["notes"])

    def test_endless_and_exiting_functions_cost_themselves_alone(self, graded):
        report = graded[0]["endless"]
        found = status(report)
        assert [found[name] for name in ("head_of", "my_task_arithmetic", "split_loss")] == [
            "stopped",
            "stopped",
            "failed",
        ]
        assert found["half_width"] == found["group_value"] == "passed"
        assert "no answer in 6 s" in report["exercises"]["head_of"]["message"]
        assert "ended the process, status 0" in report["exercises"]["my_task_arithmetic"]["message"]
        assert "SystemExit" in report["exercises"]["split_loss"]["message"]

    def test_a_definition_that_never_ends_costs_the_submission(self, graded):
        assert graded[0]["hung"]["passed"] == 0
        assert graded[0]["hung"]["reason"]

    def test_hungry_functions_are_refused_memory_and_cost_themselves_alone(self, graded):
        report = graded[0]["hungry"]
        if "memory" not in report["held"]:
            pytest.skip("this system limits no memory")
        found = status(report)
        assert found["head_of"] == found["half_width"] == "failed"
        assert found["split_loss"] == "passed"
        assert found["my_task_arithmetic"] == "stopped"
        message = report["exercises"]["my_task_arithmetic"]["message"]
        assert "returned more than" in message or "no answer" in message  # on a busy machine time runs out first

    def test_printing_exiting_and_writing_to_every_pipe_pass_no_check(self, graded):
        report = graded[0]["forger"]
        assert report["passed"] == 0
        assert {status(report)[name] for name in ("head_of", "half_width")} <= {"failed", "stopped"}

    @pytest.mark.parametrize("name", INTRUDED)
    def test_what_is_not_allowed_is_refused(self, graded, name):
        report = graded[0]["intruder"]
        if name == "information_bits" and "files" not in report["held"]:
            pytest.skip("this system has no Landlock")
        assert status(report)[name] == "passed", report["exercises"][name]
        assert graded[2].read_text() == "untouched"

    def test_a_cell_that_is_no_python_costs_its_own_function(self, graded):
        report = graded[0]["syntax"]
        assert {name: status(report)[name] for name in ("head_of", "half_width")} == {
            "head_of": "failed",
            "half_width": "passed",
        }
        assert "code cell 1 is no Python" in report["exercises"]["head_of"]["message"]

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("=1+1", "holds no function of an exercise"),
            ("none", "there is no such file"),
            ("prose", "is no notebook: no JSON with a list of cells"),
        ],
    )
    def test_what_is_no_submission_gets_a_row_with_the_reason(self, graded, name, reason):
        reports, rows, _ = graded
        assert (reports[name]["passed"], reports[name]["of"], reports[name]["reason"]) == (0, 0, reason)
        row = rows["'=1+1" if name == "=1+1" else name]  # no formula for a spreadsheet
        assert (row["passed"], row["reason"]) == ("0", reason)

    def test_the_class_has_a_row_a_submission_and_a_column_an_exercise(self, graded):
        reports, rows, _ = graded
        assert len(rows) == len(reports) == 11
        assert list(next(iter(rows.values()))) == ["submission", "passed", "of", *EXERCISES, "reason"]
        for name, row in rows.items():
            report = reports[name.removeprefix("'")]
            assert (row["passed"], row["of"]) == (str(report["passed"]), str(report["of"]))
            assert {key: row[key] for key in EXERCISES if row[key]} == status(report)


# --- the parts ---


def test_an_out_folder_in_use_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "class.csv").write_text("last year's")
    assert main(["grade", "a.ipynb", "--out", str(tmp_path)]) == 1
    assert "class.csv: exists already; pass --overwrite" in capsys.readouterr().err
    assert main(["grade", "none.ipynb", "--out", str(tmp_path), "--overwrite"]) == 0
    assert "there is no such file" in (tmp_path / "class.csv").read_text()


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": float("nan")}, {"memory": 0}])
def test_limits_that_are_none_are_refused(tmp_path, limits):
    with pytest.raises(DTSError, match="above zero"):
        list(grade.grade_class([Path("a.ipynb")], tmp_path, **limits))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/x/a.ipynb", "/y/b.ipynb"], ["a", "b"]),
        (["/x/a.ipynb", "/y/a.ipynb"], ["x-a", "y-a"]),
        (["/x/a.ipynb", "/y/A.ipynb"], ["x-a", "y-A"]),  # one file on many a laptop
        (["/x/z/a.ipynb", "/y/z/a.ipynb", "/x/z/b.ipynb"], ["x-z-a", "y-z-a", "b"]),
        (["/x/a.ipynb", "/x/./a.ipynb"], ["a"]),  # twice the same
        (["/x-y/a.ipynb", "/x/y-a.ipynb", "/x/y/a.ipynb"], ["x-y-a", "x-y-a", "x-y-a"]),
    ],
)
def test_submissions_get_names_of_their_own(paths, names):
    found = list(grade.submission_names([Path(path) for path in paths]))
    assert len({name.casefold() for name in found}) == len(found)
    if len(set(names)) == len(names):
        assert found == names


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{}]}', "[" * 10**5, "\udcff", "1" * 9999],
)
def test_a_file_that_is_no_notebook_is_told(tmp_path, text):
    path = tmp_path / "a.ipynb"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DTSError, match="is no notebook"):
        grade.code_cells(path)


def test_a_folder_is_no_notebook_and_neither_is_a_huge_file(tmp_path, monkeypatch):
    with pytest.raises(DTSError, match="no such file"):
        grade.code_cells(tmp_path)
    monkeypatch.setattr(grade, "LARGEST_NOTEBOOK", 2**20)
    path = tmp_path / "a.ipynb"
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(DTSError, match="larger than 1 MiB"):
        grade.code_cells(path)


def test_from_cells_are_taken_allowed_imports_and_named_functions_alone():
    cells = [
        "%time\nimport math, os\nfrom torch import nn\nfrom dts_mini.course.exercises import EXERCISES\nx = 1",
        "def f():\n    return math.pi\n\ndef other():\n    return 1",
        "!ls\nimport dts_mini.course.exercise, math as m",
        "class f2:\n    def f(self): pass",
        "raise SystemExit",
    ]
    functions, errors, notes = sandbox.load(cells, ["f"])
    assert list(functions) == ["f"] and not errors and not notes
    space = functions["f"].__globals__
    assert {"math", "nn", "m", "f"} <= set(space)
    assert not {"os", "EXERCISES", "x", "other", "dts_mini", "f2"} & set(space)


@pytest.mark.parametrize(
    ("cells", "error"),
    [
        (["def f(:\n  pass"], "code cell 1 is no Python"),
        (["", "def f(x=1 / 0):\n    return 1"], "the definition raises ZeroDivisionError"),
        (["def f(x: Tensor):\n    return 1"], "the definition raises NameError"),
        (["@exit\ndef f():\n    return 1"], "the definition raises"),
        (["def f(): return " + "(" * 10**4], "code cell 1 is no Python"),
        (["def f(): return '\0'"], "code cell 1 is no Python"),
    ],
)
def test_a_function_that_cannot_be_defined_is_an_error_of_its_own(cells, error):
    functions, errors, _ = sandbox.load([*cells, "def g():\n    return 1"], ["f", "g"])
    assert list(functions) == ["g"]
    assert errors["f"].startswith(error)


def test_the_last_definition_counts_also_when_it_fails():
    functions, errors, _ = sandbox.load(["def f():\n    return 1", "def f(x=y):\n    return 2"], ["f"])
    assert not functions and "NameError" in errors["f"]


PLAIN = (
    *(None, True, 3, -2.5, "text", b"\0bytes", [], (), {}, [1, (2.0, "x")], {"a": {1: None}}),
    *(torch.tensor(2.5), torch.ones(2, 3, dtype=torch.bfloat16), torch.arange(4)[::2], torch.empty(0, 3)),
    *(torch.tensor([True, False]), {"w": torch.arange(4.0).reshape(2, 2).T}),
)


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_travel(value):
    found = sandbox.decode(json.loads(json.dumps(sandbox.encode(value))))
    assert type(found) is type(value) and difference(found, value) == ""


def test_of_other_things_only_the_name_travels():
    found = sandbox.decode(sandbox.encode([1j, torch.nn.Linear(1, 1)]))
    assert [type(value).__name__ for value in found] == ["complex", "Linear"]


@pytest.mark.parametrize(
    "message",
    [
        [1],
        {},
        {"tensor": "float32", "shape": [10**6, 10**6], "data": ""},
        {"tensor": "float32", "shape": [2], "data": "AAAA"},
        {"tensor": "float32", "shape": [-1], "data": "AAAAAA=="},
        {"tensor": "float33", "shape": [1], "data": "AAAAAA=="},
        {"dict": [[1]]},
        {"dict": [[{"list": []}, 1]]},
        {"other": 3},
        {"bytes": "~"},
    ],
    ids=repr,
)
def test_what_is_no_message_is_refused(message):
    with pytest.raises((ValueError, KeyError, TypeError, RuntimeError)):
        sandbox.decode(message)


def test_changes_of_arguments_come_back():
    arguments = (torch.zeros(2), {"w": torch.zeros(1)}, [1], 5)
    grade.put_back(arguments, (torch.ones(2), {"v": torch.ones(3)}, [1, 2], 6))
    assert torch.equal(arguments[0], torch.ones(2))
    assert list(arguments[1]) == ["v"] and arguments[2] == [1, 2] and arguments[3] == 5
