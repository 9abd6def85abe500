"""What an exercise is, and what its checks say of an answer; ``answers.py`` and ``grade.py`` ask.

Exercise functions take and return plain values (numbers, strings, tensors, and lists, tuples, dicts of them), so that
grading can call a learner's function in another process.
"""

import ast
import dis
import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, isclose

from dts_mini.course.raised import is_stub, own_line

Candidate = Callable[..., Any]


class Wrong(Exception):
    """What a check says: what was expected, and what came."""


class NotAttempted(BaseException):
    """The candidate is still the stub; no Exception, so that no check takes it for one."""


@dataclass(frozen=True, eq=False)
class Exercise:
    """A function that learners write, and all that is known of it.

    ``checks`` take the candidate and raise Wrong; ``hints`` are (symptom, text), gentlest first; ``wrong`` gives for a
    symptom a plausible wrong function that shows it, for the tests and for telling learners what they probably did.
    ``start`` says how to begin, ``skeleton`` is code with ``...`` where the thinking belongs: the first and the last
    rung of the hints. ``pace``: arguments of a size at which a loop over elements takes a hundred times as long;
    ``faster``: what to do about it.

    An answer may call of dts_mini what the reference calls, and nothing else: it is to be the learner's own.
    """

    name: str
    notebook: str
    difficulty: str
    minutes: int
    reference: Candidate
    checks: tuple[Callable[[Candidate], None], ...]
    hints: tuple[tuple[str, str], ...]
    wrong: Mapping[str, Candidate]
    start: str = ""
    skeleton: str = ""
    pace: tuple = ()
    faster: str = "use operations on whole tensors, not a loop"

    def __post_init__(self):
        if self.skeleton and (problem := _unlike(self.skeleton, self.reference)):
            raise ValueError(f"exercise {self.name!r}: its skeleton {problem}")
        if self.reference.__name__ != self.name:
            raise ValueError(f"exercise {self.name!r}: its reference is called {self.reference.__name__!r}")
        if unknown := set(self.wrong) - set(dict(self.hints)):
            raise ValueError(f"exercise {self.name!r}: no hint is headed {min(unknown)!r}")

    @property
    def ladder(self) -> tuple[tuple[str, str], ...]:
        """The hints as they are given, (head, text): how to start, the symptoms, a skeleton."""
        start = (("how to start", self.start),) if self.start else ()
        skeleton = (("a skeleton: replace each ...", self.skeleton),) if self.skeleton else ()
        return (*start, *self.hints, *skeleton)


def _unlike(skeleton: str, reference: Candidate) -> str:
    """What keeps a text from being a skeleton of a function; '' where nothing does."""
    try:
        node = ast.parse(skeleton).body[-1]
    except (SyntaxError, IndexError):
        return "is no Python"
    if not isinstance(node, ast.FunctionDef) or node.name != reference.__name__:
        return f"does not define {reference.__name__}"
    if [each.arg for each in node.args.args] != list(inspect.signature(reference).parameters):
        return "has other parameters than the reference"
    blank = lambda each: isinstance(each, ast.Constant) and each.value is ...
    return "" if any(map(blank, ast.walk(node))) else "leaves nothing to do: put ... where the thinking belongs"


class Verdict(NamedTuple):
    """``status`` is passed, failed or not attempted; ``checks`` of all the exercise's that passed, for partial credit.

    ``call`` is the one that showed the failure; ``hint`` (symptom, text) where the mistake is a known one.
    """

    status: str
    message: str
    hint: tuple[str, str] | None = None
    call: str = ""
    checks: int = 0


