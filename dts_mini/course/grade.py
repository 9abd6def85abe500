"""Grading (``dts-mini grade``): the exercises of submitted notebooks, by function name, in a box for each submission.

A box (``sandbox.py``, ``box.py``) is only asked for values. The checks run here, where none of the learner's code is
ever loaded or even parsed, so printing, exiting and tampering there cannot make a check pass: only right values can.
What this does not stop: a function written to tell a check's inputs from others. A function that takes the library's or
the published solution is flagged, for the instructor to judge.
"""

import ast
import base64
import hashlib
import inspect
import itertools
import json
import math
import os
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import check_writable, read_bytes, write_bytes
from dts_mini.course import learned, marks, submissions
from dts_mini.course.box import Box, Lost
from dts_mini.course.exercise import NotAttempted, _library, verdict
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.sandbox import PACKAGE, Engine, engine
from dts_mini.course.wire import Values

MOST_JOBS = 8  # two boxes each, of some 300 MB and what a submission takes
LOSSES = 3  # functions that may be stopped before the rest of a submission is left
PATIENCE = 5  # times the seconds of an exercise: all that a submission gets
LARGEST = 2 * submissions.LARGEST  # of all notebooks of a submission
ALIKE = 40  # nodes from which on an equal function is no coincidence


def grade_class(
    paths: Sequence[Path],
    out: Path,
    *,
    seconds: float = 10,
    memory: int = 1024,
    jobs: int | None = None,
    marking: marks.Marking | None = None,
    unsafe: bool = False,
    overwrite: bool = False,
    progress: Callable[[dict, int, int], None] = lambda report, done, works: None,
) -> Iterator[dict]:
    """Grades submissions into ``out``: for each a JSON and a page, and class.csv anew after each; yields the reports.

    ``progress`` gets each report, how many are done, and how many there are. What ``out`` holds already is kept: a
    submission that was graded and has not changed is not graded again, so an interrupted run goes on and late work is
    added; ``overwrite`` begins anew. Raises DTSError before any work when a limit is no limit, ``out`` cannot be
    written or holds another's files, or no box can be made.
    """
    if not (0 < seconds < math.inf and memory > 0 and (jobs is None or jobs > 0)):
        raise DTSError(f"--seconds {seconds}, --memory {memory} and --jobs {jobs}: all must be above zero")
    marking = marking or marks.Marking()
    made_by = engine(unsafe=unsafe)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out}: cannot be made a folder ({error.strerror}); choose another") from error
    reports = {} if overwrite else before(out)
    check_writable(out / "class.csv", overwrite=overwrite or bool(reports))
    works = submissions.gather(paths)
    reports = {name: report | marking.score(report) for name, report in reports.items()}
    boxes = Boxes(made_by, len(works))
    grader = Grader(boxes, seconds, memory, marking.notebooks)
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    jobs = jobs or max(1, min(len(works), len(allowed) or os.cpu_count() or 1, MOST_JOBS))
    pool = ThreadPoolExecutor(jobs, initializer=processors(allowed))
    try:
        waiting = [pool.submit(grader.report, one, reports.get(one.name)) for one in works]
        for done, each in enumerate(as_completed(waiting), 1):
            report = each.result()
            report |= marking.score(report)
            reports[report["submission"]] = report
            keep(report, out)
            marks.write(reports, out, marking)
            progress(report, done, len(works))
            yield report
        for report in reports.values():
            keep(report, out)
        marks.write(reports, out, marking)
    finally:
        boxes.close()
        pool.shutdown(cancel_futures=True)


def processors(allowed: Sequence[int]) -> Callable[[], None]:
    """What gives each thread, and so its boxes, a processor of its own: who spins on all would slow down others."""
    turn = itertools.cycle(allowed)
    return lambda: os.sched_setaffinity(0, {next(turn)}) if allowed else None


def keep(report: dict, out: Path) -> None:
    """Writes a report's JSON and its page, where they are not so already."""
    page = out / f"{report['submission']}.html"
    data = {out / f"{report['submission']}.json": json.dumps(report, indent=2) + "\n", page: marks.page(report)}
    for path, text in data.items():
        if not path.exists() or path.read_bytes() != text.encode():
            write_bytes(text.encode(), path, overwrite=True)


def before(out: Path) -> dict[str, dict]:
    """The reports that an earlier run left in a folder, by submission."""
    found = {}
    for path in sorted(out.glob("*.json")):
        try:
            report = json.loads(read_bytes(path))
            if report["submission"] == path.stem and {"digest", "exercises", "reason"} <= report.keys():
                found[path.stem] = report
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


