"""``check`` and ``hint``, which the notebooks call on a learner's answers."""

import sys
from collections import Counter

from dts_mini.course.exercise import Candidate, verdict
from dts_mini.course.exercises import EXERCISES

_given: Counter[str] = Counter()  # hints given so far, in this notebook's session


def check(candidate: Candidate) -> Candidate:
    """Prints how the exercise of the candidate's name went; returns the candidate if it passed, else the reference.

    It never raises: a notebook with unsolved exercises runs to its end.
    """
    name = getattr(candidate, "__name__", None)
    if name == "<lambda>":  # it goes by the name that the notebook gave it
        name = next((each for each, value in sys._getframe(1).f_globals.items() if value is candidate), name)
    if not isinstance(name, str) or name not in EXERCISES:
        kind = type(candidate).__name__
        print(f"failed: expected a function of this course by its own name, got {kind} {name!r}")
        return candidate
    exercise = EXERCISES[name]
    if candidate is exercise.reference:  # an earlier check put it there: it is nobody's answer
        print("not attempted yet (run the cell with your function again)")
        return candidate
    found = verdict(exercise, candidate)
    print(found.message)
    if found.call:
        print(f"  in {found.call[:200]}")
    if found.hint:
        print("hint: {}\n  {}".format(*found.hint))
    return candidate if found.status == "passed" else exercise.reference


def hint(name: str) -> None:
    """Prints the next hint of an exercise, one step further at each call, and at the end where the solution is."""
    exercise = EXERCISES.get(name)
    if exercise is None:
        print(f"there is no exercise called {name!r}; there are: {', '.join(EXERCISES)}")
        return
    step, steps = _given[name], len(exercise.hints)
    if step < steps:
        symptom, text = exercise.hints[step]
        print(f"{step + 1} of {steps}: {symptom}\n  {text}")
        _given[name] += 1
    else:
        print(f"no more hints; the solution is in solved/{exercise.notebook}.ipynb, where {name} is defined")