def verdict(exercise: Exercise, candidate: Candidate) -> Verdict:
    """What the checks say of a candidate; whatever it raises is a verdict too."""
    if not callable(candidate):
        return Verdict("failed", f"failed: expected a function, got {_kind(candidate)}")
    if taken := _library(candidate) - _library(exercise.reference):
        return Verdict("failed", f"failed: expected code of your own, got {min(taken)}: write what it does yourself")
    problems = _problems(exercise, candidate)
    if not problems:
        return Verdict("passed", f"passed, {len(exercise.checks)} checks", checks=len(exercise.checks))
    if all(message == STUB for message, _ in problems.values()) and len(problems) == len(exercise.checks):
        return Verdict("not attempted", "not attempted yet")
    message, call = next(iter(problems.values()))
    hint = _hint(exercise, candidate, set(problems))
    return Verdict("failed", f"failed: {message}", hint, call, len(exercise.checks) - len(problems))


def pace(exercise: Exercise, candidate: Candidate, slow: float = 100, seconds: float = 0.05) -> str:
    """A remark on a right answer that takes ``slow`` times as long as the reference on the exercise's ``pace``, or ''.

    Less than ``seconds`` is never slow.
    """
    if not exercise.pace:
        return ""
    taken = lambda function: min(_seconds(function, exercise.pace) for _ in range(2))
    mine = _seconds(candidate, exercise.pace)
    if mine < seconds or (ratio := mine / max(taken(exercise.reference), 1e-7)) < slow:
        return ""
    ratio = float(f"{ratio:.1g}")
    return f"  right, but about {ratio:,.0f} times slower than it can be: {exercise.faster}"


def _seconds(function: Candidate, arguments: tuple) -> float:
    arguments = deepcopy(arguments)
    begun = time.perf_counter()
    try:
        function(*arguments)
    except Exception:  # it was right on the checks' inputs; how fast it raises is no matter
        return 0.0
    return time.perf_counter() - begun


def _library(function: Candidate) -> set[str]:
    """What of dts_mini, its course left out, a function and the functions of the same notebook that it calls use."""
    found, waiting, seen = set(), [function], set()
    while waiting:
        here = waiting.pop()
        if _is_library(getattr(here, "__module__", None)):
            found.add(f"{here.__module__}.{getattr(here, '__name__', '')}")
        code, space = getattr(here, "__code__", None), getattr(here, "__globals__", {})
        if code is None or id(code) in seen:
            continue
        seen.add(id(code))
        taken, imported = _taken(code)
        found |= set(filter(_is_library, imported))
        for value in (space.get(name) for name in taken):
            if isinstance(value, ModuleType) and _is_library(value.__name__):
                found.add(value.__name__)
            elif hasattr(value, "__qualname__"):  # a function or a class
                own = getattr(value, "__globals__", None) is space
                waiting += [value] if own or _is_library(value.__module__) else []
    return found


def _is_library(module: str | None) -> bool:
    return isinstance(module, str) and f"{module}.".startswith("dts_mini.") and "dts_mini.course" not in module


