"""A right answer that loops where one operation does is told so, with what to do; the reference never is."""

import pytest
import torch

from dts_mini.course.exercise import Exercise, pace, verdict
from dts_mini.course.exercises import EXERCISES

PACED = [exercise for exercise in EXERCISES.values() if exercise.pace]


def cosines(unseen, seen):
    return torch.stack([max((row @ unseen) / row.norm() / unseen.norm(), torch.tensor(0.0)) for row in seen])


def shares(cosines):
    return cosines / cosines.sum() if cosines.sum() > 0 else torch.ones(len(cosines)) / len(cosines)


def weights(unseen, seen):
    return shares(cosines(unseen, seen))


def sharpened(unseen, seen, p):
    found = cosines(unseen, seen)
    return shares(found**p) if found.sum() > 0 else shares(found)


def told_apart(ours, other):
    differences = torch.tensor([(ours[i] - other[i]).item() for i in range(len(ours))])
    low, high = differences.quantile(0.025), differences.quantile(0.975)
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def low_rank_forward(x, w, u, s, vh):
    return torch.stack([w @ token + u @ (s * (vh @ token)) for token in x])


def subspace_share(x, vectors):
    chance = vectors.square().sum() / x.shape[1]
    return torch.stack([(vectors @ row).square().sum() / row.square().sum() / chance for row in x])


def leaked(train, test):
    return sum(1 for image in test if image in train)


def moved_cosines(unseen, seen, start):
    return torch.stack([torch.cosine_similarity(unseen - start, row - start, dim=0) for row in seen])


LOOPS = (weights, sharpened, told_apart, low_rank_forward, subspace_share, leaked, moved_cosines)


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_a_loop_that_is_right_is_told_that_it_is_slow(loop):
    exercise = EXERCISES[loop.__name__]
    assert verdict(exercise, loop).status == "passed"
    assert (remark := pace(exercise, loop, slow=20)) and remark.endswith(exercise.faster)


@pytest.mark.parametrize("exercise", PACED, ids=lambda exercise: exercise.name)
def test_the_reference_is_never_called_slow(exercise: Exercise):
    assert pace(exercise, exercise.reference, slow=20) == ""
