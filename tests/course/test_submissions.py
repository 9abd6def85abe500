"""What was handed in becomes one submission a student, whatever the names, folders and archives are like."""

import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from dts_mini.core.errors import FileError
from dts_mini.course import submissions
from dts_mini.course.submissions import gather, named, readable, told_apart

DATA = json.dumps({"cells": []}).encode()


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DATA)
    return folder


def packed(path: Path | io.BytesIO, members: dict[str, bytes]) -> Path | io.BytesIO:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def told(*paths: Path) -> dict[str, list[str]]:
    return {one.name: sorted(file.name for file in one.files) for one in gather(paths)}


def ids(*paths: Path) -> dict[str, str]:
    return {one.name: one.id for one in gather(paths)}


LAYOUTS = {
    "files": (("ada.ipynb", "bob.ipynb"), {"ada": ["ada.ipynb"], "bob": ["bob.ipynb"]}),
    "a folder for each": (
        ("ada/00.ipynb", "ada/01.ipynb", "bob/00.ipynb"), {"ada": ["00.ipynb", "01.ipynb"], "bob": ["00.ipynb"]},
    ),
    "folders in folders": (("ada/lab/00.ipynb", "bob/x/y/00.ipynb"), {"ada": ["00.ipynb"], "bob": ["00.ipynb"]}),
    "Moodle's folders": (
        ("Ada Byron_101_assignsubmission_file_/lab.ipynb", "Bo_b Ek_102_assignsubmission_file/lab.ipynb"),
        {"Ada Byron": ["lab.ipynb"], "Bo_b Ek": ["lab.ipynb"]},
    ),
    "Moodle's files": (
        ("Ada Byron_101_assignsubmission_file_00.ipynb", "Ada Byron_101_assignsubmission_file_01.ipynb"),
        {"Ada Byron": ["Ada Byron_101_assignsubmission_file_00.ipynb", "Ada Byron_101_assignsubmission_file_01.ipynb"]},
    ),
    "Canvas's files": (
        ("byronada_7_9001_00.ipynb", "byronada_7_9002_01-1.ipynb", "ekbob_LATE_8_9003_00.ipynb"),
        {
            "byronada": ["byronada_7_9001_00.ipynb", "byronada_7_9002_01-1.ipynb"],
            "ekbob": ["ekbob_LATE_8_9003_00.ipynb"],
        },
    ),
    "what systems leave behind": (
        ("ada.ipynb", ".ipynb_checkpoints/ada-checkpoint.ipynb", "__MACOSX/._ada.ipynb", "._ada.ipynb", "notes.txt"),
        {"ada": ["ada.ipynb"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", LAYOUTS)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_or_a_zip_file_gives_one_submission_a_student(tmp_path, how, zipped):
    names, wanted = LAYOUTS[how]
    path = packed(tmp_path / "class.zip", dict.fromkeys(names, DATA)) if zipped else put(tmp_path / "class", *names)
    assert told(path) == wanted
    assert all(file.read() == DATA for one in gather([path]) for file in one.files)


def test_numbers_of_moodle_and_canvas_are_kept(tmp_path):
    put(tmp_path / "m", "Ada Byron_101_assignsubmission_file_/lab.ipynb")
    put(tmp_path / "c", "ekbob_LATE_8_9003_00.ipynb")
    assert ids(tmp_path / "m") == {"Ada Byron": "101"} and ids(tmp_path / "c") == {"ekbob": "8"}
    inner = packed(io.BytesIO(), {"x/00.ipynb": DATA}).getvalue()
    assert ids(packed(tmp_path / "z.zip", {"ekbob_8_9003_work.zip": inner})) == {"ekbob": "8"}
    assert ids(*(tmp_path / "c").iterdir()) == {"ekbob": "8"}  # named one by one, too


def test_two_students_of_one_name_are_two(tmp_path):
    put(tmp_path, "Ada B_1_assignsubmission_file_/lab.ipynb", "Ada B_2_assignsubmission_file_/lab.ipynb")
    assert ids(tmp_path) == {"Ada B": "1", "Ada B-2": "2"}


def test_a_folder_packed_as_a_whole_stands_for_its_zip_file(tmp_path):
    assert told(packed(tmp_path / "lab.zip", {"lab/ada.ipynb": DATA, "lab/bob.ipynb": DATA})).keys() == {"ada", "bob"}
    assert told(packed(tmp_path / "all.zip", {"ada/00.ipynb": DATA, "ada/01.ipynb": DATA})).keys() == {"ada"}


def test_a_students_own_zip_file_is_looked_into(tmp_path):
    inner = packed(io.BytesIO(), {"work/00.ipynb": DATA, "01.ipynb": DATA}).getvalue()
    names = {"Ada B_1_assignsubmission_file_/my.zip": inner, "bob.zip": inner, "cleo/x/hers.zip": inner}
    for path in (packed(tmp_path / "class.zip", names), tmp_path / "class"):
        if path.suffix != ".zip":
            for name, data in names.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
        assert told(path) == {name: ["00.ipynb", "01.ipynb"] for name in ("Ada B", "bob", "cleo")}
        assert all(file.read() == DATA for one in gather([path]) for file in one.files)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/x/a.ipynb", "/y/b.ipynb"], ["a", "b"]),
        (["/x/a.ipynb", "/y/a.ipynb"], ["x-a", "y-a"]),
        (["/x/a.ipynb", "/y/A.ipynb"], ["x-a", "y-A"]),  # one file on many a laptop
        (["/x/z/a.ipynb", "/y/z/a.ipynb", "/x/z/b.ipynb"], ["x-z-a", "y-z-a", "b"]),
    ],
)
def test_notebooks_that_are_named_are_told_apart_by_their_folders(paths, names):
    assert told_apart([Path(path) for path in paths]) == names


def test_the_same_file_named_twice_is_one_submission(tmp_path):
    put(tmp_path, "a.ipynb")
    assert len(gather([tmp_path / "a.ipynb", tmp_path / "." / "a.ipynb", tmp_path / "x" / ".." / "a.ipynb"])) == 1


# --- strangers' names ---


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Ada  Byron", "Ada Byron"),
        ("a/b\\c:d*e", "a b c d e"),
        ("\n\tx\x1b[31m", "x [31m"),
        ("..", "nameless"),
        ("  ", "nameless"),
        ("x" * 300, "x" * 80),
        ("a‮b", "a b"),  # written from the right from there on
        ("Müller", "Müller"),
    ],
)
def test_a_name_is_fit_for_a_file_and_a_terminal(name, plain):
    (one,) = named([submissions.Submission(name)])
    assert one.name == plain


