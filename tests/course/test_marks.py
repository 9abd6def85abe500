"""Points, tables that a spreadsheet, Moodle and Canvas take, and a page that a student can read."""

import csv
import io
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from dts_mini.core.errors import DTSError, FileError
from dts_mini.course import marks
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.marks import Marking, cell, class_table, plain, rows, shown

EASY, HARD = "half_width", "best_cut"


def entry(status="passed", checks=4, of=4, **more) -> dict:
    return {"status": status, "message": "m", "call": "", "hint": None, "checks": checks, "of": of, "flags": []} | more


def report(name="ada", id="", reason="", **entries) -> dict:
    exercises = entries or {EASY: entry()}
    passed = sum(each["status"] == "passed" for each in exercises.values())
    found = {"submission": name, "id": id, "files": [], "passed": passed, "of": len(exercises), "reason": reason}
    found |= {"notes": [], "isolation": "bubblewrap", "digest": "", "exercises": exercises}
    return found | Marking().score(found)


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))


# --- points ---


@pytest.mark.parametrize(
    ("marking", "points", "most"),
    [
        (Marking(), 1, 4),
        (Marking(partial=True), 1 + 3 * 2 / 4, 4),
        (Marking(total=60), 15, 60),
        (Marking(points={HARD: 1}), 1, 2),
        (Marking(points={HARD: 0}, partial=True), 1, 1),
        (Marking(points={EASY: 5, HARD: 5}, partial=True, total=10), 7.5, 10),
    ],
)
def test_points_by_difficulty_by_table_by_checks_and_in_all(marking, points, most):
    found = report(**{EASY: entry(), HARD: entry("failed", checks=2)})
    assert marking.score(found) == {"points": points, "max": most}


def test_nothing_handed_in_is_no_points():
    empty = {**report(), "exercises": {}}
    assert Marking(total=60).score(empty) == {"points": 0, "max": 60} and Marking().score(empty)["max"] == 0


def test_points_are_read_from_a_table(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(f"exercise;points\n{EASY};2.5\n", encoding="utf-8-sig")  # as Excel writes it
    assert marks.read_points(path) == {EASY: 2.5}
    for text, word in (
        (f"{EASY},much", "give a number"),
        ("half,1", "no exercise 'half'"),
        (f"{EASY},-1", "from 0 on"),
    ):
        path.write_text(f"exercise,points\n{text}\n")
        with pytest.raises(FileError, match=word):
            marks.read_points(path)


def test_a_notebook_without_exercises_is_refused():
    marks.check_notebooks(["00", "03"])
    with pytest.raises(DTSError, match="--notebooks 55: there are exercises in 00, 01"):
        marks.check_notebooks(["55"])


# --- tables ---


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\t=1+1",
        "\r=1",
        " =1",
        "\n=1",
        "＝1",
        "\0=1",
        "=cmd|' /C calc'!A0",
        "­=1",
        "\x1b]0;x\x07",
    ],
)
def test_no_cell_is_a_formula_and_no_control_character_gets_out(text):
    found = cell(text)
    assert not found.lstrip().startswith(marks.FORMULA) and found.isprintable()


def test_text_for_a_terminal_tells_what_does_not_print():
    assert (
        shown("a\nb\x1b[0m") == "a\\nb\\x1b[0m" and shown("\ud800") == "\\ud800" and shown("Müller → 3") == "Müller → 3"
    )


def test_the_class_has_a_row_a_student_and_a_column_an_exercise():
    reports = {
        "ada": report("ada", **{EASY: entry()}),
        "=bob": report("=bob", reason="a\nb", **{HARD: entry("failed", checks=0, flags=["is copied"])}),
    }
    head, *found = read(class_table(rows(reports, Marking())))
    assert head == ["submission", "id", "points", "max", "passed", "of", EASY, HARD, "flags", "isolation", "reason"]
    by_name = {row[0]: dict(zip(head, row, strict=True)) for row in found}
    assert by_name["ada"] | {EASY: "passed", HARD: "", "points": "1", "max": "1"} == by_name["ada"]
    assert by_name["'=bob"]["flags"] == "best_cut is copied" and by_name["'=bob"]["reason"] == "a\\nb"


def test_excel_gets_its_mark_and_others_none():
    everybody = rows({"ada": report()}, Marking())
    assert class_table(everybody, excel=True)[:3] == b"\xef\xbb\xbf" and class_table(everybody)[:3] == b"sub"


ROSTER = {
    "Moodle's worksheet": (
        "Identifier,Full name,Email address,Status,Grade,Maximum grade,Feedback comments\n"
        "Participant 101,Ada Byron,ada@x.y,Submitted,,60,\nParticipant 102,Bo Ek,bo@x.y,,,60,\n",
        ("Ada Byron", "101"),
    ),
    "Canvas's gradebook": (
        "Student,ID,SIS User ID,SIS Login ID,Section\n    Points Possible,,,,\n"
        '"Byron, Ada",101,s1,ada,A\n"Ek, Bo",102,s2,bo,A\n',
        ("byronada", "101"),
    ),
    "names alone": ("First name;Last name\nAda;Byron\nBo;Ek\n", ("ada byron", "")),
    "a login": ("login,name\nadb1,Ada Byron\nboe2,Bo Ek\n", ("adb1", "")),
    "a mail address": ("mail,x\nada.byron@x.y,1\nbo.ek@x.y,2\n", ("ada.byron", "")),
}


