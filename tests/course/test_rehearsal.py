"""The teacher's test run: thirty submissions with the marks that they must get, and a difference is told."""

import pytest

from dts_mini.cli import main
from dts_mini.core.errors import DTSError
from dts_mini.course import rehearsal
from dts_mini.course.rehearsal import FIRST, HOSTILE, NAMES
from dts_mini.course.sandbox import engine
from dts_mini.course.submissions import gather

try:
    REASON = str(engine()) and ""
except DTSError as error:
    REASON = str(error)
needs_notebooks = pytest.mark.skipif(
    not (rehearsal.NOTEBOOKS / "solved" / f"{FIRST}.ipynb").exists(), reason="the notebooks are not built"
)


@needs_notebooks
def test_thirty_are_packed_as_moodle_packs_them_and_one_more_is_on_the_roster(tmp_path):
    class_ = rehearsal.pack(tmp_path)
    works = gather([tmp_path / "submissions.zip"])
    assert len(class_) == len(works) == 30 and len(rehearsal.marking(tmp_path).roster) == 31
    assert {one.id for one in works} == {str(number) for number in range(101, 131)}
    assert {one.name for one in class_} >= set(HOSTILE) and len(HOSTILE) >= 10


def report(number: int, one, **other) -> dict:
    found = {"id": str(number), "passed": one.passed, "reason": one.reason}
    return found | {"exercises": {NAMES[0]: {"status": one.status}} if one.status else {}} | other


@needs_notebooks
def test_a_mark_that_is_wrong_and_a_file_that_was_written_are_told(tmp_path):
    class_ = rehearsal.pack(tmp_path)
    right = {one.name: report(number, one) for number, one in enumerate(class_, 101)}
    assert rehearsal.differences(class_, right, tmp_path) == []
    bought = report(121, class_[20], passed=3)
    assert "Reads your files: must have 0 passed" in rehearsal.differences(class_, right | {"x": bought}, tmp_path)[0]
    (tmp_path / "written").touch()
    assert rehearsal.differences(class_, right, tmp_path) == ["written: was written by a submission"]
    assert len(rehearsal.differences(class_, {}, tmp_path)) == 31


@needs_notebooks
@pytest.mark.slow
@pytest.mark.skipif(bool(REASON), reason=f"the test run needs boxes: {REASON}")
def test_the_command_grades_and_compares(tmp_path, monkeypatch, capsys):
    """With five of the thirty."""
    every = rehearsal.made
    chosen = ("Ada Byron", "Began", "A letter", "Forks", "Writes its own marks")
    monkeypatch.setattr(rehearsal, "made", lambda here: (one for one in every(here) if one.name in chosen))
    assert main(["rehearse", "--out", str(tmp_path / "run"), "--seconds", "5"]) == 0
    assert "all marks are as they must be" in capsys.readouterr().out
    assert (tmp_path / "run" / "graded" / "moodle.csv").exists()
    assert main(["rehearse", "--out", str(tmp_path / "run")]) == 1
    assert "name a folder that is not there" in capsys.readouterr().err
