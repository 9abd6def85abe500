"""What becomes of reports: points, the class's table, tables for Moodle and Canvas, and a page for each student."""

import csv
import html
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import read_bytes, write_bytes
from dts_mini.course.exercises import EXERCISES

WEIGHTS = {"easy": 1.0, "medium": 2.0, "hard": 3.0}
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
Row = dict[str, str]


@dataclass(frozen=True)
class Marking:
    """How a class is marked.

    ``points``: of exercises by name, where not 1, 2 or 3 by difficulty; ``partial``: a failed exercise gets the share
    of its checks that passed; ``total``: what all right is worth, where not the sum; ``notebooks``: those that
    everybody owes ('00', '01'), where not those that each handed in; ``roster``: the class, a row a student.
    """

    points: Mapping[str, float] = field(default_factory=dict)
    partial: bool = False
    total: float | None = None
    notebooks: Sequence[str] = ()
    roster: Sequence[Row] = ()
    format: str = ""
    assignment: str = "DTS exercises"

    def __post_init__(self) -> None:
        if self.total is not None and not 0 < self.total < math.inf:
            raise DTSError(f"--total is {self.total:g}: give a number of points above zero")

    def worth(self, name: str) -> float:
        return self.points.get(name, WEIGHTS[EXERCISES[name].difficulty])

    def score(self, report: Mapping) -> dict[str, float]:
        """Points of a report, and how many there are to get."""
        entries = {name: entry for name, entry in report["exercises"].items() if name in EXERCISES}
        most = sum(map(self.worth, entries))
        share = lambda entry: (entry["checks"] / entry["of"] if self.partial else 0.0) if entry["of"] else 0.0
        got = sum(
            self.worth(name) * (1 if entry["status"] == "passed" else share(entry)) for name, entry in entries.items()
        )
        if self.total is not None:
            got, most = self.total * got / most if most else 0.0, self.total
        return {"points": round(got, 2), "max": round(most, 2)}


def read_points(path: Path) -> dict[str, float]:
    """Points from a table with the columns ``exercise`` and ``points``; FileError for what is none."""
    points = {}
    for row in _table(path):
        name, value = row.get("exercise", "").strip(), row.get("points", "").strip()
        if name not in EXERCISES:
            raise FileError(f"{path}: there is no exercise {name!r}; there are: {', '.join(EXERCISES)}")
        try:
            points[name] = float(value)
        except ValueError as error:
            raise FileError(f"{path}: {name} has the points {value!r}; give a number") from error
        if not 0 <= points[name] < float("inf"):
            raise FileError(f"{path}: {name} has the points {value}; give a number from 0 on")
    return points


def read_roster(path: Path) -> list[Row]:
    """The class from a table, as Moodle's grading worksheet and Canvas's gradebook are, or any with a name a row."""
    return [row for row in _table(path) if row.get("Student", "").strip() != "Points Possible"]


def _table(path: Path) -> list[Row]:
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # an older Excel's
    first = text.partition("\n")[0]
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count)))
    if not rows:
        raise FileError(f"{path}: holds no rows under a row of column names")
    return [{key or "": value or "" for key, value in row.items() if isinstance(value, str | None)} for row in rows]


# --- who is who ---


def rows(reports: Mapping[str, dict], marking: Marking) -> list[tuple[Row, dict | None]]:
    """(the roster's row, the report) of each student, in the roster's order; then reports of nobody on it."""
    left, found = dict(reports), []
    for row in marking.roster:
        keys = _keys(row)
        report = next((r for r in left.values() if r["id"] and r["id"] in keys), None)
        report = report or next((r for r in left.values() if plain(r["submission"]) in keys), None)
        if report:
            del left[report["submission"]]
        found.append((row, report))
    return found + [({}, report) for _, report in sorted(left.items(), key=lambda item: item[0].casefold())]


def plain(name: str) -> str:
    """A name without its accents, case and spaces: 'Ada  Byron' as 'adabyron'."""
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return "".join(c for c in decomposed if c.isalnum())


