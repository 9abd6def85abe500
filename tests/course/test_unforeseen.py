"""Each exercise judges answers that its author did not foresee as its text has it, and no hint names another mistake."""

import importlib
import pkgutil
from collections import Counter

import numpy as np
import pytest
import torch
import unforeseen

from dts_mini.course.exercise import difference, verdict
from dts_mini.course.exercises import EXERCISES

for module in pkgutil.iter_modules(unforeseen.__path__):
    importlib.import_module(f"unforeseen.{module.name}")
ANSWERS = unforeseen.ANSWERS
OF = [pytest.param(answer, id=f"{answer.exercise}: {answer.label}") for answer in ANSWERS]


@pytest.mark.parametrize("name", EXERCISES)
def test_each_exercise_was_tried_with_right_and_wrong_answers(name):
    tried = Counter(answer.expected for answer in ANSWERS if answer.exercise == name)
    assert tried["passed"] >= 2 and tried["failed"] >= 3


def test_no_label_stands_twice():
    assert len({(answer.exercise, answer.label) for answer in ANSWERS}) == len(ANSWERS)


def test_a_hint_that_an_answer_may_draw_is_one_of_its_exercise():
    for answer in filter(lambda answer: answer.hint, ANSWERS):
        assert answer.hint in dict(EXERCISES[answer.exercise].hints), answer.label


@pytest.mark.parametrize("answer", OF)
def test_an_answer_is_judged_as_the_text_has_it(answer):
    found = verdict(EXERCISES[answer.exercise], answer.function)
    assert found.status == answer.expected, found.message
    assert found.hint is None or found.hint[0] == answer.hint  # true of the answer, or none
    if found.status == "failed":
        assert found.call.startswith(f"{answer.exercise}(") and "expected" in found.message


def test_a_message_shows_the_numbers_that_differ_also_far_down_a_large_tensor():
    wanted = torch.zeros(4, 5)
    found = wanted.clone()
    found[2, 3] = 0.5
    assert difference(found, wanted, " under 'w'") == "expected 0.0 at [2, 3] under 'w', got 0.5"
    assert not difference(wanted.clone(), wanted)


def test_numbers_may_be_arrays_of_one_element():
    assert not difference(np.array(3), 3) and not difference(np.array([0.5]), 0.5)
    assert difference(np.array([3, 4]), 3) == "expected a number, got a numpy array"


def test_a_packed_row_that_differs_is_told_in_codes_and_not_in_bytes():
    (answer,) = (each for each in ANSWERS if each.label == "4s and all into two bits")
    found = verdict(EXERCISES["compressed"], answer.function)
    assert "as code number" in found.message and "of the long row, " in found.message


def test_a_result_of_numpy_and_inputs_that_were_written_into_are_told_with_the_mend():
    assert difference(np.ones(2), torch.ones(2)) == "expected a tensor of shape (2,), got a numpy array"

    def averaged(x, codes):
        for code in range(4):
            x[codes == code] = x[codes == code].mean()
        return x

    assert "write into a copy, x.clone()" in verdict(EXERCISES["averaged"], averaged).message
