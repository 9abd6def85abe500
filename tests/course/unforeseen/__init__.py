"""Answers to the exercises, as learners give them; written from the learner's notebooks, without a look at the checks.

Beside each: whether the text calls it right or wrong. A wrong one may name the hint that is true of it; it may draw
no other.
"""

from typing import NamedTuple

from dts_mini.course.exercise import Candidate


class Answer(NamedTuple):
    """``hint``: the symptom that this answer shows, of those that its exercise's hints are headed by; '' for none."""

    exercise: str
    label: str
    expected: str
    function: Candidate
    hint: str = ""


ANSWERS: list[Answer] = []


def right(exercise: str, label: str, function: Candidate | None = None):
    """Note a right answer; without a function: the decorator that does."""
    return _note(Answer(exercise, label, "passed", lambda: None), function)


def wrong(exercise: str, label: str, function: Candidate | None = None, hint: str = ""):
    """Note a wrong answer; without a function: the decorator that does."""
    return _note(Answer(exercise, label, "failed", lambda: None, hint), function)


def _note(answer: Answer, function: Candidate | None):
    def noted(function: Candidate) -> Candidate:
        ANSWERS.append(answer._replace(function=function))
        return function

    return noted if function is None else noted(function)
