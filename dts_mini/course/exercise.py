"""Exercises that answer back: what an exercise is, ``check`` and ``hint`` for the notebooks, ``verdict`` for grading.

Exercise functions take and return plain values (numbers, strings, tensors, and lists, tuples, dicts of them), so that
grading can call a learner's function in another process.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, allclose

Candidate = Callable[..., Any]


class Wrong(Exception):
    """A check's verdict: what was expected and what came; ``hint`` is the symptom that heads the hint that fits."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Exercise:
    """A function that learners write, and all that is known of it.

    ``checks`` take the candidate and raise Wrong; ``hints`` are (symptom, text), gentlest first; ``wrong`` gives for a
    symptom a plausible wrong function that shows it, for the tests and for telling learners what they probably did.
    """

    name: str
    notebook: str
    difficulty: str
    minutes: int
    reference: Candidate
    checks: tuple[Callable[[Candidate], None], ...]
    hints: tuple[tuple[str, str], ...]
    wrong: Mapping[str, Candidate]

    def __post_init__(self):
        if self.reference.__name__ != self.name:
            raise ValueError(f"exercise {self.name!r}: its reference is called {self.reference.__name__!r}")
        if unknown := set(self.wrong) - set(dict(self.hints)):
            raise ValueError(f"exercise {self.name!r}: no hint is headed {min(unknown)!r}")


class Verdict(NamedTuple):
    """``status`` is passed, failed or not attempted; ``hint`` (symptom, text) where the mistake is a known one."""

    status: str
    message: str
    hint: tuple[str, str] | None = None


def verdict(exercise: Exercise, candidate: Candidate) -> Verdict:
    """What the checks say of a candidate; whatever it raises is a verdict too."""
    if not callable(candidate):
        return Verdict("failed", f"failed: expected a function, got {_kind(candidate)}")
    for number, run in enumerate(exercise.checks, 1):
        try:
            run(candidate)
        except NotImplementedError:
            return Verdict("not attempted", "not attempted yet")
        except Wrong as wrong:
            text = dict(exercise.hints).get(wrong.hint)
            return Verdict("failed", f"failed: {wrong}", (wrong.hint, text) if text else None)
        except (Exception, SystemExit) as error:
            return Verdict("failed", f"failed: check {number} expected a result, got {_show(error)}")
    return Verdict("passed", f"passed, {len(exercise.checks)} checks")


# --- in the notebooks ---


def check(candidate: Candidate) -> Candidate:
    """Prints how the exercise of the candidate's name went; returns the candidate if it passed, else the reference.

    It never raises: a notebook with unsolved exercises runs to its end.
    """
    exercises, name = _exercises(), getattr(candidate, "__name__", None)
    if not isinstance(name, str) or name not in exercises:
        print(f"failed: expected a function of this course by its own name, got {_kind(candidate)} {name!r}")
        return candidate
    exercise = exercises[name]
    if candidate is exercise.reference:  # an earlier check put it there: it is nobody's answer
        print("not attempted yet (run the cell with your function again)")
        return candidate
    found = verdict(exercise, candidate)
    print(found.message)
    if found.hint:
        print("hint: {}\n  {}".format(*found.hint))
    return candidate if found.status == "passed" else exercise.reference


def hint(name: str) -> None:
    """Prints the next hint of an exercise, one step further at each call, and at the end where the solution is."""
    exercise = _exercises().get(name)
    if exercise is None:
        print(f"there is no exercise called {name!r}; there are: {', '.join(_exercises())}")
        return
    step, steps = _given[name], len(exercise.hints)
    if step < steps:
        symptom, text = exercise.hints[step]
        print(f"{step + 1} of {steps}: {symptom}\n  {text}")
        _given[name] += 1
    else:
        print(f"no more hints; the solution is in solved/{exercise.notebook}.ipynb, where {name} is defined")


_given: Counter[str] = Counter()  # hints given so far, in this notebook's session


def _exercises() -> Mapping[str, Exercise]:
    from dts_mini.course.exercises import EXERCISES  # its modules import this one

    return EXERCISES


# --- for writing checks ---


def case(reference: Candidate, wrong: Mapping[str, Candidate], *inputs: Any) -> Callable[[Candidate], None]:
    """A check: on ``inputs`` the candidate gives what the reference gives, and leaves them as they are.

    A candidate that does here just what a wrong function does gets that one's symptom as its hint.
    """

    def run(candidate: Candidate) -> None:
        found, after = _outcome(candidate, inputs)
        problem = difference(found, _outcome(reference, inputs)[0])
        if not problem and difference(after, inputs):
            problem = "expected the inputs to stay as they are, got changed ones"
        if problem:
            same = lambda other: not difference(found, other[0]) and not difference(after, other[1])
            raise Wrong(problem, next((s for s, mistake in wrong.items() if same(_outcome(mistake, inputs))), None))

    return run


def difference(found: Any, wanted: Any, where: str = "") -> str:
    """'expected ..., got ...' for the first difference that matters, or '' where there is none.

    Floats may differ by rounding (1e-4 relative, 1e-5 absolute), integers not at all.
    """
    tell = lambda expected, got: f"expected {expected}{where}, got {got}"
    if isinstance(wanted, Exception) or isinstance(found, Exception):
        return "" if type(found).__name__ == type(wanted).__name__ else tell(_show(wanted), _show(found))
    if found is None and wanted is not None:
        return tell(_show(wanted), "None: is there a return?")
    if isinstance(wanted, Tensor):
        if not isinstance(found, Tensor):
            return tell(f"a tensor of shape {tuple(wanted.shape)}", _kind(found))
        if found.shape != wanted.shape:
            return tell(f"shape {tuple(wanted.shape)}", tuple(found.shape))
        if found.is_floating_point() != wanted.is_floating_point():
            return tell(f"{wanted.dtype}", found.dtype)
        close = allclose(found.double(), wanted.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
        return "" if close else tell(_show(wanted), _show(found))
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
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        if isinstance(found, Tensor) and found.numel() == 1:
            found = found.item()
        if not isinstance(found, int | float) or isinstance(found, bool):
            return tell("a number", _kind(found))
        close = found == wanted
        if isinstance(wanted, float):
            close = close or math.isclose(found, wanted, rel_tol=1e-4, abs_tol=1e-5)
            close = close or (math.isnan(found) and math.isnan(wanted))
        return "" if close else tell(_show(wanted), _show(found))
    return "" if type(found) is type(wanted) and found == wanted else tell(_show(wanted), _show(found))


def _outcome(function: Candidate, inputs: Sequence[Any]) -> tuple[Any, tuple]:
    """What a function returns, or the exception that it raises, and its inputs afterwards."""
    inputs = deepcopy(tuple(inputs))
    try:
        return function(*inputs), inputs
    except NotImplementedError:
        raise
    except Exception as error:
        return error, inputs


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _show(value: Any, most: int = 120) -> str:
    """A value in a few words, for a message."""
    try:
        if isinstance(value, Tensor):
            few = value.numel() <= 12
            text = (
                str(_rounded(value.tolist()))
                if few
                else f"a tensor whose first values are {_show(value.flatten()[:4])}"
            )
        elif isinstance(value, BaseException):
            text = f"{type(value).__name__}: {value}".rstrip(": ")
        else:
            text = repr(_rounded(value))
    except Exception:
        text = _kind(value)
    return text if len(text) <= most else text[:most] + " ..."


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_rounded(v) for v in value] if isinstance(value, list) else value
