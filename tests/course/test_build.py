"""The build: one source gives the learner's and the solved notebook, and it is told when they drift apart."""

import ast
import inspect
import json
import re

import jupytext
import nbformat
import pytest

from dts_mini.course import build, claims
from dts_mini.course.build import drifted, function_of, is_exercise, read, sources, stub, target
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.folding import folded

SOURCES = pytest.mark.parametrize("source", sources(), ids=lambda source: source.stem)
SMALL = '''# %% [markdown]
# # A title

# %%
import math

# %% tags=["exercise"]
def area(r: float) -> float:
    """Radius -> area."""
    # the secret comment
    secret = math.pi
    return secret * r**2


# %%
print("area" in dir())

# %%
from dts_mini.course import claim

claim("10-area", "The circle is at least three units large.", 3.5, low=3)
'''


def exercise_cells(source) -> list[str]:
    return [cell.source for cell in read(source).cells if is_exercise(cell)]


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one small notebook, in a folder of its own."""
    (tmp_path / "source").mkdir()
    monkeypatch.setattr(build, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(build, "VERSIONS", {"learner": tmp_path, "solved": tmp_path / "solved"})
    monkeypatch.setattr(claims, "PATH", tmp_path / "claims.json")
    path = tmp_path / "source" / "07_small.py"
    path.write_text(SMALL)
    return path


# --- stubs ---


def test_a_stub_keeps_imports_decorators_signature_and_docstring():
    code = '''import math
from functools import cache  # why not


@cache
def f(
    x: float,  # a radius
    n: int = 3,
) -> float:
    """One line.

    And (n, m) shapes: see there.
    """

    # the solution begins
    y = x

    return y * n'''
    kept = code[: code.index("\n\n    # the solution")]
    assert stub(code) == f"{kept}\n    raise NotImplementedError"


@pytest.mark.parametrize("signature", ["def f(x):", "def f(\n    x={':': 1},\n) -> dict:", "def f(x): # a ( comment"])
def test_a_function_without_a_docstring_is_cut_after_its_signature(signature):
    assert stub(f"{signature}\n    # secret\n    return x") == f"{signature}\n    raise NotImplementedError"


@pytest.mark.parametrize(
    "code",
    [
        "x = 1",
        "def f():\n    return 1\n\n\nf()",
        "def f():\n    return 1\n\n\ndef g():\n    return 1",
        "class A:\n    pass",
        "import math",
        "def f(): return 1",
        'def f():\n    """Only this."""',
    ],
)
def test_a_cell_that_is_no_exercise_is_refused(code):
    with pytest.raises(ValueError):
        stub(code)


@SOURCES
def test_the_learners_version_differs_in_the_bodies_alone(source):
    solved, learner = read(source).cells, read(source, "learner").cells
    assert [cell.id for cell in solved] == [cell.id for cell in learner]
    for ours, theirs in zip(solved, learner, strict=True):
        if not is_exercise(ours):
            assert ours.source == theirs.source
            continue
        with_body, without = function_of(ours.source), function_of(theirs.source)
        assert ast.unparse(without.body[-1]) == "raise NotImplementedError"
        assert ast.get_docstring(without) == ast.get_docstring(with_body)
        without.body = with_body.body
        assert ast.dump(without) == ast.dump(with_body)


# --- solutions and exercises are one ---


@SOURCES
def test_the_solution_in_the_source_is_the_reference_of_the_exercise(source):
    for code in exercise_cells(source):
        function = function_of(code)
        reference = EXERCISES[function.name].reference
        assert ast.dump(function) == ast.dump(function_of(inspect.getsource(reference))), function.name


def test_every_exercise_has_one_cell_in_its_notebook_and_is_checked_in_the_next():
    cells = {(source.stem, function_of(code).name) for source in sources() for code in exercise_cells(source)}
    assert cells == {(exercise.notebook, name) for name, exercise in EXERCISES.items()}
    for source in sources():
        code = [cell for cell in read(source).cells if cell.cell_type == "code"]
        for cell, following in zip(code, [*code[1:], None], strict=True):
            if is_exercise(cell):
                name = function_of(cell.source).name
                assert following.source == f'{name} = check({name})\n# hint("{name}")'


@SOURCES
def test_the_prose_names_difficulty_and_minutes_of_each_exercise(source):
    text = "\n".join(cell.source for cell in read(source).cells if cell.cell_type == "markdown")
    for exercise in EXERCISES.values():
        if exercise.notebook == source.stem:
            assert f"({exercise.difficulty}, {exercise.minutes} minutes)" in text, exercise.name


# --- folding ---

PLUMBING = """# %% [markdown]
# # A title