def test_a_name_that_is_not_utf_8_is_taken_for_latin_1(tmp_path):
    assert readable("m\udcfcller.ipynb") == "müller.ipynb"
    try:
        put(tmp_path, "m\udcfcller.ipynb", "b\udce9a/00.ipynb")
    except (OSError, UnicodeEncodeError):
        pytest.skip("this system takes no such name")
    assert told(tmp_path) == {"béa": ["00.ipynb"], "müller": ["müller.ipynb"]}
    assert told(tmp_path / "m\udcfcller.ipynb") == {"müller": ["müller.ipynb"]}


def test_names_that_differ_in_case_alone_are_two_files(tmp_path):
    path = packed(tmp_path / "c.zip", {"ADA/0.ipynb": DATA, "ada/0.ipynb": DATA, "Ada /0.ipynb": DATA})
    assert len({name.casefold() for name in told(path)}) == 3


# --- what costs a submission its points, and nobody anything ---


def reasons(*paths: Path) -> dict[str, str]:
    found = {}
    for one in gather(paths):
        found[one.name] = "; ".join(one.reasons)
        for file in one.files:
            try:
                file.read()
            except FileError as error:
                found[one.name] += f"{file.name}: {error}"
    return found


def test_thousands_of_folders_in_folders_are_not_searched(tmp_path):
    put(tmp_path, "bob.ipynb")
    (tmp_path / "ada").mkdir()
    handle = os.open(tmp_path / "ada", os.O_RDONLY)
    for _ in range(3000):  # deeper than any path can say
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    assert reasons(tmp_path) == {"ada": "has folders in folders, more than 12 deep: they were not searched", "bob": ""}
    zipped = packed(tmp_path / "class.zip", {"ada/" + "d/" * 5000 + "0.ipynb": DATA, "bob.ipynb": DATA})
    found = reasons(zipped)
    assert "too deep" in found["ada"] and found["bob"] == ""
    folder = str(tmp_path / "ada")
    os.system(f"rm -rf {folder!r}")  # pytest's own clean-up is recursive


