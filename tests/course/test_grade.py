"""Grading: right functions get their points, and a hostile or broken notebook loses its own and does no other harm."""

import ast
import contextlib
import csv
import inspect
import json
import os
import random
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from dts_mini.cli import main
from dts_mini.core.errors import DTSError
from dts_mini.course import grade, sandbox, submissions
from dts_mini.course.box import Lost
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.marks import Marking
from dts_mini.course.sandbox import Engine, engine

try:
    MADE_BY = engine()
except DTSError as error:
    MADE_BY = error
needs_box = pytest.mark.skipif(isinstance(MADE_BY, DTSError), reason=f"grading needs boxes: {MADE_BY}")
IMPORTS = "import math\nimport torch\nfrom torch.nn import functional as F"
RIGHT = {name: textwrap.dedent(inspect.getsource(each.reference)) for name, each in EXERCISES.items()}
FIRST = [name for name, each in EXERCISES.items() if each.notebook == "00_start_here"]
HELPERS = "def difference(*a): pass\nfrom dts_mini.core.fusion import abstention, least_regret"


def notebook(path: Path, *cells: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True), "metadata": {}} for cell in cells]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": "# Mine"}, *code], "nbformat": 4}))
    return path


def body(name: str, code: str) -> str:
    return f"def {name}(*arguments):\n{textwrap.indent(code, '    ')}"


# What hostile ones do first, and then answer rightly: none of it may reach another's marks.
RUIN = """
import gc, sys, builtins, torch
for value in arguments:
    for tensor in (value.values() if isinstance(value, dict) else [value]):
        if isinstance(tensor, torch.Tensor):
            tensor.zero_()
    if isinstance(value, dict | list):
        value.clear()
if torch.get_default_dtype() != torch.float64:
    torch.set_default_dtype(torch.float64)
    torch.allclose = lambda *a, **k: True
    builtins.abs = lambda x: 0
    for name in ("math", "linecache", "dts_mini.core.errors"):
        for each in dir(sys.modules[name]):
            if each.isupper() or each in ("tau", "pi"):
                setattr(sys.modules[name], each, None)
return None
"""
FORGE = """
import os
line = b'{"value": {"storages": [], "things": [], "value": true}, "status": "passed", "passed": true}\\n'
for n in range(3, 64):
    try:
        os.write(n, line)
    except OSError:
        pass
os._exit(0)
"""


def hand_in(folder: Path) -> dict[str, Path]:
    """A class of every kind of submission, by the name that each gets."""
    odd = "m\udcfcller"
    files = {
        "ada": notebook(folder / "ada.ipynb", f"%matplotlib inline\n{IMPORTS}", HELPERS, *RIGHT.values(), "1 / 0"),
        "ben": notebook(
            folder / "ben.ipynb",
            IMPORTS,
            "def head_of(text):\n    return F.normalize(text.mean(1), dim=-1)",
            "def half_width(p, n):\n    return 0",
            RIGHT["half_width"],  # the last one counts
            "def paired_half_width(first, second):\n    d = first - second\n    return d.float().std().item()",
            "def group_value(x):\n    raise NotImplementedError",
            "def information_bits(m, n, r):\n    return helper(m, n, r)",
            "def rank_within_bits(m, n, bits):\n    return information_bits(m, n, 1)",
        ),
        "endless": notebook(
            folder / "endless.ipynb",
            IMPORTS,
            body("head_of", "while True:\n    pass"),
            RIGHT["half_width"],
            body("paired_half_width", "import sys\nsys.exit(0)"),
        ),
        "forger": notebook(folder / "forger.ipynb", body("head_of", FORGE), body("half_width", "return 'passed'")),
        "hungry": notebook(
            folder / "hungry.ipynb",
            body("head_of", "import torch\nreturn torch.ones(10**11)"),
            body("half_width", "return [0] * 10**10"),
            body("paired_half_width", "return 'x' * 10**7"),
        ),
        "ruin": notebook(folder / "ruin.ipynb", *(body(name, RUIN) for name in EXERCISES)),
        "syntax": notebook(folder / "syntax.ipynb", "def head_of(text):\n    return (", RIGHT["half_width"]),
        "=1+1": notebook(folder / "=1+1.ipynb", "print('hello')"),
        "prose": folder / "prose.ipynb",
        "bare": notebook(folder / "bare" / "00.ipynb", IMPORTS, *(RIGHT[name] for name in FIRST[:1])),
    }
    notebook(folder / "bare" / "more" / "01.ipynb", IMPORTS, *(RIGHT[name] for name in FIRST[1:]))
    files["prose"].write_text("Dear teacher,")
    with contextlib.suppress(OSError, UnicodeEncodeError):  # a system that takes no such name
        files["müller"] = notebook(folder / f"{odd}.ipynb", IMPORTS, *(RIGHT[name] for name in FIRST))
    return files


