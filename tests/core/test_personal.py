"""Personalised merging, and models for unseen tasks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dts_mini import (
    DTSError,
    StateError,
    average,
    compress,
    dare,
    fuse,
    fusion_weights,
    personalise,
    rebuild,
    task_arithmetic,
    ties,
)


def distance(x: dict, y: dict) -> float:
    return sum((x[n].double() - y[n].double()).square().sum().item() for n in x) ** 0.5


@pytest.fixture
def named(experts) -> dict:
    return dict(zip(("signs", "digits", "textures"), experts, strict=True))


# --- personalised merging ---


@pytest.mark.parametrize("merge", [None, average, task_arithmetic, ties, dare])
def test_each_expert_is_rebuilt_nearer_than_the_shared_base_over_theta_0_and_any_merge(base, named, merge):
    experts = list(named.values())
    # None: DTS-T, over the pretrained model. average: DTS-D without one.
    shared = base if merge is None else average(experts) if merge is average else merge(base, experts)
    deltas = personalise(shared, named, keep_ratio=1)
    assert list(deltas) == list(named)
    for task, expert in named.items():
        found = rebuild(shared, deltas[task])
        assert distance(found, expert) < 0.6 * distance(shared, expert)
        others = [distance(found, other) for name, other in named.items() if name != task]
        assert distance(found, expert) < min(others)


def test_a_personal_delta_is_that_of_compress_with_the_settings_passed_on(base, named):
    settings = {"keep_ratio": 0.3, "groups": 8, "scale": "mean", "per": "vector"}
    for task, delta in personalise(base, named, **settings).items():
        assert delta.to_bytes() == compress(base, named[task], **settings).to_bytes()


def test_an_expert_that_does_not_fit_is_refused_with_the_tensors_name(base, named):
    named["digits"].pop("embedding")
    with pytest.raises(StateError, match="'embedding'"):
        personalise(base, named)


# --- the weights ---

VECTOR = st.lists(st.integers(-5, 5).map(float), min_size=3, max_size=3).filter(any)


@given(VECTOR, st.lists(VECTOR, min_size=1, max_size=6))
def test_weights_sum_to_one_and_are_the_positive_cosines_over_their_sum(unseen, seen):
    unseen, seen = torch.tensor(unseen, dtype=torch.float64), torch.tensor(seen, dtype=torch.float64)
    weights = fusion_weights(unseen, seen)
    cosines = [max(0.0, (unseen @ c / unseen.norm() / c.norm()).item()) for c in seen]
    total = sum(cosines)
    wanted = [c / total for c in cosines] if total > 1e-9 else None
    assert weights.shape == (len(seen),)
    assert (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(1)
    if wanted:
        assert weights.tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_descriptors_length_does_not_matter():
    unseen, seen = torch.tensor([1.0, 2, 3]), torch.tensor([[1.0, 0, 1], [0, 2, 1]])
    assert torch.allclose(fusion_weights(unseen, seen), fusion_weights(7 * unseen, torch.tensor([[2.0], [5]]) * seen))


def test_a_task_with_a_negative_cosine_weighs_nothing():
    seen = torch.tensor([[1.0, 0], [-1, 0], [1, 1]])
    weights = fusion_weights(torch.tensor([1.0, 0]), seen)
    assert weights.tolist() == pytest.approx([1 / (1 + 0.5**0.5), 0, 0.5**0.5 / (1 + 0.5**0.5)])


def test_all_tasks_weigh_the_same_where_no_cosine_is_positive():
    seen = torch.tensor([[-1.0, 0], [0, 1], [-1, 1]])
    assert fusion_weights(torch.tensor([1.0, 0]), seen).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("unseen", "seen"),
    [((3,), (2, 4)), ((1, 3), (2, 3)), ((3,), (3,)), ((3,), (0, 3)), ((), (2, 3))],
)
def test_descriptors_that_do_not_fit_are_refused_with_their_shapes(unseen, seen):
    with pytest.raises(DTSError, match="descriptors have shapes"):
        fusion_weights(torch.ones(unseen), torch.ones(seen))


# --- the fused model ---


def test_a_one_hot_weight_gives_the_rebuilt_expert(base, named):
    deltas = personalise(base, named)
    for i, task in enumerate(named):
        found = fuse(base, list(deltas.values()), [float(i == j) for j in range(3)])
        wanted = rebuild(base, deltas[task])
        assert all(torch.allclose(found[n], wanted[n], rtol=1e-6, atol=1e-6) for n in base)


def test_the_fused_model_is_the_base_and_the_weighted_sum_of_remainders(base, named):
    deltas, weights = list(personalise(base, named).values()), [0.5, 0.2, -0.4]
    found = fuse(base, deltas, torch.tensor(weights))
    for n in base:
        steps = [rebuild(base, delta)[n] - base[n] for delta in deltas]
        wanted = base[n] + sum(w * step for w, step in zip(weights, steps, strict=True))
        assert torch.allclose(found[n], wanted, rtol=1e-5, atol=1e-5)


def test_uniform_weights_over_the_average_give_about_the_average(experts):
    merged = average(experts)
    found = fuse(merged, [compress(merged, e, keep_ratio=1, groups=8, scale="mean") for e in experts], [1 / 3] * 3)
    # The differences from the average sum to nothing: what remains is the thresholding error.
    assert distance(found, merged) < 0.25 * min(distance(merged, e) for e in experts)


def test_integers_are_the_bases_dtypes_are_kept_and_nothing_is_changed(base, named):
    base = {**{n: t.bfloat16() for n, t in base.items()}, "steps": torch.tensor([7])}
    experts = [{**expert, "steps": torch.tensor([9])} for expert in named.values()]
    deltas = [compress(base, expert) for expert in experts]
    before = {n: t.clone() for n, t in base.items()}
    found = fuse(base, deltas, [0.3] * 3)
    assert {n: t.dtype for n, t in found.items()} == {n: t.dtype for n, t in base.items()}
    assert found["steps"].tolist() == [7]
    for tensor in found.values():
        tensor.zero_()
    assert all(torch.equal(base[n], before[n]) for n in base)


def test_tied_tensors_are_fused_alike(base, expert):
    base, expert = {**base, "head": base["embedding"]}, {**expert, "head": expert["embedding"]}
    found = fuse(base, [compress(base, expert)], [0.5])
    assert torch.equal(found["head"], found["embedding"])
    assert not torch.equal(found["head"], base["head"])


def test_a_base_that_one_delta_was_not_made_for_is_refused(base, experts):
    deltas = [compress(base, experts[0]), compress(experts[2], experts[1])]
    with pytest.raises(StateError, match="not the one"):
        fuse(base, deltas, [0.5, 0.5])


@pytest.mark.parametrize(("count", "weights"), [(0, []), (1, []), (1, [0.5, 0.5]), (0, [1.0])])
def test_there_must_be_one_weight_a_delta_and_at_least_one(base, expert, count, weights):
    with pytest.raises(DTSError, match="one weight a delta"):
        fuse(base, [compress(base, expert)] * count, weights)


def test_personalise_checks_every_expert_first_and_names_the_task(base, experts, monkeypatch):
    monkeypatch.setattr("dts_mini.core.personal.compressed", lambda *_, **__: pytest.fail("work began"))
    bad = dict(experts[1], **{"norm.weight": torch.full((12,), float("nan"))})
    with pytest.raises(StateError, match=r"expert of 'b', tensor 'norm\.weight'"):
        personalise(base, {"a": experts[0], "b": bad})
    with pytest.raises(DTSError, match="no experts"):
        personalise(base, {})


def test_descriptors_and_weights_that_are_not_finite_are_refused(base, expert):
    nan = torch.tensor([1.0, float("nan")])
    with pytest.raises(DTSError, match="descriptor holds NaN"):
        fusion_weights(nan, torch.ones(2, 2))
    with pytest.raises(DTSError, match="weight is NaN"):
        fuse(base, [compress(base, expert)], [float("nan")])