def _taken(code: CodeType) -> tuple[set[str], set[str]]:
    """(global names, modules imported) of a function and those within it."""
    steps = list(dis.get_instructions(code))
    taken = {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    imported = {step.argval for step in steps if step.opname == "IMPORT_NAME"}
    for inner in (each for each in code.co_consts if isinstance(each, CodeType)):
        more, others = _taken(inner)
        taken, imported = taken | more, imported | others
    return taken, imported


FEW = 12  # numbers of a tensor that a message shows
STUB = "expected a result, got NotImplementedError: your function still says raise NotImplementedError"


def _problems(exercise: Exercise, candidate: Candidate) -> dict[int, tuple[str, str]]:
    """For each check that fails, by its number, what is wrong and the call that showed it."""
    problems = {}
    for number, run in enumerate(exercise.checks, 1):
        asked = Asked(candidate, exercise.name)
        try:
            run(asked)
            continue
        except NotAttempted:
            message = STUB
        except Wrong as wrong:
            message = str(wrong)
        except (Exception, SystemExit) as error:
            message = f"check {number} expected a result, got {_show(error)}"
        problems[number] = message, asked.call
    return problems


class Asked:
    """A candidate as checks see it. Each call gets copies of its arguments, so that no answer spoils another's.

    ``after``: the last call's arguments, as the candidate left them; ``call``: that call in a few words.
    """

    def __init__(self, candidate: Candidate, name: str = ""):
        self.candidate, self.name = candidate, name
        self.after, self.call, self.inputs = (), "", []

    def __call__(self, *arguments: Any) -> Any:
        self.after = deepcopy(arguments)
        self.call = f"{self.name}({', '.join(map(_argument, arguments))})"
        self.inputs.append(arguments)
        try:
            return self.candidate(*self.after)
        except Exception as error:
            if is_stub(error, self.name):
                raise NotAttempted from None
            if line := own_line(error, getattr(self.candidate, "__globals__", None)):
                error.add_note(f"your line: {line}")
            raise


def _hint(exercise: Exercise, candidate: Candidate, failed: set[int]) -> tuple[str, str] | None:
    """The hint of the mistake that does on all inputs just what the candidate does, and fails in the same checks."""
    mistakes = {symptom: _outcomes(exercise, mistake) for symptom, mistake in exercise.wrong.items()}
    try:
        for found in _outcomes(exercise, candidate):
            same = lambda other, found=found: not any(map(difference, found, other))
            mistakes = {symptom: others for symptom, others in mistakes.items() if same(next(others))}
    except (NotAttempted, Exception, SystemExit):  # what cannot be compared is no known mistake
        return None
    told = (symptom for symptom in mistakes if set(_problems(exercise, exercise.wrong[symptom])) == failed)
    return next(((symptom, dict(exercise.hints)[symptom]) for symptom in told), None)


def _outcomes(exercise: Exercise, function: Candidate) -> Iterator[tuple[Any, tuple]]:
    asked = Asked(function, exercise.name)
    return (_outcome(asked, arguments) for arguments in _inputs(exercise))


def _outcome(asked: Asked, arguments: tuple) -> tuple[Any, tuple]:
    """What a function returns, or the exception that it raises, and its arguments afterwards."""
    try:
        return asked(*arguments), asked.after
    except Exception as error:
        return error, asked.after


@cache
def _inputs(exercise: Exercise) -> list[tuple]:
    """The arguments of all calls that the checks make of a right answer."""
    asked = Asked(exercise.reference, exercise.name)
    for run in exercise.checks:
        run(asked)
    return asked.inputs


# --- for writing checks ---

CHANGED = "expected the inputs to stay as they are, got changed ones: write into a copy, x.clone(), or a new tensor"


def case(reference: Candidate, *inputs: Any) -> Callable[[Candidate], None]:
    """A check: on ``inputs`` the candidate gives what the reference gives, and leaves them as they are."""

    def run(candidate: Candidate) -> None:
        asked = candidate if isinstance(candidate, Asked) else Asked(candidate)
        found, after = _outcome(asked, inputs)
        problem = difference(found, _outcome(Asked(reference), inputs)[0])
        if not problem and difference(after, inputs):
            problem = CHANGED
        if problem:
            raise Wrong(problem)

    return run


def difference(found: Any, wanted: Any, where: str = "") -> str:
    """'expected ..., got ...' for the first difference that matters, or '' where there is none.

    Floats may differ by rounding (1e-4 relative, 1e-5 absolute), integers not at all. A number may be Python's, numpy's
    or a tensor of one element.

    >>> difference([1.0, 3.0], (1.0, 2.0))
    'expected 2.0 at position 1, got 3.0'
    """
    tell = lambda expected, got: f"expected {expected}{where}, got {got}"
    if isinstance(wanted, Exception) or isinstance(found, Exception):
        return "" if type(found).__name__ == type(wanted).__name__ else tell(_show(wanted), _show(found))
    if found is None and wanted is not None:
        return tell(_show(wanted), "None: is there a return?")
    if isinstance(wanted, Tensor):
        if not wanted.ndim and _is_number(found):
            return difference(found, wanted.item(), where)
        if not isinstance(found, Tensor):
            return tell(f"a tensor of shape {tuple(wanted.shape)}", _kind(found))
        if found.shape != wanted.shape:
            return tell(f"shape {tuple(wanted.shape)}", tuple(found.shape))
        if found.is_floating_point() != wanted.is_floating_point():
            kind = "floats" if wanted.is_floating_point() else "whole numbers"
            return tell(f"{kind}, {wanted.dtype}", found.dtype)
        close = isclose(found.double(), wanted.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
        if close.all():
            return ""
        if wanted.numel() <= FEW or (first := int(close.flatten().int().argmin())) < 4:
            return tell(_show(wanted), _show(found))
        place = [int(i) for i in np.unravel_index(first, wanted.shape)]
        return tell(f"{_show(wanted.flatten()[first])} at {place}", _show(found.flatten()[first]))
    if isinstance(wanted, Mapping):
        if not isinstance(found, Mapping):
            return tell("a dict", _kind(found))
        if set(found) != set(wanted):
            return tell(f"the keys {sorted(map(str, wanted))}", sorted(map(str, found)))
        return next(filter(None, (difference(found[k], wanted[k], f"{where} under {k!r}") for k in wanted)), "")
    if isinstance(wanted, tuple | list):
        if not isinstance(found, tuple | list) or len(found) != len(wanted):
            got = f"{len(found)}" if isinstance(found, tuple | list) else _kind(found)
            return tell(f"{len(wanted)} values", got)
        parts = (
            difference(f, w, f"{where} at position {i}") for i, (f, w) in enumerate(zip(found, wanted, strict=True))
        )
        return next(filter(None, parts), "")
    if isinstance(found, np.generic | np.ndarray | Tensor) and math.prod(found.shape) == 1:
        found = found.item()
    if _is_number(wanted):
        if not _is_number(found):
            return tell("a number", _kind(found))
        close = found == wanted
        if isinstance(wanted, float):
            close = close or math.isclose(found, wanted, rel_tol=1e-4, abs_tol=1e-5)
            close = close or (math.isnan(found) and math.isnan(wanted))
        return "" if close else tell(_show(wanted), _show(found))
    return "" if type(found) is type(wanted) and found == wanted else tell(_show(wanted), _show(found))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    name = type(value).__name__.replace("ndarray", "numpy array")
    return "None" if value is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _show(value: Any, most: int = 120) -> str:
    """A value in a few words, for a message."""
    try:
        if isinstance(value, Tensor):
            few = value.numel() <= FEW
            text = (
                str(_rounded(value.tolist()))
                if few
                else f"a tensor whose first values are {_show(value.flatten()[:4])}"
            )
        elif isinstance(value, BaseException):
            text = f"{type(value).__name__}: {value}".rstrip(": ")
            notes = getattr(value, "__notes__", ())
            return " ".join([text if len(text) <= most else text[:most] + " ...", *(f"({note})" for note in notes)])
        elif isinstance(value, tuple | list | Mapping) and any(isinstance(each, Tensor) for each in _parts(value)):
            text = _argument(value)
        else:
            text = repr(_rounded(value))
    except Exception:
        text = _kind(value)
    return text if len(text) <= most else text[:most] + " ..."


def _parts(value: tuple | list | Mapping) -> Iterable:
    return value.values() if isinstance(value, Mapping) else value


def _argument(value: Any) -> str:
    """An argument as a learner would type it, as far as it is short."""
    if isinstance(value, Tensor):
        whole = value.numel() <= FEW
        return f"tensor({_rounded(value.tolist())})" if whole else f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_argument(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_argument, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if len(value) == 1 else f"({inner})"
    return _show(value, 60)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") + 0.0  # no -0.0
    return type(value)(map(_rounded, value)) if type(value) in (list, tuple) else value
