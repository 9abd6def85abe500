"""The instructor's kit: what ``notebooks/instructor.md`` says of the course is read from the course itself.

``<!-- overview --> ... <!-- end -->`` there, or ``mistakes``, ``quiz``, ``route 60: 00 steps 2, 3; 01 steps 1, 4
exercises 1``, is a place for what is generated here from the notebooks and from the exercises' own data. What stands
within is for GitHub (``github.py``); the book's pages have more.
"""

import ast
import html
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import nbformat
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from dts_mini.core.errors import DTSError
from dts_mini.course.build import function_of, is_exercise
from dts_mini.course.exercise import Exercise
from dts_mini.course.markup import inline, markdown

HEADING = re.compile(r"^### Exercise (\d+) · (.+?) \((easy|medium|hard), (\d+) minutes?\)", re.MULTILINE)
TIME = re.compile(r"\*\*Time\.\*\*\s+(?:About )?(\d+) minutes to read", re.IGNORECASE)
QUESTION = re.compile(
    r"^\*\*(\d+)\.\*\*\s*(.+?)\n+<details>\s*<summary>Answer</summary>(.+?)</details>", re.MULTILINE | re.DOTALL
)
STOP = re.compile(r"(\d\d)(?: steps? ([\d, ]+?))?(?: exercises? ([\d, ]+))?")
PLACE = re.compile(r"<!-- (picture|launch|beside|overview|mistakes|quiz|route .+?) -->.*?<!-- end -->", re.DOTALL)


@dataclass(frozen=True)
class Task:
    """An exercise where a notebook sets it; ``name`` is its function's."""

    number: int
    title: str
    difficulty: str
    minutes: int
    name: str


@dataclass(frozen=True)
class Lesson:
    """What a notebook says of itself: minutes to read, steps and exercises by number, (number, question, answer)s.

    ``intro``: what one can do after it.
    """

    file: str
    title: str
    intro: str
    minutes: int
    steps: Mapping[int, str]
    tasks: Mapping[int, Task]
    quiz: Sequence[tuple[int, str, str]]

    @property
    def practice(self) -> int:
        return sum(task.minutes for task in self.tasks.values())

    @property
    def number(self) -> str:
        return self.file[:2]

    @property
    def link(self) -> str:
        return f'<a href="{self.file}">{inline(self.title)}</a>'


@dataclass(frozen=True)
class Stop:
    """A stop of a route: steps and exercises of one notebook, and their minutes."""

    lesson: Lesson
    steps: Mapping[int, str]
    tasks: Mapping[int, Task]

    @property
    def minutes(self) -> int:
        """Reading counts by the share of the notebook's steps."""
        reading = math.ceil(self.lesson.minutes * len(self.steps) / max(1, len(self.lesson.steps)))
        return reading + sum(task.minutes for task in self.tasks.values())


def lesson(path: Path, exercises: Mapping[str, Exercise]) -> Lesson:
    """Reads a built notebook; an exercise's minutes and difficulty are its own, where ``exercises`` knows it."""
    return lesson_of(nbformat.read(path, as_version=4), path.stem, exercises)


