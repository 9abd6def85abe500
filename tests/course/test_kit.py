"""The instructor's kit: its generated parts are the course's own, its sums are right, and every printed command works."""

import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from dts_mini import cli
from dts_mini.core.errors import DTSError
from dts_mini.course import grade, kit, launch
from dts_mini.course.build import NOTEBOOKS
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.sandbox import ALLOW, engine

ROOT = Path(__file__).resolve().parents[2]
TEXT = (NOTEBOOKS / "instructor.md").read_text()
ROUTES = re.findall(r"^<!-- route (\d+: .+?) -->$", TEXT, re.MULTILINE | re.DOTALL)
SOLVED = sorted((NOTEBOOKS / "solved").glob("[0-9]*.ipynb"))

PROSE = """# 03 · Toy

After this you can *count*.

> **Goals.** None.
>
> **Time.** 10 minutes to
> read, 9 for the exercises. Needs no network.

## Step 1 · One $x$

## Step 2 · Two
### Exercise 1 · First (easy, 4 minutes)

Count.
"""
QUIZ = """## Quiz

**1.** Is $1 < 2$?

<details><summary>Answer</summary>

*Yes.*
</details>

**2.** And 3?

<details><summary>Answer</summary>

No.
</details>
"""


def count(x):
    return x


@pytest.fixture
def toy(tmp_path) -> kit.Lesson:
    cells = [
        new_markdown_cell(PROSE),
        new_code_cell("def count(x):\n    return x", metadata={"tags": ["exercise"]}),
        new_markdown_cell("## Step 3 · Three\n\n### Exercise 2 · Second (hard, 5 minutes)"),
        new_code_cell("1 + 1"),
        new_code_cell("def head_of(x):\n    return x", metadata={"tags": ["exercise"]}),
        new_markdown_cell(QUIZ),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "03_toy.ipynb")
    return kit.lesson(tmp_path / "03_toy.ipynb", EXERCISES)


@pytest.fixture(scope="module")
def course() -> list[kit.Lesson]:
    return [kit.lesson(path, EXERCISES) for path in SOLVED]


def cells(text: str) -> list[list[str]]:
    rows = BeautifulSoup(text, "html.parser").select("tr")
    return [[" ".join(cell.get_text(" ").split()) for cell in row.select("td, th")] for row in rows]


# --- what is read from a notebook ---


def test_a_lesson_holds_what_its_notebook_says(toy):
    assert (toy.file, toy.title, toy.minutes, toy.number) == ("03_toy.html", "03 · Toy", 10, "03")
    assert toy.steps == {1: "One $x$", 2: "Two", 3: "Three"}
    assert toy.tasks[1] == kit.Task(1, "First", "easy", 4, "count")
    assert toy.quiz == [(1, "Is $1 < 2$?", "*Yes.*"), (2, "And 3?", "No.")]


def test_an_exercise_that_is_registered_has_its_own_minutes_whatever_the_heading_says(toy):
    registered = EXERCISES["head_of"]
    assert (toy.tasks[2].difficulty, toy.tasks[2].minutes) == (registered.difficulty, registered.minutes)


@pytest.mark.parametrize("path", SOLVED, ids=lambda path: path.stem)
def test_every_notebook_says_its_minutes_and_its_headings_those_of_its_exercises(path):
    lesson, plain = kit.lesson(path, EXERCISES), kit.lesson(path, {})
    assert lesson.minutes > 0 and lesson.steps
    names = {exercise.name for exercise in EXERCISES.values() if exercise.notebook == path.stem}
    assert {task.name for task in lesson.tasks.values()} == names
    assert list(lesson.tasks) == list(range(1, len(names) + 1))
    assert lesson.tasks == plain.tasks, "the headings say other minutes than the exercises"
    text = " ".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    stated = re.search(r"minutes to\s+(?:> )?read, (?:about )?(\d+)", text)
    assert stated is None or int(stated[1]) == lesson.practice, "the box says other minutes than the exercises"