def graded(out: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


def status(report: dict) -> dict[str, str]:
    return {name: entry["status"] for name, entry in report["exercises"].items()}


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """(reports by name, rows of class.csv, the folder handed in, the folder written) of a class."""
    folder = tmp_path_factory.mktemp("class")
    hand_in(folder / "in")
    arguments = [str(folder / "in"), "--out", str(folder / "out"), "--seconds", "3", "--memory", "600", "--jobs", "2"]
    assert main(["grade", *arguments]) == 0
    with (folder / "out" / "class.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["submission"]: row for row in csv.DictReader(file)}
    return graded(folder / "out"), rows, folder / "in", folder / "out"


@needs_box
@pytest.mark.slow
class TestClass:
    def test_right_functions_get_all_points(self, classroom):
        report = classroom[0]["ada"]
        assert status(report) == dict.fromkeys(EXERCISES, "passed")
        assert (report["passed"], report["of"], report["reason"]) == (len(EXERCISES), len(EXERCISES), "")
        assert report["isolation"] == "bubblewrap" and report["points"] == report["max"]
        assert "is the published solution of best_cut" in report["exercises"]["best_cut"]["flags"][0]

    def test_some_right_some_wrong_some_missing(self, classroom):
        report = classroom[0]["ben"]
        told = {"head_of": "failed", "half_width": "passed", "group_value": "not attempted"}
        told |= {"paired_half_width": "failed", "information_bits": "failed", "rank_within_bits": "failed"}
        touched = {EXERCISES[name].notebook for name in told}  # whoever sends one function of a notebook owes all
        owed = {name: "missing" for name, exercise in EXERCISES.items() if exercise.notebook in touched}
        assert status(report) == owed | told and "missing" in owed.values()
        wrong = report["exercises"]["head_of"]
        assert wrong["hint"] == "The longer prompt wins" and wrong["call"].startswith("head_of(tensor([[[4.0, 0.0]")
        assert "your line: d = first - second" in report["exercises"]["paired_half_width"]["message"]
        assert "name 'helper' is not defined" in report["exercises"]["information_bits"]["message"]
        assert any("rank_within_bits calls information_bits, which did not pass" in note for note in report["notes"])

    def test_endless_and_exiting_functions_cost_themselves_alone(self, classroom):
        report = classroom[0]["endless"]
        assert [status(report)[name] for name in FIRST] == ["stopped", "passed", "failed"]
        assert "no answer in" in report["exercises"]["head_of"]["message"]
        assert "SystemExit" in report["exercises"]["paired_half_width"]["message"]

    def test_printing_exiting_and_writing_to_every_pipe_pass_no_check(self, classroom):
        report = classroom[0]["forger"]
        assert report["passed"] == 0 and status(report)["head_of"] == "stopped"

    def test_hungry_functions_cost_themselves_alone(self, classroom):
        report = classroom[0]["hungry"]
        assert report["passed"] == 0 and set(status(report).values()) <= {"failed", "stopped"}

    def test_who_ruins_the_arguments_and_the_process_gets_nothing_and_costs_nobody_else(self, classroom):
        reports = classroom[0]
        assert reports["ruin"]["passed"] == 0 and reports["ada"]["passed"] == len(EXERCISES)

    def test_a_cell_that_is_no_python_costs_its_own_function(self, classroom):
        report = classroom[0]["syntax"]
        assert [status(report)[name] for name in FIRST] == ["failed", "passed", "missing"]
        assert "code cell 1 is no Python" in report["exercises"]["head_of"]["message"]

    def test_a_students_notebooks_are_one_row(self, classroom):
        report = classroom[0]["bare"]
        assert report["files"] == ["00.ipynb", "01.ipynb"] and report["passed"] == len(FIRST) == report["of"]

    def test_a_name_that_is_not_utf_8_gets_its_row(self, classroom):
        if "müller" not in classroom[0]:
            pytest.skip("this system takes no such name")
        assert classroom[1]["müller"]["passed"] == str(len(FIRST))

    @pytest.mark.parametrize(
        ("name", "reason"), [("=1+1", "holds no function of an exercise"), ("prose", "prose.ipynb: is no notebook")]
    )
    def test_what_is_no_submission_gets_a_row_with_the_reason(self, classroom, name, reason):
        reports, rows, *_ = classroom
        assert reports[name]["passed"] == reports[name]["of"] == 0 and reports[name]["reason"].startswith(reason)
        assert rows["'=1+1" if name == "=1+1" else name]["reason"] == reports[name]["reason"]

    def test_the_class_has_a_row_a_submission_and_a_page_for_each(self, classroom):
        reports, rows, _, out = classroom
        assert len(rows) == len(reports) and {path.stem for path in out.glob("*.html")} == set(reports)
        for name, row in rows.items():
            report = reports[name.removeprefix("'")]
            assert {key: row[key] for key in EXERCISES if row[key]} == status(report)
            assert row["passed"] == str(report["passed"]) and row["isolation"] == "bubblewrap"

    def test_in_any_order_the_marks_are_the_same(self, classroom, tmp_path):
        """Three shuffled orders of those that could touch each other, one after another in one thread."""
        reports, _, folder, _ = classroom
        files = [folder / f"{name}.ipynb" for name in ("ruin", "ada", "ben")]
        for seed in range(2):
            random.Random(seed).shuffle(files)
            out = tmp_path / str(seed)
            for report in grade.grade_class(files, out, jobs=1, seconds=3, memory=600):
                assert report["exercises"] == reports[report["submission"]]["exercises"]

    def test_a_run_goes_on_where_it_was_interrupted_and_late_work_is_added(self, classroom, tmp_path, monkeypatch):
        folder, out = classroom[2], tmp_path / "out"
        first, second, late = (folder / f"{name}.ipynb" for name in ("=1+1", "prose", "syntax"))
        for done, report in enumerate(grade.grade_class([first, second], out, jobs=1)):
            if not done:
                assert report["submission"] in (out / "class.csv").read_text()  # after each submission
                break
        before = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
        assert len(before) in (1, 2)
        list(grade.grade_class([first, second], out, jobs=1))
        assert len(graded(out)) == 2 and all(path.stat().st_mtime_ns == time for path, time in before.items())
        monkeypatch.setattr(grade.Grader, "judge", lambda *a: pytest.fail("what has not changed was graded again"))
        list(grade.grade_class([first, second], out))
        monkeypatch.undo()
        list(grade.grade_class([late], out, jobs=1))
        assert {row.split(",")[0] for row in (out / "class.csv").read_text().splitlines()[1:]} == {
            "'=1+1",
            "prose",
            "syntax",
        }

    def test_points_change_without_grading_again(self, classroom, tmp_path, monkeypatch):
        _, _, folder, _ = classroom
        list(grade.grade_class([folder / "syntax.ipynb"], tmp_path))
        monkeypatch.setattr(grade.Grader, "judge", lambda *a: pytest.fail("graded again"))
        list(grade.grade_class([folder / "syntax.ipynb"], tmp_path, marking=Marking(total=60)))
        assert graded(tmp_path)["syntax"]["max"] == 60


@needs_box
@pytest.mark.slow
def test_a_zip_file_of_moodles_is_graded_with_notebooks_that_are_owed(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as archive:
        for name, number in (("Ada B", 101), ("Bo E", 102)):
            path = notebook(tmp_path / f"{number}.ipynb", IMPORTS, *(RIGHT[each] for each in FIRST))
            archive.write(path, f"{name}_{number}_assignsubmission_file_/00.ipynb")
    roster = tmp_path / "roster.csv"
    roster.write_text(
        "Identifier,Full name,Grade\nParticipant 101,Ada B,\nParticipant 102,Bo E,\nParticipant 103,Cy F,\n"
    )
    options = ["--notebooks", "00", "01", "--format", "moodle", "--roster", str(roster), "--total", "10"]
    assert main(["grade", str(tmp_path / "class.zip"), "--out", str(tmp_path / "out"), *options]) == 0
    assert "[2/2]" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "moodle.csv").open(encoding="utf-8-sig")))
    assert [row["Grade"] for row in rows][2] == "" and 0 < float(rows[0]["Grade"]) == float(rows[1]["Grade"]) < 10