def lesson_of(notebook: NotebookNode, stem: str, exercises: Mapping[str, Exercise]) -> Lesson:
    """The same of a notebook that is in memory."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    tasks, heading = {}, None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (HEADING.findall(cell.source) or [heading])[-1]
        elif is_exercise(cell) and heading:
            number, title, difficulty, minutes = heading
            name, heading = function_of(cell.source).name, None
            if name in exercises:
                difficulty, minutes = exercises[name].difficulty, exercises[name].minutes
            tasks[int(number)] = Task(int(number), title, difficulty, int(minutes), name)
    return Lesson(
        file=f"{stem}.html",
        title=(re.findall(r"^# (.+)$", text, re.MULTILINE) or [stem])[0],
        intro=" ".join(" ".join(re.findall(r"^# .+\n\n((?:[^#>\n].*\n?)+)", text)).split()),
        minutes=int((TIME.findall(re.sub(r"\n> ?", " ", text)) or [0])[0]),
        steps={int(n): title for n, title in re.findall(r"^## Step (\d+) · (.+)$", text, re.MULTILINE)},
        tasks=tasks,
        quiz=[(int(n), q.strip(), a.strip()) for n, q, a in QUESTION.findall(text.partition("## Quiz")[2])],
    )


def fill(text: str, lessons: Sequence[Lesson], exercises: Mapping[str, Exercise]) -> str:
    """instructor.md as HTML, its places filled; DTSError for a place that is unknown or a route that cannot be gone."""
    makers: dict[str, Callable[[str], str]] = {
        "overview": lambda _: overview(lessons),
        "mistakes": lambda _: mistakes(lessons, exercises),
        "quiz": lambda _: quiz(lessons),
        "route": lambda about: route(about, lessons),
    }

    def place(match: re.Match) -> str:
        name, _, about = html.unescape(match[1]).partition(" ")
        if name not in makers:
            raise DTSError(f"instructor.md: [{name}] is no place: choose {', '.join(makers)}")
        return makers[name](about)

    return re.sub(r"<p>\[([a-z][^\[\]<]*)\]</p>", place, markdown(PLACE.sub(r"[\1]", text)))


OVERVIEW = ("notebook", "reading, min", "exercises, min", "exercises (difficulty, minutes)")


def overview(lessons: Sequence[Lesson]) -> str:
    """Each notebook with its minutes and its exercises."""
    rows = [
        (
            lesson.link,
            str(lesson.minutes or ""),
            str(lesson.practice),
            "<br>".join(f"{n}. {inline(t.title)} ({t.difficulty}, {t.minutes})" for n, t in lesson.tasks.items()),
        )
        for lesson in lessons
    ]
    reading, working = sum(each.minutes for each in lessons), sum(each.practice for each in lessons)
    return table("The course in minutes", OVERVIEW, [*rows, ("in all", str(reading), str(working), "")], total=True)


def route(about: str, lessons: Sequence[Lesson]) -> str:
    """``60: 01 steps 1, 2 exercises 1; 02 steps 1``: a table of the stops and their minutes."""
    rows, found = [], stops(about, lessons)
    for stop in found:
        what = [f"Step {n} · {inline(title)}" for n, title in stop.steps.items()]
        do = [f"Exercise {n} · {inline(task.title)} ({task.minutes})" for n, task in stop.tasks.items()]
        rows.append((stop.lesson.link, "<br>".join(what), "<br>".join(do), str(stop.minutes)))
    total = ("in all", "", "", str(sum(stop.minutes for stop in found)))
    return table(f"{about.partition(':')[0]} minutes", ROUTE, [*rows, total], total=True)


ROUTE = ("notebook", "show and talk", "let them do (minutes)", "minutes")


def stops(about: str, lessons: Sequence[Lesson]) -> list[Stop]:
    """The stops of a route. A notebook that is not built is left out.

    DTSError for a step or an exercise that is not there, and for more minutes than the route has.
    """
    minutes, _, parts = about.partition(":")
    by_number, route = {each.number: each for each in lessons}, []
    for stop in parts.split(";"):
        found = STOP.fullmatch(stop.strip())
        if not found:
            raise DTSError(
                f"instructor.md, route {minutes}: {stop.strip()!r} is no stop, such as '01 steps 1, 2 exercises 1'"
            )
        if found[1] not in by_number:
            continue
        here = by_number[found[1]]
        steps, tasks = (
            chosen(part, known, f"route {minutes}, notebook {found[1]}")
            for part, known in ((found[2], here.steps), (found[3], here.tasks))
        )
        route.append(Stop(here, steps, tasks))
    if (total := sum(stop.minutes for stop in route)) > int(minutes):
        raise DTSError(f"instructor.md, route {minutes}: its parts take {total} minutes")
    return route


def chosen(numbers: str | None, known: Mapping[int, object], where: str) -> dict[int, object]:
    """The steps or exercises of these numbers ('1, 4'); DTSError for one that is not there."""
    wanted = [int(number) for number in re.findall(r"\d+", numbers or "")]
    if lost := [n for n in wanted if n not in known]:
        raise DTSError(f"instructor.md, {where}: there is no step or exercise {lost[0]}; there are {list(known)}")
    return {n: known[n] for n in wanted}


def mistakes(lessons: Sequence[Lesson], exercises: Mapping[str, Exercise]) -> str:
    """For each exercise what learners say, what they then wrote, and the hint that they get."""
    parts = []
    for each in lessons:
        for task in each.tasks.values():
            if not (exercise := exercises.get(task.name)):
                continue
            rows = [
                (
                    html.escape(symptom),
                    wrote(exercise.wrong.get(symptom)),
                    re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text)),
                )
                for symptom, text in exercise.hints
            ]
            parts.append(
                f"<details><summary>{each.number} · Exercise {task.number} · {inline(task.title)} "
                f"<code>{task.name}</code></summary>"
                + table("", ("the learner says", "and has written, perhaps", "the hint"), rows, of="mistakes")
                + helpers(exercise.wrong.values())
                + "</details>"
            )
    return "".join(parts)


def wrote(mistake: Callable | None) -> str:
    """A wrong function's code, without its head."""
    if mistake is None:
        return ""
    code = getattr(mistake, "__code__", None)
    if code is None:
        return f"<code>{html.escape(getattr(mistake, '__name__', ''))}</code>"
    tree = ast.parse(Path(code.co_filename).read_text())
    spans = [((line, left), (end, right)) for line, end, left, right in code.co_positions() if right]  # without RESUME
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    holds = lambda node: (node.lineno, node.col_offset) <= first and last <= (node.end_lineno, node.end_col_offset)
    around = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda | ast.FunctionDef) and holds(node)]
    node = max(around, key=lambda found: (found.lineno, found.col_offset), default=None)
    if node is None:
        return ""
    if isinstance(node, ast.Lambda):
        return f"<code>return {html.escape(ast.unparse(node.body))}</code>"
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return f"<code>{html.escape(chr(10).join(map(ast.unparse, body)))}</code>"