def test_links_pipes_and_devices_are_no_notebooks(tmp_path):
    put(tmp_path, "ada/00.ipynb", "own.ipynb")
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "hers.ipynb").symlink_to(tmp_path / "ada" / "00.ipynb")
    (tmp_path / "cleo").symlink_to(tmp_path / "ada")
    (tmp_path / "dan.ipynb").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "eve.ipynb")
    found = reasons(tmp_path)
    assert "is a link" in found["bob"] and "is a link" in found["cleo"] and "is a link" in found["dan"]
    assert "is no file" in found["eve"] and found["ada"] == found["own"] == ""
    assert "is a link" in reasons(tmp_path / "dan.ipynb")["dan"]


def test_what_is_not_there_is_told(tmp_path):
    assert reasons(tmp_path / "none.ipynb") == {"none": "none.ipynb: there is no such file"}


def test_a_huge_notebook_is_told_also_when_it_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "LARGEST", 2**20)
    (tmp_path / "ada.ipynb").write_bytes(b" " * (2**20 + 1))
    assert "is larger than 1 MiB: clear its outputs" in reasons(tmp_path / "ada.ipynb")["ada"]
    bomb = packed(tmp_path / "class.zip", {"ada.ipynb": bytes(10**8), "bob.ipynb": DATA})
    assert reasons(bomb) == {"ada": "ada.ipynb: is larger than 1 MiB", "bob": ""}


def test_zip_files_that_are_none_or_hold_too_much_cost_their_own_submission(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "MOST_FILES", 50)
    inner = packed(io.BytesIO(), {f"{n}.ipynb": DATA for n in range(60)}).getvalue()
    damaged = bytearray(packed(io.BytesIO(), {"x.ipynb": os.urandom(999)}).getvalue())
    damaged[60:90] = bytes(30)
    parts = {"ada/a.zip": b"PK no zip", "bob/b.zip": inner, "cleo/c.zip": bytes(damaged), "dan/0.ipynb": DATA}
    found = reasons(packed(tmp_path / "class.zip", parts))
    assert "cannot be read as a zip file" in found["ada"] and "more than 50 files" in found["bob"]
    assert "cannot be unpacked" in found["cleo"] and found["dan"] == ""
    (tmp_path / "none.zip").write_bytes(b"none")
    assert "cannot be read as a zip file" in reasons(tmp_path / "none.zip")["none"]


def test_a_zip_file_in_a_zip_file_without_end_is_left(tmp_path):
    data = DATA
    for _ in range(8):
        data = packed(io.BytesIO(), {"x.zip": data, "0.ipynb": DATA}).getvalue()
    assert len(told(packed(tmp_path / "class.zip", {"ada/x.zip": data}))["ada"]) <= 3


def test_paths_in_a_zip_file_lead_nowhere(tmp_path):
    found = told(
        packed(tmp_path / "c.zip", {"../../ada/0.ipynb": DATA, "/etc/bob.ipynb": DATA, "c:\\x\\y.ipynb": DATA})
    )
    assert set(found) == {"ada", "etc", "c"} and not (tmp_path.parent / "ada").exists()
