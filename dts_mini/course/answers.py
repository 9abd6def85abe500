"""``check`` and ``hint``, which the notebooks call on a learner's answers, and ``whose`` function is in use."""

import sys
from collections import Counter

from dts_mini.course.exercise import Candidate, pace, verdict
from dts_mini.course.exercises import EXERCISES

_given: Counter[str] = Counter()  # hints given so far, in this notebook's session
_stand_ins: set[str] = set()  # exercises whose solution is in use, in this notebook's session


def check(candidate: Candidate) -> Candidate:
    """Prints how the exercise of the candidate's name went; returns the candidate if it passed, else the reference.

    It never raises: a notebook with unsolved exercises runs to its end. What the learner wrote stays there as
    ``NAME_mine``, in the notebook where ``check`` was called.
    """
    notebook = sys._getframe(1).f_globals
    name = getattr(candidate, "__name__", None)
    if name == "<lambda>":  # it goes by the name that the notebook gave it
        name = next((each for each, value in notebook.items() if value is candidate), name)
    if not isinstance(name, str) or name not in EXERCISES:
        kind = type(candidate).__name__
        print(f"failed: expected a function of this course by its own name, got {kind} {name!r}")
        return candidate
    exercise = EXERCISES[name]
    if candidate is exercise.reference:  # an earlier check put it there: it is nobody's answer
        print("not attempted yet: this is the solution; run the cell with your function again")
        return candidate
    found = verdict(exercise, candidate)
    print(found.message)
    if found.status == "passed":
        _stand_ins.discard(name)
        notebook[f"{name}_mine"] = candidate
        if remark := pace(exercise, candidate):
            print(remark)
        return candidate
    _stand_ins.add(name)
    if found.call:
        print(f"  in {found.call[:200]}")
    if found.hint:
        print("hint: {}\n  {}".format(*found.hint))
    if found.status == "failed":
        notebook[f"{name}_mine"] = candidate
        print(f"going on with the solution; yours is {name}_mine")
    else:
        print("going on with the solution")
    return exercise.reference


def whose(*names: str) -> str:
    """Whose functions of these exercises are in use, for a sentence: "your", or "the solution's".

    It is "the solution's" where the solution stands in for one of them, after a failed check.
    """
    for name in names:
        if name not in EXERCISES:
            raise ValueError(f"there is no exercise called {name!r}; there are: {', '.join(EXERCISES)}")
    return "the solution's" if _stand_ins.intersection(names) else "your"


def hint(name: str) -> None:
    """Prints the next hint of an exercise, one step further at each call, and at the end where the solution is.

    First how to start, then what a symptom means, gentlest first, then a skeleton.
    """
    exercise = EXERCISES.get(name)
    if exercise is None:
        print(f"there is no exercise called {name!r}; there are: {', '.join(EXERCISES)}")
        return
    step, rungs = _given[name], exercise.ladder
    if step < len(rungs):
        head, text = rungs[step]
        print(f"{step + 1} of {len(rungs)}: {head}\n" + "\n".join(f"  {line}".rstrip() for line in text.splitlines()))
        _given[name] += 1
    else:
        print(f"no more hints; the solution is in solved/{exercise.notebook}.ipynb, where {name} is defined")