@pytest.mark.parametrize("kind", ROSTER)
def test_students_are_found_on_the_roster_and_who_is_missing_has_a_row(tmp_path, kind):
    text, (name, id_) = ROSTER[kind]
    path = tmp_path / "roster.csv"
    path.write_text(text)
    marking = Marking(roster=marks.read_roster(path))
    everybody = rows({name: report(name, id_), "zoe": report("zoe")}, marking)
    found = [one["submission"] if one else None for row, one in everybody if "Points" not in str(row)]
    assert found == [name, None, "zoe"]
    table = read(class_table(everybody))
    assert table[-1][0] == "zoe" and "nothing was handed in" in [row[-1] for row in table]


def test_names_are_compared_without_accents_case_and_spaces():
    assert plain("  Zoë  de la Cruz ") == plain("zoedelacruz")


def test_moodles_worksheet_comes_back_filled_in(tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text(ROSTER["Moodle's worksheet"][0], encoding="utf-8-sig")
    marking = Marking(roster=marks.read_roster(path), format="moodle")
    reports = {"Ada Byron": report("Ada Byron", "101"), "zoe": report("zoe")}
    marks.write(reports, tmp_path, marking)
    data = (tmp_path / "moodle.csv").read_bytes()
    head, ada, bo = read(data)
    assert data[:3] == b"\xef\xbb\xbf" and head[:2] == ["Identifier", "Full name"] and "Grade" in head
    assert dict(zip(head, ada, strict=True))["Grade"] == "1" and dict(zip(head, bo, strict=True))["Grade"] == ""
    assert "1 of 1 exercises" in dict(zip(head, ada, strict=True))["Feedback comments"]


def test_moodle_without_a_roster_goes_by_the_numbers_of_the_participants(tmp_path):
    marks.write({"Ada": report("Ada", "101")}, tmp_path, Marking(format="moodle"))
    assert read((tmp_path / "moodle.csv").read_bytes())[1][:3] == ["Participant 101", "Ada", "1"]


def test_canvass_gradebook_has_a_column_of_points(tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text(ROSTER["Canvas's gradebook"][0])
    marking = Marking(roster=marks.read_roster(path), format="canvas", assignment="Lab 1 (55)")
    marks.write({"byronada": report("byronada", "101")}, tmp_path, marking)
    head, most, ada, bo = read((tmp_path / "canvas.csv").read_bytes())
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Lab 1 (55)"]
    assert most[0] == "    Points Possible" and most[-1] == "1"
    assert ada[:3] == ["Byron, Ada", "101", "s1"] and ada[-1] == "1" and bo[-1] == ""


def test_a_roster_without_rows_is_refused(tmp_path):
    (tmp_path / "r.csv").write_text("name\n")
    with pytest.raises(FileError, match="holds no rows"):
        marks.read_roster(tmp_path / "r.csv")


# --- the page ---


def test_a_page_says_what_failed_in_which_call_what_may_help_and_what_to_read_again():
    hint = EXERCISES[EASY].hints[0]
    wrong = entry("failed", 1, message="failed: expected 1, got 2", call="half_width(0.9, 400)", hint=hint[0])
    text = BeautifulSoup(marks.page(report(**{EASY: wrong, HARD: entry()})), "html.parser").get_text(" ")
    for word in ("expected 1, got 2", "half_width(0.9, 400)", *hint, "1 of 4 checks", "00_start_here, Step", "ada"):
        assert word in text
    assert "Graded without a box" not in text


def test_on_a_page_strangers_text_is_text():
    evil = "<script>alert(1)</script>\x1b"
    found = report(evil, reason=evil, **{EASY: entry("failed", message=evil, call=evil)})
    page = marks.page(found | {"notes": [evil]})
    assert "<script" not in page and "\x1b" not in page and page.count("&lt;script&gt;") >= 5


def test_a_page_says_when_there_was_no_box():
    assert "Graded without a box" in marks.page(report() | {"isolation": "none"})


@pytest.mark.parametrize("name", EXERCISES)
def test_what_to_read_again_is_a_step_of_the_notebook(name):
    if not (marks.NOTEBOOKS / f"{EXERCISES[name].notebook}.ipynb").exists():
        pytest.skip("the notebook is not built")
    assert marks.read_again(name).startswith(f"notebook {EXERCISES[name].notebook}, Step ")


def test_pages_and_tables_need_no_network(tmp_path):
    assert "http" not in marks.page(report()) and Path(marks.__file__).exists()