# --- routes ---


def test_a_route_counts_the_share_of_the_steps_and_the_minutes_of_its_exercises(toy):
    *_, stop, total = cells(kit.route("60: 03 steps 1, 3 exercises 1", [toy]))
    assert stop == ["03 · Toy", "Step 1 · One x Step 3 · Three", "Exercise 1 · First (4)", "11"]  # 10 * 2/3 up, and 4
    assert total[0] == "in all" and total[-1] == "11"


def test_a_notebook_that_is_not_built_is_left_out_of_a_route(toy):
    assert len(cells(kit.route("60: 02 steps 1; 03 steps 1", [toy]))) == 3


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("60: 03 steps 4", "route 60, notebook 03: there is no step or exercise 4; there are [1, 2, 3]"),
        ("60: 03 steps 1 exercises 3", "there is no step or exercise 3"),
        ("60: three", "'three' is no stop"),
        ("10: 03 steps 1, 2, 3 exercises 1", "route 10: its parts take 14 minutes"),
    ],
)
def test_a_route_that_cannot_be_gone_is_refused(toy, about, message):
    with pytest.raises(DTSError, match=re.escape(message)):
        kit.route(about, [toy])


def test_there_are_routes_of_an_hour_of_ninety_minutes_and_of_three_hours():
    assert [int(about.split(":")[0]) for about in ROUTES] == [60, 90, 180]


@pytest.mark.parametrize("about", ROUTES, ids=lambda about: about.split(":")[0])
def test_the_courses_routes_fill_their_time_and_their_sums_are_right(course, about):
    limit = int(about.split(":")[0])
    assert len(re.findall(r"\b\d\d(?= steps|;|$)", about.partition(":")[2])) == len(cells(kit.route(about, course))) - 2
    _, *stops, total = cells(kit.route(about, course))
    assert sum(int(stop[-1]) for stop in stops) == int(total[-1])
    assert 0.75 * limit <= int(total[-1]) <= limit
    by_title = {" ".join(BeautifulSoup(each.link, "html.parser").get_text().split()): each for each in course}
    for title, steps, tasks, minutes in stops:
        lesson = by_title[title]
        worked = sum(lesson.tasks[int(n)].minutes for n in re.findall(r"Exercise (\d)", tasks))
        read = lesson.minutes * len(re.findall(r"Step \d", steps)) / len(lesson.steps)
        assert worked + read <= int(minutes) < worked + read + 1


# --- mistakes and answers ---


def test_the_mistakes_of_every_exercise_are_on_the_page_with_their_code_and_hint(course):
    page = BeautifulSoup(kit.mistakes(course, EXERCISES), "html.parser")
    tables = page.select("table")
    placed = [EXERCISES[task.name] for each in course for task in each.tasks.values()]
    for exercise, table in zip(placed, tables, strict=True):
        rows = {row[0]: row for row in cells(str(table))[1:]}
        for symptom, text in exercise.hints:
            assert rows[symptom][2].replace(" ", "") == text.replace("`", "").replace(" ", "")
            assert rows[symptom][1] or symptom not in exercise.wrong, f"{exercise.name}: no code of {symptom!r}"


def test_a_mistakes_code_is_its_own():
    def inner(x):
        """Doubles."""
        y = 2 * x
        return y

    pair = {"one": lambda x: x + 1, "two": lambda x: (lambda y: y)(x)}
    shown = lambda mistake: html.unescape(kit.wrote(mistake))
    assert shown(inner) == "<code>y = 2 * x\nreturn y</code>"
    assert shown(pair["one"]) == "<code>return x + 1</code>"
    assert shown(pair["two"]) == "<code>return (lambda y: y)(x)</code>"
    assert (kit.wrote(None), kit.wrote(abs)) == ("", "<code>abs</code>")


def _half(x):
    return x / 2