class Boxes:
    """Boxes, one for each submission; for each thread the next one is started ahead."""

    def __init__(self, made_by: Engine, works: int):
        self.made_by, self.works, self.local, self.lock = made_by, works, threading.local(), threading.Lock()
        self.made: set[Box] = set()
        self.ahead, self.closed = 0, False

    def take(self) -> Box:
        """A box that nothing has run in; DTSError where three in a row do not start: that is no submission's fault."""
        for attempt in range(3):
            box = self._start()
            with self.lock:
                more = self.works > self.ahead
                self.ahead += more
            self.local.next = self._make() if more else None
            try:
                box.wait()
                return box
            except DTSError:
                self.discard(box)
                if attempt == 2:
                    raise
        raise AssertionError

    def _start(self) -> Box:
        box, self.local.next = getattr(self.local, "next", None), None
        with self.lock:
            self.ahead -= box is not None
        return box or self._make()

    def _make(self) -> Box:
        with self.lock:
            if self.closed:
                raise Lost("was interrupted")
            box = Box(self.made_by)
            self.made.add(box)
            return box

    def begun(self) -> None:
        """One submission less is waiting."""
        with self.lock:
            self.works -= 1

    def discard(self, box: Box) -> None:
        box.close()
        with self.lock:
            self.made.discard(box)

    def close(self) -> None:
        """Ends all boxes, those in use too."""
        with self.lock:
            self.closed = True
            for box in self.made:
                box.kill()


