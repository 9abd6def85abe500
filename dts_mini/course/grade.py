"""Grading (``dts-mini grade``): the exercises of submitted notebooks, by function name, one process a submission.

From a notebook are taken only the imports of an allow-list and the functions that are called as exercises are. They
run in ``sandbox.py``, in an empty temporary folder and a bare environment, under limits of time and memory, without a
network. That process is only asked for values. The checks run here, where none of the learner's code is ever loaded,
so printing, exiting and tampering there cannot make a check pass: only right values can.

What this does not stop: a function written to tell a check's inputs from others, or one that calls the core's own
solution. Where Linux's user namespaces or Landlock are missing (macOS), an audit hook in Python is all that
keeps submissions from files and network: grade strangers' work in a container there. ``held`` in the JSON says what held.
"""

import contextlib
import csv
import io
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import check_writable, read_bytes, write_bytes, write_json
from dts_mini.course import sandbox
from dts_mini.course.exercise import Candidate, verdict
from dts_mini.course.exercises import EXERCISES

LARGEST_NOTEBOOK = 50 * 2**20
LARGEST_REPLY = 16 * 2**20
START = 120  # seconds: importing torch on a cold disk
LOSSES = 3  # functions that may be stopped before the rest of a submission is left


class Lost(BaseException):
    """The submission's process gave no answer that can be used; no Exception, so that no check takes it for one."""


def grade_class(
    submissions: Sequence[Path], out: Path, *, seconds: float = 10, memory: int = 1024, overwrite: bool = False
) -> Iterator[dict]:
    """Grades notebooks one by one into ``out``: a JSON each, and in the end class.csv; yields the reports.

    Raises DTSError before any work when a limit is no limit, or ``out`` cannot be written.
    """
    if not (0 < seconds < math.inf and memory > 0):
        raise DTSError(f"--seconds {seconds} and --memory {memory}: both must be above zero")
    names = submission_names(submissions)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out}: cannot be made a folder ({error.strerror}); choose another") from error
    for name in (*(f"{name}.json" for name in names), "class.csv"):
        check_writable(out / name, overwrite=overwrite)
    reports = []
    for name, path in names.items():
        report = {"submission": name, **grade(path, seconds=seconds, memory=memory)}
        write_json(report, out / f"{name}.json", indent=2, overwrite=overwrite)
        reports.append(report)
        yield report
    write_bytes(class_table(reports).encode(), out / "class.csv", overwrite=overwrite)


def submission_names(paths: Sequence[Path]) -> dict[str, Path]:
    """A name for each file: its own, with those of as many folders before it as tell it from all others."""
    paths = list({Path(os.path.abspath(path)): None for path in paths})
    depths = [1] * len(paths)
    for _ in range(max(len(path.parts) for path in paths)):
        names = ["-".join([*p.parts[1:][-d:-1], p.stem]) for p, d in zip(paths, depths, strict=True)]
        count = Counter(name.casefold() for name in names)
        if len(count) == len(names):
            return dict(zip(names, paths, strict=True))
        depths = [d + (count[name.casefold()] > 1) for name, d in zip(names, depths, strict=True)]
    return {f"{number:03d}-{path.stem}": path for number, path in enumerate(paths, 1)}


def grade(path: Path, *, seconds: float = 10, memory: int = 1024) -> dict:
    """The report of one notebook. Whatever is wrong with it is said in ``reason``, at the cost of its points alone.

    Graded are the exercises of each course notebook of which it holds at least one function.
    """
    report = {"path": str(path), "passed": 0, "of": 0, "reason": "", "notes": [], "held": [], "exercises": {}}
    worker = None
    try:
        order = {"cells": code_cells(path), "names": list(EXERCISES), "memory": memory * 2**20}
        worker = Worker(order, seconds)
        report |= {"held": worker.held, "notes": worker.notes}
        found, errors = set(worker.found), worker.errors
        notebooks = {EXERCISES[name].notebook for name in found | set(errors)}
        if not notebooks:
            report["reason"] = "holds no function of an exercise"
        losses, last = 0, Lost()
        for name, exercise in EXERCISES.items():
            if exercise.notebook not in notebooks:
                continue
            entry = {"status": "missing", "message": "there is no function of this name", "hint": None}
            if name in found and losses < LOSSES:
                try:
                    worker = worker or Worker(order, seconds)
                    entry = judged(worker, name)
                except Lost as lost:
                    entry |= {"status": "stopped", "message": str(lost)}
                    losses, last = losses + 1, lost
                    if worker:
                        worker.close()
                    worker = None
            elif name in found:
                entry |= {"status": "stopped", "message": f"not run: {LOSSES} functions before it had to be stopped"}
            elif name in errors:
                entry |= {"status": "failed", "message": f"failed: {errors[name]}"}
            report["exercises"][name] = entry
        if losses:
            report["reason"] = f"{losses} of its functions had to be stopped: {last}"
    except (DTSError, Lost) as error:
        report["reason"] = str(error)
    finally:
        if worker:
            worker.close()
    report["of"] = len(report["exercises"])
    report["passed"] = sum(entry["status"] == "passed" for entry in report["exercises"].values())
    return report


def judged(worker: "Worker", name: str) -> dict:
    """A function's verdict, by the checks in this process on values from the other."""
    worker.deadline = time.monotonic() + worker.seconds
    found = verdict(EXERCISES[name], worker.candidate(name))
    message = found.message
    if "NameError" in message:
        message += " (of a notebook only imports and the exercises' functions are taken)"
    return {"status": found.status, "message": message, "hint": found.hint and found.hint[0]}