def test_what_python_parses_is_parsed_by_one_thread(monkeypatch):
    """Python 3.11's parser counts its depth once for all threads: parsing in two of them ends in a SystemError."""
    grade.known_shapes.cache_clear()
    grade.Grader(None, 60, 512, ())
    monkeypatch.setattr(ast, "parse", lambda *a, **k: pytest.fail("parsed by a thread of the grader"))
    assert grade.flags("dts_matrix", {"library": [], "seldom": [], "size": 99, "shape": "none"}) == []


# --- the parts ---


def test_an_out_folder_in_use_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grade, "engine", lambda unsafe: Engine("none"))
    (tmp_path / "class.csv").write_text("last year's")
    assert main(["grade", "a.ipynb", "--out", str(tmp_path)]) == 1
    assert "class.csv: exists already; pass --overwrite" in capsys.readouterr().err
    assert main(["grade", "none.ipynb", "--out", str(tmp_path), "--overwrite"]) == 0
    assert "there is no such file" in (tmp_path / "class.csv").read_text()


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": float("nan")}, {"memory": 0}, {"jobs": 0}])
def test_limits_that_are_none_are_refused(tmp_path, limits):
    with pytest.raises(DTSError, match="above zero"):
        list(grade.grade_class([Path("a.ipynb")], tmp_path, **limits))