# %%
import torch
from dts_mini.course import figures
suite, sizes = load_suite("mini"), (1, 2)

# %%
import torch
tau = suite.expert("signs") - torch.ones(3)

# %%
figure, data = figures.triangle(suite.pretrained())
show(figure)

# %%
share = data["share"]
for name in sizes:
    claim(f"07-{name}", "It is small.", share[name], high=1)

# %%
codes = threshold(tau)
claim("07-codes", "They are four.", codes.max(), high=3)

# %%
print(codes.tolist())

# %%
def mine(x):
    return x

claim("07-mine", "It is.", mine(1), high=3)

# %%
codes = mine(tau)
total = sum(codes for codes in codes)
claim("07-sum", "It is.", total, high=3)

# %%
print(mine(3))
claim("07-three", "It is.", mine(3), high=3)

# %% tags=["answer"]
print("1/N")

# %%
show(figures.triangle(total=mine(tau)))
"""


def test_what_sets_up_or_could_be_left_out_is_folded():
    cells = jupytext.reads(PLUMBING, fmt="py:percent").cells
    for number, cell in enumerate(cells):
        cell.id = str(number)
    assert folded(cells) == {
        "1": "set-up",  # not 2: it computes
        "3": "figure",  # what it makes is used by a check alone
        "4": "check",  # not 5: its codes are printed
        "8": "check",  # not 7: it holds a function; not 9: it prints
        "10": "answer",
        "11": "figure",
    }


def test_the_learners_version_hides_plumbing_and_shows_no_answer(course):
    course.write_text(SMALL + '\n\n# %% tags=["answer"]\nprint(area(2))\n')
    for version, hidden in (("solved", []), ("learner", ["07-001", "07-004", "07-005"])):
        cells = read(course, version).cells
        assert [cell.id for cell in cells if cell.metadata.get("jupyter") == {"source_hidden": True}] == hidden
        tags = cells[-1].metadata.tags
        assert ("nbval-ignore-output" in tags) == (version == "learner") and "answer" in tags
        notebook = read(course, version)
        notebook.cells[-1].outputs = notebook.cells[3].outputs = [nbformat.v4.new_output("stream", text="12.6")]
        build.settle(notebook, version)
        assert [len(notebook.cells[at].outputs) for at in (-1, 3)] == ([1, 1] if version == "solved" else [0, 1])


@SOURCES
def test_no_exercise_and_no_function_is_folded(source):
    cells = {cell.id: cell for cell in read(source).cells}
    for ident, kind in folded(list(cells.values())).items():
        assert not is_exercise(cells[ident])
        assert kind == "answer" or not any(isinstance(n, ast.FunctionDef) for n in ast.parse(cells[ident].source).body)


@pytest.mark.parametrize(
    "source", [each for each in sources() if each.stem[:2] <= "06"], ids=lambda source: source.stem
)
def test_what_is_to_be_predicted_is_asked_before_it_is_shown_and_what_comes_out_is_folded(source):
    cells = read(source).cells
    for number, cell in enumerate(cells):
        if cell.cell_type != "markdown":
            continue
        if re.search(r"\*\*Predict\b[^*]*\*\*", cell.source):
            assert any("answer" in each.metadata.get("tags", []) for each in cells[number + 1 : number + 8]), (
                cell.source
            )
        if "What do you expect?" in cell.source:
            following = next(each for each in cells[number + 1 :] if each.cell_type == "code")
            assert "answer" in following.metadata.get("tags", []), cell.source


@SOURCES
def test_a_step_that_can_be_skipped_says_so_in_one_way(source):
    for cell in read(source).cells:
        for heading in (line for line in cell.source.splitlines() if cell.cell_type == "markdown" and line[:1] == "#"):
            assert "skip" not in heading or re.fullmatch(r"## Step \d+ · .+ \(can be skipped at first\)", heading), (
                heading
            )


# --- building ---


@SOURCES
def test_reading_twice_gives_the_same_notebook(source):
    for version in build.VERSIONS:
        assert nbformat.writes(read(source, version)) == nbformat.writes(read(source, version))
    ids = [cell.id for cell in read(source).cells]
    assert ids == [f"{source.stem[:2]}-{number:03d}" for number in range(len(ids))]
    nbformat.validate(read(source))


@pytest.mark.slow
def test_building_makes_both_versions_and_records_claims_and_again_the_same_bytes(course, capfd):
    claims.PATH.write_text(json.dumps({"claims": [{"name": "08-gone", "notebook": "08_gone"}], "provenance": {}}))
    assert build.main(["--check"]) == 1
    assert "07_small, learner: differs" in (out := capfd.readouterr().out) and "07_small, solved: differs" in out
    assert build.main([]) == 0
    paths = [*(target(course, version) for version in ("learner", "solved")), claims.PATH]
    first = [path.read_bytes() for path in paths]
    assert [b"secret" in data for data in first] == [False, True, False]
    assert all(b'"True\\n"' in data for data in first[:2])  # executed, outputs stored
    assert all(b"iopub" not in data for data in first)  # no time stamps
    (found,) = claims.recorded(claims.PATH)
    assert (found["name"], found["notebook"], found["value"]) == ("10-area", "07_small", 3.5)
    assert json.loads(first[2])["provenance"]["07_small"]["python"]
    assert build.main([]) == 0
    assert [path.read_bytes() for path in paths] == first
    assert "encryption" not in capfd.readouterr().err  # what a kernel logs when it has none
    assert build.main(["--check"]) == 0
    assert capfd.readouterr().out == "all up to date\n"


def built_without_running(source) -> None:
    for version in build.VERSIONS:
        notebook = read(source, version)
        for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
            cell.execution_count = number
        target(source, version).parent.mkdir(exist_ok=True)
        nbformat.write(notebook, target(source, version))


@pytest.mark.parametrize(
    ("old", "new", "stale"),
    [
        ("A title", "Another", {"learner", "solved"}),
        ("secret * r**2", "r * secret * r", {"solved"}),
        ("Radius", "The radius", {"learner", "solved"}),
        ('print("area', 'print("are', {"learner", "solved"}),
        (' tags=["exercise"]', "", {"learner", "solved"}),
        ('"area" in dir()', '"area" in dir() or "b"', {"learner", "solved"}),
    ],
)
def test_a_change_of_the_source_is_drift_in_the_versions_that_show_it(course, old, new, stale):
    built_without_running(course)
    assert not any(drifted(course, version) for version in build.VERSIONS)
    course.write_text(SMALL.replace(old, new))
    assert {version for version in build.VERSIONS if drifted(course, version)} == stale


def test_a_built_notebook_that_was_edited_or_never_run_has_drifted(course):
    built_without_running(course)
    path = target(course)
    path.write_text(path.read_text().replace("A title", "My title"))
    assert drifted(course)
    built_without_running(course)
    path.write_text(path.read_text().replace('"execution_count": 1', '"execution_count": null'))
    assert drifted(course)