def helpers(mistakes: Iterable[Callable]) -> str:
    """The code of the private functions that these wrong functions share, or nothing."""
    found: dict[str, Callable] = {}
    waiting = list(mistakes)
    while waiting:
        code, space = (getattr(waiting[0], name, None) for name in ("__code__", "__globals__"))
        for name in _names(code) if code else ():
            if name.startswith("_") and name not in found and inspect.isfunction(space.get(name)):
                found[name] = space[name]
                waiting.append(space[name])
        waiting.pop(0)
    text = "\n\n".join(inspect.getsource(found[name]).strip() for name in sorted(found))
    return f"<p>Functions that these share:</p>{highlight(text, PythonLexer(), HtmlFormatter())}" if text else ""


def _names(code: CodeType) -> set[str]:
    """The global names that a function and those within it use."""
    return set(code.co_names).union(*(_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def quiz(lessons: Sequence[Lesson]) -> str:
    """The questions of each notebook's quiz with their answers."""
    return "".join(
        f"<details><summary>{inline(each.title)}</summary>"
        + "".join(markdown(f"**{number}.** {question}\n\n{answer}") for number, question, answer in each.quiz)
        + "</details>"
        for each in lessons
        if each.quiz
    )


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, total: bool = False, of: str = "kit"
) -> str:
    """A table of HTML cells, the first of each row its head; ``total``: the last row is a sum."""

    def cell(row: Sequence[str]) -> str:
        cells = (f'<td data-label="{name}">{each}</td>' for name, each in zip(head[1:], row[1:], strict=True))
        return f"<tr><th scope=row>{row[0]}</th>{''.join(cells)}</tr>"

    body, foot = (rows[:-1], rows[-1:]) if total else (rows, [])
    return (
        f'<table class="{of} cards">'
        + (f"<caption>{caption}</caption>" if caption else "")
        + f"<thead><tr>{''.join(f'<th scope=col>{each}</th>' for each in head)}</tr></thead>"
        + f"<tbody>{''.join(map(cell, body))}</tbody>"
        + (f"<tfoot>{''.join(map(cell, foot))}</tfoot>" if foot else "")
        + "</table>"
    )
