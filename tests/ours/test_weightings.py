"""Weightings beside the paper's, and when to use none of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dts_mini import DTSError, fusion_weights
from dts_mini.ours.weightings import (
    WEIGHTINGS,
    abstention,
    centred_weights,
    hedged_weights,
    least_regret,
    nearness,
    softmax_weights,
    top_weights,
    uniform_weights,
)

VECTOR = st.lists(st.integers(-5, 5).map(float), min_size=3, max_size=3).filter(any)
SEEN = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [-1, 0, 0]])
EVERY = {**WEIGHTINGS, "uniform": uniform_weights}


@pytest.mark.parametrize("weigh", EVERY.values(), ids=EVERY)
@given(unseen=VECTOR, seen=st.lists(VECTOR, min_size=2, max_size=6))
def test_weights_are_shares_that_do_not_depend_on_the_order_of_the_tasks(weigh, unseen, seen):
    unseen, seen = torch.tensor(unseen, dtype=torch.float64), torch.tensor(seen, dtype=torch.float64)
    weights = weigh(unseen, seen)
    assert weights.shape == (len(seen),) and (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(1)
    # Of equally near tasks top-k takes one, whichever: what does not depend on the order is the cosines' weighted sum.
    cosines = lambda rows: torch.nn.functional.cosine_similarity(unseen[None], rows)
    turned = seen.flip(0)
    assert (weights @ cosines(seen)).item() == pytest.approx((weigh(unseen, turned) @ cosines(turned)).item(), abs=1e-6)


@pytest.mark.parametrize("weigh", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize(
    ("unseen", "seen", "message"),
    [
        (torch.ones(3), torch.ones(2, 4), "descriptors have shapes"),
        (torch.ones(3), torch.ones(0, 3), "descriptors have shapes|between 1 and the number of seen tasks, 0"),
        (torch.tensor([1.0, float("nan"), 0]), torch.ones(2, 3), "descriptor holds NaN"),
    ],
)
def test_descriptors_that_do_not_fit_are_refused(weigh, unseen, seen, message):
    with pytest.raises(DTSError, match=message):
        weigh(unseen, seen)


@pytest.mark.parametrize("ambient", ["float64", "bfloat16", "meta"])
def test_weights_and_thresholds_do_not_depend_on_pytorchs_default_device_and_dtype(ambient):
    near, gains, unseen = [0.1, 0.3, 0.7], [-1e300, 0.5, 0.5], torch.tensor([1.0, 2, 3])
    work = lambda: (
        [*(weigh(unseen, SEEN) for weigh in EVERY.values()), hedged_weights(unseen, SEEN)],
        abstention(near, gains),
    )
    wanted, threshold = work()
    try:
        if ambient == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, ambient))
        found, other = work()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert other == threshold == 0.3
    for one, weights in zip(found, wanted, strict=True):
        assert one.dtype == weights.dtype and torch.equal(one, weights)


def test_nearness_is_the_largest_cosine():
    assert nearness(torch.tensor([2.0, 2, 0]), SEEN[:1]) == pytest.approx(math.sqrt(0.5))
    assert nearness(torch.tensor([2.0, 2, 0]), SEEN) == pytest.approx(1)
    assert nearness(torch.tensor([1.0, 0, 0]), SEEN[3:]) == pytest.approx(-1)


def test_softmax_goes_from_the_nearest_task_alone_to_equal_weights():
    unseen = torch.tensor([1.0, 0.2, 0])
    assert softmax_weights(unseen, SEEN, temperature=1e-3).tolist() == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert softmax_weights(unseen, SEEN, temperature=1e6).tolist() == pytest.approx([0.25] * 4, abs=1e-5)
    ratio = softmax_weights(unseen, SEEN, temperature=0.5)
    assert math.log(ratio[0] / ratio[2]) == pytest.approx((1 / math.sqrt(1.04) - 0) / 0.5, abs=1e-5)


def test_what_all_tasks_share_counts_for_nothing_in_centred_weights():
    unseen, common = torch.tensor([1.0, 0.2, 0]), torch.tensor([30.0, -20, 10])
    near, far = centred_weights(unseen, SEEN), centred_weights(unseen + common, SEEN + common)
    assert torch.allclose(near, far, atol=1e-5)
    plain = fusion_weights(unseen + common, SEEN + common)
    assert plain.max() - plain.min() < 0.05 < far.max() - far.min()  # the paper's weights see hardly a difference


def test_top_k_of_all_is_the_papers_and_of_one_the_nearest_alone():
    unseen = torch.tensor([1.0, 0.2, 0.3])
    assert torch.allclose(top_weights(unseen, SEEN, k=4), fusion_weights(unseen, SEEN))
    assert top_weights(unseen, SEEN, k=1).tolist() == [1, 0, 0, 0]
    two = top_weights(unseen, SEEN, k=2)
    assert (two > 0).tolist() == [True, True, False, False]
    wanted = fusion_weights(unseen, SEEN)
    assert (two[0] / two[1]).item() == pytest.approx((wanted[0] / wanted[1]).item())


@pytest.mark.parametrize(
    ("weigh", "options", "message"),
    [
        (softmax_weights, {"temperature": 0}, "temperature is 0: it must be above 0"),
        (softmax_weights, {"temperature": float("nan")}, "temperature is nan"),
        (top_weights, {"k": 0}, "k is 0: it must lie between 1 and the number of seen tasks, 4"),
        (top_weights, {"k": 5}, "k is 5"),
    ],
)
def test_options_out_of_range_are_refused(weigh, options, message):
    with pytest.raises(DTSError, match=message):
        weigh(torch.ones(3), SEEN, **options)


# --- abstention ---

CASES = st.lists(st.tuples(st.integers(-10, 10), st.integers(-8, 8)), min_size=1, max_size=7)


@given(CASES)
def test_the_threshold_is_the_best_of_all_and_the_least_of_those(cases):
    near, gains = [n / 10 for n, _ in cases], [g / 8 for _, g in cases]
    total = lambda t: sum(g for n, g in zip(near, gains, strict=True) if n >= t)
    found = abstention(near, gains)
    best = max(total(t) for t in [*near, 2.0])
    assert total(found) == best
    assert all(total(t) < best for t in near if t < found)


def test_where_nothing_gains_a_nearer_task_than_any_seen_may_still_be_fused():
    threshold = abstention([0.2, 0.5], [-0.1, -0.3])
    assert 0.5 < threshold < 0.51


def test_nearness_that_tells_apart_what_gains_is_found():
    assert abstention([0.1, 0.4, 0.9, 0.8], [-0.2, -0.01, 0.3, 0.1]) == 0.8


@pytest.mark.parametrize(
    ("near", "gains", "message"),
    [([], [], "at least one"), ([1.0], [], "1 nearnesses and 0 gains"), ([float("nan")], [0.0], "NaN")],
)
def test_nearnesses_and_gains_that_do_not_fit_are_refused(near, gains, message):
    with pytest.raises(DTSError, match=message):
        abstention(near, gains)


def test_least_regret_looks_at_the_worst_task_then_at_the_mean_then_takes_the_first():
    bar = [0.9, 0.5]
    assert least_regret({"bold": [1.0, 0.3], "safe": [0.85, 0.45]}, bar) == "safe"
    alike = {"safe": [0.75, 0.375], "safe and better": [1.0, 0.375]}  # binary fractions: both fall short by an eighth
    assert least_regret(alike, [0.875, 0.5]) == "safe and better"
    assert least_regret({0.5: [0.8, 0.5], 0.75: [0.8, 0.5]}, bar) == 0.5
    for bad in ({}, {"base": [0.5]}, {"base": [0.5, 0.5], "zero-shot": [0.5]}):
        with pytest.raises(DTSError, match="accuracies on the tasks of the bar"):
            least_regret(bad, bar)
    with pytest.raises(DTSError, match="at least one choice and one task"):
        least_regret({"base": []}, [])


@given(st.dictionaries(st.integers(0, 5), st.lists(st.integers(0, 8), min_size=3, max_size=3), min_size=1))
def test_no_choice_is_safer_than_the_one_of_least_regret(rows):
    lead = lambda choice: min(a - b for a, b in zip(rows[choice], [4, 2, 6], strict=True))
    assert lead(least_regret(rows, [4, 2, 6])) == max(map(lead, rows))


# --- hedging ---


@given(unseen=VECTOR, seen=st.lists(VECTOR, min_size=1, max_size=6))
def test_hedged_weights_are_the_papers_times_nearness(unseen, seen):
    unseen, seen = torch.tensor(unseen, dtype=torch.float64), torch.tensor(seen, dtype=torch.float64)
    hedged = hedged_weights(unseen, seen)
    assert hedged.sum().item() == pytest.approx(max(nearness(unseen, seen), 0), abs=1e-9)
    if nearness(unseen, seen) > 1e-6:
        assert torch.allclose(hedged / hedged.sum(), fusion_weights(unseen, seen), atol=1e-6)


def test_a_twin_is_fused_wholly_and_a_task_that_points_away_not_at_all():
    twin = torch.tensor([1.0, 0, 0])
    assert torch.allclose(hedged_weights(twin, SEEN), fusion_weights(twin, SEEN))
    assert hedged_weights(twin, SEEN[3:]).tolist() == [0]