class Grader:
    """Grades submissions, in as many threads as one likes."""

    def __init__(self, boxes: Boxes, seconds: float, memory: int, notebooks: Sequence[str]):
        self.boxes, self.seconds, self.memory, self.notebooks = boxes, seconds, memory, notebooks
        known_shapes()  # before any thread: Python 3.11 and 3.12 count the depth of a parse once for all threads

    def report(self, one: submissions.Submission, known: dict | None) -> dict:
        """The report of a submission; ``known`` where that is of the same files and the same exercises."""
        self.boxes.begun()
        report = {
            **{"submission": one.name, "id": one.id, "files": [], "points": 0.0, "max": 0.0, "passed": 0, "of": 0},
            **{"reason": "", "notes": [], "isolation": self.boxes.made_by.kind, "digest": "", "exercises": {}},
        }
        files, reasons, digest = [], list(one.reasons), hashlib.sha256(course().encode())
        digest.update(repr((report["isolation"], self.notebooks, self.seconds, self.memory, one.reasons)).encode())
        room = LARGEST
        for file in sorted(one.files, key=lambda file: (file.name, str(file.path), file.zipped)):
            try:
                data = file.read()
                room -= len(data)
                if room < 0:
                    reasons.append(
                        f"holds more than {LARGEST // 2**20} MiB of notebooks: {file.name} and later ones were left"
                    )
                    break
            except FileError as error:
                reasons.append(f"{file.name}: {error}")
                continue
            digest.update(hashlib.sha256(data).digest())
            files.append([marks.shown(file.name), base64.b64encode(data).decode()])
        report |= {"files": [name for name, _ in files], "digest": digest.hexdigest()}
        if known and known["digest"] == report["digest"]:
            return known
        if files:
            self.judge(report, files, reasons)
        elif not reasons:
            reasons.append("holds no notebook")
        report["reason"] = "; ".join(marks.shown(reason)[:300] for reason in reasons[:5])
        report["of"] = len(report["exercises"])
        report["passed"] = sum(entry["status"] == "passed" for entry in report["exercises"].values())
        return report

    def judge(self, report: dict, files: list, reasons: list[str]) -> None:
        """Fills in the exercises, the notes and the reasons."""
        order = {"notebooks": files, "names": list(EXERCISES), "memory": self.memory * 2**20}
        order["cpu"] = math.ceil(self.seconds * PATIENCE)
        patience = self.seconds * PATIENCE
        box, losses, last = None, 0, Lost()
        try:
            box, told = self.opened(order)
            report["notes"] += told["notes"]
            reasons += told["reasons"]
            found, errors = told["found"], told["errors"]
            owed = {exercise.notebook for exercise in EXERCISES.values() if exercise.notebook[:2] in self.notebooks}
            owed = owed or {EXERCISES[name].notebook for name in {*found, *errors}}
            if not found and not errors and not reasons:
                reasons.append("holds no function of an exercise")
            for name, exercise in EXERCISES.items():
                if exercise.notebook not in owed:
                    continue
                entry = report["exercises"][name] = blank(name, found.get(name), errors.get(name))
                if name not in found:
                    continue
                if losses >= LOSSES or patience < self.seconds / 10:
                    why = f"{LOSSES} functions before it had to be stopped" if losses >= LOSSES else "no time was left"
                    entry |= {"status": "stopped", "message": f"not run: {why}"}
                    continue
                begun = time.monotonic()
                try:
                    box = box or self.opened(order)[0]
                    begun = time.monotonic()  # how long a box takes to start is not the submission's fault
                    said = verdict(exercise, Remote(box, name, begun + min(self.seconds, patience)))
                    entry |= {
                        "status": said.status,
                        "message": marks.shown(said.message)[:1000],
                        "call": said.call[:300],
                    }
                    entry |= {"hint": said.hint and said.hint[0], "checks": said.checks}
                except Lost as lost:
                    entry |= {"status": "stopped", "message": marks.shown(str(lost))}
                    losses, last = losses + 1, lost
                    if box:
                        self.boxes.discard(box)
                    box = None
                patience -= time.monotonic() - begun
            report["notes"] += stood_in(report["exercises"], found)
            if losses:
                reasons.append(f"{losses} of its functions had to be stopped: {last}")
        except Lost as lost:
            reasons.append(str(lost))
        finally:
            if box:
                self.boxes.discard(box)

    def opened(self, order: dict) -> tuple[Box, dict]:
        """A fresh box with a submission in it, and what was read there before anything ran."""
        box = self.boxes.take()
        try:
            told = box.ask(order, 2 * self.seconds)
            texts = lambda entries: [marks.shown(str(each))[:300] for each in list(entries)[:50]]
            found = {
                name: {
                    **{"shape": str(about["shape"]), "size": int(about["size"])},
                    **{key: texts(about[key]) for key in ("library", "seldom", "calls")},
                }
                for name, about in told["found"].items()
                if name in EXERCISES
            }
            errors = {name: marks.shown(str(text))[:300] for name, text in told["errors"].items() if name in EXERCISES}
            return box, {
                **{"found": found, "errors": errors},
                **{"reasons": texts(told["reasons"]), "notes": texts(told["notes"])},
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.boxes.discard(box)
            raise Lost("answered in no known form") from error
        except BaseException:
            self.boxes.discard(box)
            raise


def blank(name: str, about: dict | None, error: str | None) -> dict:
    """An exercise's entry in a report, before its function was asked."""
    entry = {"status": "missing", "message": "there is no function of this name", "call": "", "hint": None}
    if error:
        entry |= {"status": "failed", "message": f"failed: {error}"}
    return entry | {"checks": 0, "of": len(EXERCISES[name].checks), "flags": flags(name, about) if about else []}


class Remote:
    """A submission's function: arguments go to its box, and the result, or the exception by its name, comes back."""

    def __init__(self, box: Box, name: str, deadline: float):
        self.box, self.name, self.deadline = box, name, deadline

    def __call__(self, *arguments: Any) -> Any:
        values = Values()
        message = {"name": self.name, "arguments": values.pack(arguments, views=True)}
        reply = self.box.ask(message, max(0.0, self.deadline - time.monotonic()))
        try:
            stub, raised = reply.get("stub") is True, reply.get("raised")
            value = values.unpack(reply["value"]) if raised is None or "value" in reply else None
            if raised is not None:
                kind, text, line = map(str, raised)
                error = type(kind if kind.isidentifier() else "Exception", (Exception,), {})(text)
                if line:
                    error.add_note(f"your line: {line}")
        except Exception as error:
            raise Lost("answered in no known form") from error
        if stub:
            raise NotAttempted
        if raised is not None:
            raise error
        return value


# --- what is told of a function beside its verdict ---


def flags(name: str, about: dict) -> list[str]:
    """Words on a function that may not be its author's own."""
    given = _library(EXERCISES[name].reference) if name in EXERCISES else set()
    found = [f"takes {taken} from the library" for taken in about["library"] if taken not in given]
    found += [f"uses {', '.join(about['seldom'])}"] if about["seldom"] else []
    if about["size"] >= ALIKE and (source := known_shapes().get(about["shape"])):
        found.append(f"is {source}, names aside")
    return found


@cache
def known_shapes() -> dict[str, str]:
    """The functions that a learner could have copied, by their shape."""
    shapes = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE.parent).with_suffix("")
        if "course" not in where.parts:
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.FunctionDef):
                    shapes[learned.shape(node)[0]] = f"the library's {'.'.join(where.parts)}.{node.name}"
    for name, exercise in EXERCISES.items():
        source = textwrap.dedent(inspect.getsource(exercise.reference))
        shapes[learned.shape(ast.parse(source).body[0])[0]] = f"the published solution of {name}"
    return shapes


def stood_in(exercises: Mapping[str, dict], found: Mapping[str, dict]) -> list[str]:
    """Notes on failed functions that call others that failed: in the notebook the solution stood in for those."""
    failed = [name for name, entry in exercises.items() if entry["status"] != "passed"]
    return [
        f"{name} calls {called}, which did not pass: in the notebook the solution stood in for it; look at it by hand"
        for name in failed
        for called in found.get(name, {"calls": ()})["calls"]
        if called in failed
    ]


@cache
def course() -> str:
    """A digest of the exercises: with others, all is graded again."""
    sources = [
        inspect.getsource(import_module(m)) for m in sorted({e.reference.__module__ for e in EXERCISES.values()})
    ]
    return hashlib.sha256("".join(sources).encode()).hexdigest()