def test_where_no_box_can_be_made_nothing_is_graded(tmp_path, capsys, monkeypatch):
    def none(unsafe):
        raise DTSError("no box can be made: bubblewrap is not installed")

    monkeypatch.setattr(grade, "engine", none)
    assert main(["grade", "a.ipynb", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_unsafe_is_loud_and_every_report_says_so(tmp_path, capsys):
    path = notebook(tmp_path / "own.ipynb", IMPORTS, RIGHT["half_width"])
    assert main(["grade", str(path), "--out", str(tmp_path / "out"), "--unsafe"]) == 0
    assert capsys.readouterr().err.count("UNSAFE") == 2
    report = graded(tmp_path / "out")["own"]
    assert report["isolation"] == "none" and status(report)["half_width"] == "passed"
    assert ",none," in (tmp_path / "out" / "class.csv").read_text()
    assert "Graded without a box" in (tmp_path / "out" / "own.html").read_text()


class Answering:
    """A box that gives one reply."""

    def __init__(self, reply):
        self.reply = reply

    def ask(self, message, seconds):
        return self.reply


GOOD = {"storages": [], "things": [], "value": 1}


@pytest.mark.parametrize(
    "reply",
    [[], 3, None, "x", {"value": 3}, {"value": {}}, {"raised": 3}, {"raised": ["a"]}, {"value": GOOD | {"value": [1]}}],
    ids=repr,
)
def test_a_reply_of_no_known_form_stops_the_function(reply):
    with pytest.raises(Lost, match="no known form"):
        grade.Remote(Answering(reply), "f", 1e18)()


def test_an_exception_comes_back_by_its_name_and_never_as_one_that_means_something_here():
    for kind in ("ValueError", "Lost", "NotAttempted", "KeyboardInterrupt", "a b\n", ""):
        with pytest.raises(Exception, match="why") as raised:
            grade.Remote(Answering({"raised": [kind, "why", "x = 1"]}), "f", 1e18)()
        assert raised.value.__notes__ == ["your line: x = 1"]
    assert grade.Remote(Answering({"value": GOOD}), "f", 1e18)() == 1


def test_a_library_function_and_a_solution_are_flagged_and_short_ones_not():
    shapes = {source: shape for shape, source in grade.known_shapes().items()}
    about = {"shape": shapes["the published solution of best_cut"], "size": 99, "library": [], "seldom": []}
    assert grade.flags("best_cut", about) == ["is the published solution of best_cut, names aside"]
    assert grade.flags("best_cut", about | {"size": 20}) == []
    assert any(source.startswith("the library's dts_mini.core.") for source in shapes)
    library = {"shape": "", "size": 99, "library": ["dts_mini.core.tensor.scale"], "seldom": ["eval", "os"]}
    assert grade.flags("best_cut", library) == ["takes dts_mini.core.tensor.scale from the library", "uses eval, os"]
    given = {"shape": "", "size": 9, "library": ["dts_mini.core.paper.dts"], "seldom": []}  # its notebook hands it out
    assert grade.flags("remainder", given) == [] and len(grade.flags("best_cut", given)) == 1


def test_a_box_that_does_not_start_is_no_submissions_fault(tmp_path, monkeypatch):
    """Not even three of them: the run ends with the reason, and goes on when it is given again."""
    monkeypatch.setattr(grade, "engine", lambda unsafe: Engine("none"))
    monkeypatch.setattr(sandbox, "BOOT", "import sys\nsys.exit('no memory')")
    path = notebook(tmp_path / "ada.ipynb", RIGHT["half_width"])
    with pytest.raises(DTSError, match=r"a box did not start: .*no memory"):
        list(grade.grade_class([path], tmp_path / "out"))
    assert grade.before(tmp_path / "out") == {}


@needs_box
@pytest.mark.slow
def test_an_interrupt_ends_the_boxes_and_does_not_wait_for_them(tmp_path):
    loop = notebook(tmp_path / "loop.ipynb", body("head_of", "while True:\n    pass"))
    quick = tmp_path / "none.ipynb"
    run = grade.grade_class([quick, loop], tmp_path / "out", jobs=2, seconds=60)
    assert next(run)["submission"] == "none"
    begun = time.monotonic()
    run.close()  # as Ctrl-C does
    assert time.monotonic() - begun < 20 and list(grade.before(tmp_path / "out")) == ["none"]


def test_a_submission_of_too_many_notebooks_is_read_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "LARGEST", 1000)
    monkeypatch.setattr(grade.Grader, "judge", lambda self, report, files, reasons: None)
    for number in range(9):
        notebook(tmp_path / "ada" / f"{number}.ipynb", "x" * 400)
    (one,) = submissions.gather([tmp_path])
    grader = grade.Grader(grade.Boxes(Engine("none"), 1), 1, 1, ())
    report = grader.report(one, None)
    assert len(report["files"]) == 1 and "of notebooks: 1.ipynb and later ones were left" in report["reason"]


def test_reports_of_others_in_the_folder_are_left_alone(tmp_path):
    for name, text in {"a": "{}", "b": "[", "c": '{"submission": "x"}', "d": "3"}.items():
        (tmp_path / f"{name}.json").write_text(text)
    assert grade.before(tmp_path) == {} and os.listdir(tmp_path)