def _keys(row: Row) -> set[str]:
    """What a submission of this student may be called: any cell, names in both orders, the number of a participant."""
    cells = [value for key, value in row.items() if value]
    lower = {key.casefold().strip(): value for key, value in row.items()}
    parts = [lower.get(a, "") or lower.get(b, "") for a, b in (("first name", "firstname"), ("surname", "last name"))]
    names = ["".join(parts), "".join(parts[::-1])] if all(parts) else []
    names += ["".join(cell.split(",")[::-1]) for cell in cells if cell.count(",") == 1]  # Byron, Ada
    numbers = [cell.split()[-1] for cell in cells if re.fullmatch(r"\w+ \d+", cell)]  # Participant 123
    mail = [cell.split("@")[0] for cell in cells if cell.count("@") == 1]
    return {plain(each) for each in (*cells, *names, *numbers, *mail)} - {""}


# --- tables ---


def write(reports: Mapping[str, dict], out: Path, marking: Marking) -> None:
    """class.csv, and the table for Moodle or Canvas beside it."""
    everybody = rows(reports, marking)
    write_bytes(class_table(everybody, excel=marking.format == "csv"), out / "class.csv", overwrite=True)
    if marking.format in ("moodle", "canvas"):
        table = {"moodle": moodle, "canvas": canvas}[marking.format](everybody, marking)
        write_bytes(table, out / f"{marking.format}.csv", overwrite=True)


def class_table(everybody: Sequence[tuple[Row, dict | None]], *, excel: bool = False) -> bytes:
    """The class: a row a student, a column an exercise, in the course's order."""
    reports = [report for _, report in everybody if report]
    columns = [name for name in EXERCISES if any(name in report["exercises"] for report in reports)]
    head = ["submission", "id", "points", "max", "passed", "of", *columns, "flags", "isolation", "reason"]
    table = []
    for row, report in everybody:
        if report is None:
            name = next(filter(None, (row.get(key) for key in ("Full name", "Student", "name"))), None)
            name = name or " ".join(value for value in row.values() if value)
            table.append([name, "", 0, "", 0, 0, *[""] * len(columns), "", "", "nothing was handed in"])
            continue
        status = [report["exercises"].get(name, {}).get("status", "") for name in columns]
        flags = "; ".join(f"{name} {flag}" for name, entry in report["exercises"].items() for flag in entry["flags"])
        numbers = [f"{report[key]:g}" for key in ("points", "max", "passed", "of")]
        end = [flags, report["isolation"], report["reason"]]
        table.append([report["submission"], report["id"], *numbers, *status, *end])
    return as_csv(head, table, excel=excel)


def moodle(everybody: Sequence[tuple[Row, dict | None]], marking: Marking) -> bytes:
    """Moodle's grading worksheet, filled in: the roster's columns where it is one, else the four that matter."""
    worksheet = "Grade" in (marking.roster[0] if marking.roster else {})
    columns = list(marking.roster[0]) if worksheet else ["Identifier", "Full name", "Grade", "Feedback comments"]
    columns += [] if "Feedback comments" in columns else ["Feedback comments"]
    table = []
    for row, report in everybody:
        if worksheet and not row:
            continue  # Moodle takes no grade of somebody who is not in the course
        known = {
            **row,
            "Identifier": row.get("Identifier") or (f"Participant {report['id']}" if report and report["id"] else ""),
        }
        known["Full name"] = row.get("Full name") or (report["submission"] if report else "")
        if report:
            known |= {"Grade": f"{report['points']:g}", "Feedback comments": summary(report)}
        table.append([known.get(column, "") for column in columns])
    return as_csv(columns, table)


def canvas(everybody: Sequence[tuple[Row, dict | None]], marking: Marking) -> bytes:
    """A file for Canvas's gradebook: who, and one column of points."""
    columns = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    table = []
    most = max((report["max"] for _, report in everybody if report), default=0)
    table.append(["    Points Possible", "", "", "", "", f"{most:g}"])
    for row, report in everybody:
        known = dict(row)
        if report:
            known = {
                **known,
                "Student": row.get("Student") or report["submission"],
                "ID": row.get("ID") or report["id"],
            }
        table.append([*(known.get(column, "") for column in columns), f"{report['points']:g}" if report else ""])
    return as_csv([*columns, marking.assignment], table)


