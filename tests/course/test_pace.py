"""A loop over elements, right as it is, is told how slow it is, wherever learners are likely to write one."""

import pytest
import torch

from dts_mini.course.exercise import pace, verdict
from dts_mini.course.exercises import EXERCISES


def rank_for_energy(s, share):
    energy, rank = s**2, 1
    while energy[:rank].sum() < share * energy.sum():
        rank += 1
    return rank


def truncation_error(s, rank):
    total = sum(float(x) ** 2 for x in s)
    return (sum(float(x) ** 2 for x in s[rank:]) / total) ** 0.5 if total else 0.0


def averaged(x, codes):
    flat, groups = x.flatten(), codes.flatten().tolist()
    total, count = [0.0] * 5, [0] * 5
    for value, code in zip(flat, groups, strict=True):
        total[code], count[code] = total[code] + value, count[code] + 1
    return torch.stack([torch.as_tensor(total[code] / count[code]) for code in groups]).view(x.shape)


def group_value(x):
    return float(x.sign()[0]) * (sum(float(each) ** 2 for each in x) / len(x)) ** 0.5


def best_value(x, weight):
    return sum(w * each for each, w in zip(x, weight, strict=True)) / sum(weight)


@pytest.mark.parametrize(
    "loop", [rank_for_energy, truncation_error, averaged, group_value, best_value], ids=lambda f: f.__name__
)
def test_a_likely_loop_passes_and_is_told_how_slow_it_is(loop):
    exercise = EXERCISES[loop.__name__]
    assert verdict(exercise, loop).status == "passed"
    assert "times slower than it can be" in pace(exercise, loop, slow=20)
    assert pace(exercise, exercise.reference) == ""