def test_private_functions_that_mistakes_share_are_shown_once():
    text = BeautifulSoup(kit.helpers([lambda x: _half(x), lambda x: [_half(y) for y in x]]), "html.parser").get_text()
    assert text.count("def _half(x):") == 1 and kit.helpers([count]) == ""


@pytest.mark.parametrize("path", SOLVED, ids=lambda path: path.stem)
def test_every_quiz_has_three_questions_and_their_answers_are_found(path):
    lesson = kit.lesson(path, EXERCISES)
    assert [number for number, _, _ in lesson.quiz] == [1, 2, 3]
    assert all(len(answer) > 10 for *_, answer in lesson.quiz)
    shown = BeautifulSoup(kit.quiz([lesson]), "html.parser").get_text()
    assert "Answer" not in shown and len(shown) > 200


def test_an_unknown_place_is_refused(toy):
    with pytest.raises(DTSError, match=r"\[lunch\] is no place: choose overview, mistakes, quiz, route"):
        kit.fill("[lunch]", [toy], EXERCISES)


# --- grading: what is printed works ---


def commands(word: str) -> list[str]:
    blocks = re.findall(r"^ *```sh\n(.+?)^ *```", TEXT, re.MULTILINE | re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if word in line]


def unboxed() -> list[str]:
    """What a command needs on a machine that makes no boxes."""
    try:
        engine()
    except DTSError:
        return ["--unsafe"]
    return []


@pytest.mark.slow
def test_the_grading_commands_work_and_write_what_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "submissions").mkdir()
    shutil.copyfile(NOTEBOOKS / "solved/00_start_here.ipynb", "submissions/ada.ipynb")
    shutil.copyfile(NOTEBOOKS / "00_start_here.ipynb", "submissions/bob.ipynb")
    (tmp_path / "class.csv").write_text("Identifier,Full name,Grade\nParticipant 1,Ada,\nParticipant 2,Cleo,\n")
    lines = commands("dts-mini grade submissions")
    said = []
    for program, *arguments in map(shlex.split, lines):
        assert program == "dts-mini" and cli.main([*arguments, *unboxed()]) == 0
        said.append(capsys.readouterr().out)
    of = sum(exercise.notebook == "00_start_here" for exercise in EXERCISES.values())
    assert f"ada: {of} of {of}, " in said[0] and len(lines) == 4
    names = {f"{name}.{kind}" for name in ("ada", "bob") for kind in ("json", "html")} | {"class.csv", "moodle.csv"}
    assert {path.name for path in Path("graded").iterdir()} == names
    report = json.loads(Path("graded/ada.json").read_text())
    documented = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", TEXT.partition("### After each lesson")[2], re.MULTILINE)
    assert [key for row in documented for key in re.findall(r"\w+", row)] == list(report)
    entries = re.search(r"^\| `exercises` \|.+$", TEXT, re.MULTILINE)[0]
    assert set(re.findall(r"`(\w+)`", entries)) == {"exercises", *report["exercises"]["head_of"]}


def test_the_test_run_is_a_command():
    (line,) = commands("dts-mini rehearse")
    assert cli._parser().parse_args(shlex.split(line)[1:]).command == "rehearse"


def test_the_limits_that_are_said_are_those_of_grading():
    options = cli._parser().parse_args(["grade", "a.ipynb", "--out", "b"])
    assert (options.seconds, options.memory, grade.LOSSES, grade.PATIENCE) == (10, 1024, 3, 5)
    text = " ".join(TEXT.split())
    assert "Each exercise has 10 seconds, all of a submission five times that, and memory of 1 GiB" in text
    assert "After three stopped functions" in text
    source = Path(grade.__file__).read_text() + Path(kit.__file__).with_name("exercise.py").read_text()
    for status in re.findall(r"`([a-z ]+)`", re.search(r"^A `status` is .+?\n\n", TEXT, re.M | re.S)[0])[1:]:
        assert f'"{status}"' in source
    for part, _ in ALLOW.items():
        assert f"`{part}" in TEXT