def summary(report: Mapping) -> str:
    """A report in a line, for a field of feedback."""
    failed = [
        f"{name}: {entry['message']}" for name, entry in report["exercises"].items() if entry["status"] != "passed"
    ]
    return "; ".join([f"{report['passed']} of {report['of']} exercises", *filter(None, [report["reason"]]), *failed])[
        :2000
    ]


def as_csv(head: Sequence[str], table: Iterable[Sequence], *, excel: bool = True) -> bytes:
    """A table in which no cell is a formula; with the mark by which Excel knows UTF-8."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(cell, head))
    writer.writerows([cell(each) for each in row] for row in table)
    return file.getvalue().encode("utf-8-sig" if excel else "utf-8")


def cell(value: object) -> str:
    """A cell as text: control characters told, and what a spreadsheet would run as a formula quoted.

    >>> cell("\\t=1+1"), cell("=1+1"), cell(3)
    ('\\\\t=1+1', "'=1+1", '3')
    """
    text = shown(str(value))
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text


def shown(text: str) -> str:
    """Strangers' text for a terminal or a table: what does not print, and what turns the writing round, is told."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


# --- a page for a student ---

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}
body{color:#222;background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;margin:1.5rem 0 .3rem}
code{background:#f2f2f2;padding:0 .2em;overflow-wrap:anywhere}
.passed{color:#005a32}.failed,.stopped{color:#8c2d04}.unsafe{border:2px solid #8c2d04;padding:.5rem}"""


def page(report: Mapping) -> str:
    """What one student gets: each exercise's verdict, the call that failed, the hint, and what to read again."""
    text = lambda value: html.escape(shown(str(value)))
    parts = [f"<h1>{text(report['submission'])}</h1>"]
    parts.append(
        f"<p>{report['passed']} of {report['of']} exercises, {report['points']:g} of {report['max']:g} points.</p>"
    )
    if report["isolation"] == "none":
        parts.append("<p class=unsafe>Graded without a box (<code>--unsafe</code>): this verdict could be forged.</p>")
    parts += [f"<p><b>{text(report['reason'])}</b></p>"] if report["reason"] else []
    for name, entry in report["exercises"].items():
        status = f"<span class={entry['status'].split()[0]}>{text(entry['status'])}</span>"
        parts.append(f"<h2><code>{text(name)}</code> {status}</h2>")
        if entry["status"] == "passed":
            continue
        parts.append(f"<p>{text(entry['message'])}</p>")
        if entry["call"]:
            parts.append(f"<p>The call that failed: <code>{text(entry['call'])}</code></p>")
        if entry["of"] and entry["status"] == "failed":
            parts.append(f"<p>{entry['checks']} of {entry['of']} checks passed.</p>")
        if entry["hint"]:
            hint = dict(EXERCISES[name].hints).get(entry["hint"], "") if name in EXERCISES else ""
            parts.append(f"<p>Hint: <i>{text(entry['hint'])}.</i> {text(hint)}</p>")
        parts.append(f"<p>Read again: {text(read_again(name))}.</p>")
    parts += ["<h2>Notes</h2>", *(f"<p>{text(note)}</p>" for note in report["notes"])] if report["notes"] else []
    title = f"<title>{text(report['submission'])}</title>"
    return f"<!DOCTYPE html><html lang=en><meta charset=utf-8>{title}<style>{STYLE}</style>{''.join(parts)}</html>\n"


@cache
def read_again(name: str) -> str:
    """The step of the notebook in which an exercise stands."""
    if name not in EXERCISES:
        return "the notebook of this exercise"
    notebook, step = EXERCISES[name].notebook, ""
    path = NOTEBOOKS / f"{notebook}.ipynb"
    for each in json.loads(path.read_bytes())["cells"] if path.exists() else []:
        source = "".join(each["source"])
        step = ([step] + re.findall(r"^## (Step \d+ · .+)$", source, re.MULTILINE))[-1]
        if each["cell_type"] == "code" and f"def {name}(" in source:
            break
    return f"notebook {notebook}" + (f", {step}" if step else "")


def check_notebooks(numbers: Sequence[str]) -> None:
    """DTSError for a number of a notebook that has no exercises."""
    known = sorted({exercise.notebook[:2] for exercise in EXERCISES.values()})
    if unknown := [number for number in numbers if number not in known]:
        raise DTSError(f"--notebooks {unknown[0]}: there are exercises in {', '.join(known)}")