def code_cells(path: Path) -> list[str]:
    """The sources of a notebook's code cells; DTSError when the file is no notebook."""
    if not path.is_file():
        raise FileError("there is no such file")
    if path.stat().st_size > LARGEST_NOTEBOOK:
        raise FileError(f"is larger than {LARGEST_NOTEBOOK // 2**20} MiB")
    try:
        cells = json.loads(read_bytes(path))["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
        return [source if isinstance(source, str) else "".join(source) for source in sources]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError("is no notebook: no JSON with a list of cells") from error


def class_table(reports: Sequence[dict]) -> str:
    """The class as CSV: a row a submission, a column an exercise, in the course's order."""
    columns = [name for name in EXERCISES if any(name in report["exercises"] for report in reports)]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["submission", "passed", "of", *columns, "reason"])
    for report in reports:
        status = [report["exercises"].get(name, {}).get("status", "") for name in columns]
        row = [report["submission"], report["passed"], report["of"], *status, report["reason"]]
        # A spreadsheet runs a cell that begins like a formula.
        writer.writerow([f"'{cell}" if str(cell).startswith(("=", "+", "-", "@")) else cell for cell in row])
    return table.getvalue()


# --- the other process ---


@cache
def isolation() -> tuple[list[str], list[str]]:
    """A command to start a process without network, and without sight of others, and what of the two it gives."""
    pid = ["--pid", "--fork", "--kill-child"]
    for command, held in ((["unshare", "-rn", *pid], ["network", "processes"]), (["unshare", "-rn"], ["network"])):
        if shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True).returncode:
            return command, held
    return [], []


class Worker:
    """A sandbox process with a submission's functions loaded; Lost when it ends, hangs or makes no sense."""

    def __init__(self, order: dict, seconds: float):
        self.folder, self.seconds = tempfile.TemporaryDirectory(prefix="dts-grade-"), seconds
        libraries = {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if key in os.environ}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        home = dict.fromkeys(("HOME", "TMPDIR"), self.folder.name)
        path = json.dumps([entry for entry in sys.path if os.path.isabs(entry)])
        command, held = isolation()
        self.process = subprocess.Popen(
            [*command, sys.executable, "-I", "-B", sandbox.__file__, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder.name,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", **libraries, **threads, **home},
            start_new_session=True,
        )
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.input, False)
        self.rest = b""
        try:
            self.deadline = time.monotonic() + START
            self._send({**order, "cpu": math.ceil(seconds * (len(EXERCISES) + 1))})
            self.held = sorted([*held, *self._line()["held"]])  # written before any of the submission is loaded
            self.deadline = time.monotonic() + seconds
            loaded = self._line()
            self.found = [name for name in loaded["found"] if name in EXERCISES]
            self.errors = {name: str(text) for name, text in loaded["errors"].items() if name in EXERCISES}
            self.notes = [str(note)[:300] for note in loaded["notes"]][:50]
        except (KeyError, TypeError, AttributeError) as error:
            self.close()
            raise Lost("answered in no known form") from error
        except BaseException:
            self.close()
            raise

    def candidate(self, name: str) -> Candidate:
        """The submission's function: arguments go there, and the result, or the exception by its name, comes back."""

        def call(*arguments):
            self._send({"name": name, "arguments": sandbox.encode(arguments)})
            reply = self._line()
            if self.rest:
                raise Lost("answered more often than it was asked")
            try:
                raised, value = reply.get("raised"), sandbox.decode(reply.get("value"))
                if "after" in reply:
                    put_back(arguments, sandbox.decode(reply["after"]))
                error = raised and type(str(raised[0]) or "Exception", (Exception,), {})(str(raised[1]))
            except Exception as error:
                raise Lost("answered in no known form") from error
            if raised:
                raise NotImplementedError if raised[0] == "NotImplementedError" else error
            return value

        call.__name__ = name
        return call

    def _send(self, message: dict) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([], [self.input], [], left)[1]:
                raise Lost(f"gave no answer in {self.seconds:g} s")
            try:
                data = data[os.write(self.input, data) :]
            except OSError as error:
                raise Lost(self._end()) from error

    def _line(self) -> Any:
        parts = [self.rest]  # joined once: a long reply comes in hundreds of pieces
        while b"\n" not in parts[-1]:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.output], [], [], left)[0]:
                raise Lost(f"gave no answer in {self.seconds:g} s")
            if not (data := os.read(self.output, 2**20)):
                raise Lost(self._end())
            parts.append(data)
            if sum(map(len, parts)) > LARGEST_REPLY:
                raise Lost(f"returned more than {LARGEST_REPLY // 2**20} MiB")
        self.rest = b"".join(parts)
        line, _, self.rest = self.rest.partition(b"\n")
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Lost("answered in no known form") from error

    def _end(self) -> str:
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        known = {-signal.SIGXCPU: "used too much processor time", -signal.SIGKILL: "was killed"}
        return known.get(status, f"ended the process, status {status}")

    def close(self) -> None:
        """Ends the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()
        self.folder.cleanup()


def put_back(here: Any, there: Any) -> None:
    """Changes arguments in place as the other process changed its copies of them."""
    if isinstance(here, Tensor):
        here.data = there
    elif isinstance(here, dict):
        here.clear()
        here.update(there)
    elif isinstance(here, list):
        here[:] = there
    elif isinstance(here, tuple):
        for old, new in zip(here, there, strict=True):
            put_back(old, new)