# --- an exercise of one's own ---


def example() -> dict[str, str]:
    """The files of the worked example, by path."""
    found = re.findall(
        r"`((?:dts_mini|notebooks)/[\w/]+\.py)`[^`]*?(?:`exercise`[^`]*?)?:\n\n```python\n(.+?)```", TEXT, re.DOTALL
    )
    return dict(found)


@pytest.mark.slow
@pytest.mark.zoo
def test_the_worked_example_can_be_followed_from_its_files_to_its_grade(tmp_path):
    assert list(example()) == ["dts_mini/course/exercises/nb20_lab.py", "notebooks/source/20_lab.py"]
    for name in ("dts_mini", "tests", "data"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    (tmp_path / "notebooks/source").mkdir(parents=True)
    for path, text in example().items():
        (tmp_path / path).write_text(text)
    space = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    said = []
    for line in commands("build 20") + commands("worst_hit") + commands("20_lab"):
        program, *arguments = shlex.split(line)
        start = [sys.executable] if program == ".venv/bin/python" else [sys.executable, "-m", "dts_mini"]
        arguments += unboxed() if arguments[0] == "grade" else []
        done = subprocess.run([*start, *arguments], cwd=tmp_path, env=space, capture_output=True, text=True)
        assert not done.returncode, f"{line}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    learner = nbformat.read(tmp_path / "notebooks/20_lab.ipynb", as_version=4)
    assert "raise NotImplementedError" in learner.cells[3].source
    assert learner.cells[4].outputs[0].text == "not attempted yet\ngoing on with the solution\n"
    solved = nbformat.read(tmp_path / "notebooks/solved/20_lab.ipynb", as_version=4)
    assert solved.cells[4].outputs[0].text == "passed, 3 checks\n"
    assert re.search(r"\b\d+ passed", said[1]) and not re.search(r"failed|skipped", said[1])
    assert "20_lab: 0 of 1" in said[2]


# --- Binder and Colab ---


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('repository-code: "https://github.com/them/the-course"', "them/the-course"),
        ("repository-code: https://github.com/them/course.git", "them/course"),
        ("repository-code: https://example.org/them/course", None),
        ("title: no address", None),
    ],
)
def test_the_repository_is_what_citation_cff_says(tmp_path, line, found):
    (tmp_path / "CITATION.cff").write_text(f"cff-version: 1.2.0\n{line}\ntype: software\n")
    assert launch.repository(tmp_path / "CITATION.cff") == found
    assert launch.repository(tmp_path / "none.cff") is None


def test_the_readme_has_the_badges_that_the_address_allows():
    readme = (ROOT / "README.md").read_text()
    assert launch.fill(readme, launch.badges(launch.repository())) == readme
    assert readme.count("<!-- launch -->") == 1
    known = launch.badges("them/course")
    assert known.count("[![Open in ") == 2 and "/gh/them/course/HEAD?urlpath=lab/tree/notebooks)" in known


def test_colabs_cell_is_two_lines_that_fetch_and_install():
    fetch, enter = launch.colab_cell("them/course").splitlines()
    assert "https://github.com/them/course" in fetch and "pip install" in fetch and enter.startswith("%cd ")
    assert "ADDRESS" in launch.colab_cell(None)


def test_binder_installs_the_pinned_notebooks_and_names_no_host():
    lines = [line for line in (ROOT / ".binder/requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["-c ../constraints.txt", "-e .[notebooks,full]"]  # notebook 13 needs transformers
    assert (ROOT / ".binder/runtime.txt").read_text().strip() == "python-3.12"
    for path in (ROOT / ".binder").iterdir():
        assert not re.search(r"://|index-url|find-links|\b[\w-]+\.(org|com|io|net)\b", path.read_text())
