"""What GitHub shows of ``notebooks/index.md`` and ``instructor.md``: their places, filled in Markdown.

``python -m dts_mini.results --readme-only`` writes them; the book puts its own pages' parts there instead. Everything
is read from the authored notebooks, so that nothing has to be built or measured first.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from dts_mini.course import front, kit, launch
from dts_mini.course.build import NOTEBOOKS, read, sources
from dts_mini.course.exercises import EXERCISES

PAGES = (NOTEBOOKS / "index.md", NOTEBOOKS / "instructor.md")
MISTAKES = (
    "The book has them all, with the code that shows each: `make book`, then `build/book/instructor.html`. "
    "They are read from\n[the exercises](../dts_mini/course/exercises)."
)
BESIDE = (
    "The book (`make book`, then `build/book/index.html`) has these as pages, and beside them sliders, "
    "the paper's numbers\nbeside ours, every claim with what was measured, how long each notebook runs, "
    "and what every public function takes,\nreturns and refuses. It can be searched."
)
QUIZ = "The book has them on one page: `make book`, then `build/book/instructor.html`."


def lessons() -> list[kit.Lesson]:
    """What the authored notebooks say of themselves."""
    return [kit.lesson_of(read(source), source.stem, EXERCISES) for source in sources()]


def filled(text: str, lessons: Sequence[kit.Lesson], headline: Mapping, where: str | None = None) -> str:
    """A page with each place filled anew. ``headline``: the table that the picture draws; ``where``: owner/name."""

    def place(name: str) -> str:
        name, _, about = name.partition(" ")
        if name == "picture":
            return f"![{front.alt(headline)}](../docs/{front.PATH.name})"
        if name == "launch":
            return launch.badges(where)
        if name == "overview":
            return overview(lessons)
        if name == "route":
            return route(about, lessons) if ":" in about else chapters(about, lessons)
        return {"beside": BESIDE, "mistakes": MISTAKES, "quiz": QUIZ}[name]

    return kit.PLACE.sub(lambda match: f"<!-- {match[1]} -->\n\n{place(match[1])}\n\n<!-- end -->", text)


def chapters(about: str, lessons: Sequence[kit.Lesson]) -> str:
    """The notebooks of a part ("00 to 06"): each with its minutes, and what you can do after it."""
    first, _, last = about.partition(" to ")
    own = [each for each in lessons if first <= each.number <= last]
    wrapped = lambda text: textwrap.fill(text, 126, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    told = (f"- {_link(each)}, {each.minutes + each.practice} minutes.\n{wrapped(each.intro)}" for each in own)
    return "\n".join(told)


def overview(lessons: Sequence[kit.Lesson]) -> str:
    """Each notebook with its minutes and its exercises."""
    told = lambda number, task: f"{number}. {task.title} ({task.difficulty}, {task.minutes})"
    rows = [
        (_link(each), each.minutes, each.practice, "<br>".join(told(*entry) for entry in each.tasks.items()))
        for each in lessons
    ]
    sums = [sum(row[column] for row in rows) for column in (1, 2)]
    return _table(kit.OVERVIEW, [*rows, ("in all", *sums, "")])


def route(about: str, lessons: Sequence[kit.Lesson]) -> str:
    """The stops of a route for an instructor, with their minutes."""
    rows, stops = [], kit.stops(about, lessons)
    for stop in stops:
        steps = "<br>".join(f"Step {number} · {title}" for number, title in stop.steps.items())
        tasks = "<br>".join(f"Exercise {n} · {each.title} ({each.minutes})" for n, each in stop.tasks.items())
        rows.append((_link(stop.lesson), steps, tasks, stop.minutes))
    return _table(kit.ROUTE, [*rows, ("in all", "", "", sum(stop.minutes for stop in stops))])


def _link(lesson: kit.Lesson) -> str:
    return f"[{lesson.title}]({Path(lesson.file).stem}.ipynb)"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)
