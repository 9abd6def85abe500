"""A teacher's test run (``dts-mini rehearse``): thirty made-up submissions, hostile ones too, and what each must get.

They are made of the course's first notebook and packed as Moodle packs them; then they are graded as a class is, and
every mark is compared with the one that is right.
"""

import copy
import io
import json
import os
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dts_mini.core.errors import FileError
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.marks import NOTEBOOKS, Marking, read_roster

FIRST = next(iter(EXERCISES.values())).notebook
NAMES = [name for name, exercise in EXERCISES.items() if exercise.notebook == FIRST]
HONEST = (
    "Ada Byron",
    "Bo Ek",
    "Cléo Durand",
    "Đạt Nguyễn",
    "Eve O'Hara",
    "Femi Ade",
    "Gül Şahin",
    "Hana Sato",
    "Ivo Čech",
)
HOSTILE = {  # name: (what each of its functions does, the status of the first)
    "Reads the solutions": (
        "import dts_mini, os\nfolder = os.path.dirname(dts_mini.__file__) + '/course/exercises/'\n"
        "return open(folder + sorted(os.listdir(folder))[1]).read()",
        "failed",
    ),
    "Reads your files": ("return open(HOME + '/.bashrc').read()", "failed"),
    "Writes your files": ("open(HERE + '/written', 'w').write('x')\nreturn 1", "failed"),
    "Starts a shell": ("import os\nreturn os.system('touch ' + HERE + '/written')", "failed"),
    "Calls home": ("import socket\nreturn socket.create_connection(('192.0.2.1', 80), 1)", "failed"),
    "Forks": ("import os\nwhile True:\n    os.fork()", "failed"),
    "Takes all memory": ("import torch\nreturn torch.ones(10**11)", "failed"),
    "Loops": ("while True:\n    pass", "stopped"),
    "Leaves": ("import os\nos._exit(0)", "stopped"),
    "Kills": ("import os\nos.kill(os.getppid(), 9)\nreturn os.kill(-1, 9)", "failed"),
    "Writes its own marks": (
        'import os\nfor n in range(3, 64):\n    try:\n        os.write(n, b\'{"value": true, "passed": true}\\n\')\n'
        "    except OSError:\n        pass\nos._exit(0)",
        "stopped",
    ),
}


@dataclass(frozen=True)
class Made:
    """A made-up submission: its notebook (or what stands for one), and what it must get."""

    name: str
    data: bytes
    passed: int
    status: str = ""  # of the first exercise
    reason: str = ""  # a part of it
    file: str = "lab.ipynb"


def made(here: Path) -> Iterator[Made]:
    """The thirty; ``here``: a folder that some of them are after."""
    solved, learner = (json.loads(_read(NOTEBOOKS / folder / f"{FIRST}.ipynb")) for folder in ("solved", "."))
    data = lambda notebook: json.dumps(notebook).encode()
    for name in HONEST:
        yield Made(name, data(solved), len(NAMES), "passed")
    yield Made("=1+1", data(solved), len(NAMES), "passed")
    yield Made("Zipped", _zipped({f"my work/{FIRST}.ipynb": data(solved)}), len(NAMES), "passed", file="work.zip")
    yield Made("Began", data(changed(solved, NAMES[1:], lambda name: stub(name))), 1, "passed")
    yield Made("Handed in nothing of it", data(learner), 0, "not attempted")
    yield Made("Wrong", data(changed(solved, NAMES, lambda name: body(name, "return None"))), 0, "failed")
    yield Made(
        "Half right", data(changed(solved, NAMES[:1], lambda name: body(name, "return 3"))), len(NAMES) - 1, "failed"
    )
    yield Made("No Python", data(changed(solved, NAMES[:1], lambda name: f"def {name}(:")), len(NAMES) - 1, "failed")
    yield Made("A letter", b"Dear teacher,", 0, reason="is no notebook")
    yield Made("Of 2013", data({"worksheets": [{"cells": []}], "nbformat": 3}), 0, reason="nbformat 3")
    yield Made("Too large", b" " * (21 * 2**20), 0, reason="is larger than 20 MiB")
    for name, (code, status) in HOSTILE.items():
        code = code.replace("HOME", repr(str(Path.home()))).replace("HERE", repr(str(here)))
        yield Made(name, data(changed(solved, NAMES, lambda each, code=code: body(each, code))), 0, status)


def body(name: str, code: str) -> str:
    return f"def {name}(*arguments):\n{textwrap.indent(code, '    ')}"


def stub(name: str) -> str:
    return body(name, "raise NotImplementedError")


def changed(notebook: dict, names: list[str], write: Callable[[str], str]) -> dict:
    """A notebook in which these functions are written otherwise."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        found = [name for name in names if cell["cell_type"] == "code" and f"def {name}(" in source]
        cell["source"] = write(found[0]) if found else source
        cell["outputs"] = [] if cell["cell_type"] == "code" else cell.get("outputs", [])
    return notebook


def pack(folder: Path) -> list[Made]:
    """Writes the thirty as Moodle's zip file, and the roster with one more student who handed in nothing."""
    class_ = list(made(folder))
    with zipfile.ZipFile(folder / "submissions.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, one in enumerate(class_, 101):
            archive.writestr(f"{one.name}_{number}_assignsubmission_file_/{one.file}", one.data)
    rows = [f'Participant {number},"{one.name}",' for number, one in enumerate(class_, 101)]
    rows.append("Participant 900,Nobody Here,")
    (folder / "roster.csv").write_text("\n".join(["Identifier,Full name,Grade", *rows]) + "\n", encoding="utf-8")
    return class_


def marking(folder: Path) -> Marking:
    """As an instructor would mark it: everybody owes the notebook, 10 points in all, part of them for a part."""
    roster = read_roster(folder / "roster.csv")
    return Marking(partial=True, total=10, notebooks=(FIRST[:2],), roster=roster, format="moodle")


def differences(class_: list[Made], reports: dict[str, dict], folder: Path) -> list[str]:
    """What is not as it must be; empty where all is well."""
    wrong, by_id = [], {report["id"]: report for report in reports.values()}
    for number, one in enumerate(class_, 101):
        report = by_id.get(str(number))
        if report is None:
            wrong.append(f"{one.name}: has no report")
            continue
        status = report["exercises"].get(NAMES[0], {}).get("status", "")
        if (
            report["passed"] != one.passed
            or (one.status and status != one.status)
            or one.reason not in report["reason"]
        ):
            found = f"{report['passed']} passed, the first {status or 'not there'}, {report['reason']!r}"
            wrong.append(
                f"{one.name}: must have {one.passed} passed, the first {one.status or 'not there'}; has {found}"
            )
    extra = {path.name for path in folder.iterdir()} - {"submissions.zip", "roster.csv", "graded"}
    return wrong + [f"{name}: was written by a submission" for name in sorted(extra)]


def _zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileError(f"{os.path.normpath(path)}: is not there; the test run is made of it: make notebooks")
    return path.read_bytes()
