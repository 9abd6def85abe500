"""The peers: each at its lossless limit or by what its paper says of it, in files that are counted alike."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dts_mini import DTSError, FileError, StateError, TaskDelta
from dts_mini.core.parts import Kept, Reader, Tied, Unchanged, Writer
from dts_mini.peers import BUDGETED, NATURAL, PEERS, Peer, bytes_per_task
from dts_mini.peers.binary import bitdelta, t_switch
from dts_mini.peers.bitmap import entropy, read_bits, write_bits
from dts_mini.peers.direct import direct, direct_low_rank
from dts_mini.peers.entropy_coded import SparseIntegers, rounding
from dts_mini.peers.low_rank import low_rank
from dts_mini.peers.masks import elect, emr, tall
from dts_mini.peers.pruned import pruned
from dts_mini.peers.quantised import Quantised, rtvq, tvq
from dts_mini.peers.rounded import FewBits, delta_come, delta_mix, low_rank_int
from dts_mini.peers.subspace import subspace
from dts_mini.peers.twin import twin_merging
from dts_mini.peers.ultra import Sampled, ultra_delta

HALF = 2**-11  # the relative rounding error of half precision
ENOUGH = 30_000  # bytes: more than an expert of the small model takes in half precision


@pytest.fixture
def tasks(experts) -> dict[str, dict[str, Tensor]]:
    return dict(zip(("a", "b", "c"), experts, strict=True))


def made(name: str, base, tasks) -> Peer:
    return PEERS[name](base, tasks, 1_400) if name in BUDGETED else PEERS[name](base, tasks)


def error(found: dict[str, Tensor], wanted: dict[str, Tensor], base: dict[str, Tensor]) -> float:
    """The error of what was added to the base, relative to what should have been."""
    square = lambda x, y: sum((x[n].double() - y[n].double()).square().sum().item() for n in base)
    return math.sqrt(square(found, wanted) / square(wanted, base))


def difference(peer: Peer, task: str, name: str) -> Tensor:
    return peer.rebuild(task)[name] - peer.base[name]


# --- what holds of all ---


@pytest.mark.parametrize("ambient", ["float64", "bfloat16", "meta", "autocast", "grad"])
@pytest.mark.parametrize("name", PEERS)
def test_defaults_autocast_and_gradients_around_a_call_change_no_bit(base, tasks, name, ambient):
    work = lambda peer: [
        [delta.to_bytes() for delta in (*peer.deltas.values(), peer.shared) if delta],
        {(task, key): x for task in tasks for key, x in peer.rebuild(task).items()},
    ]
    read = lambda delta: delta and TaskDelta.from_bytes(delta.to_bytes())
    again = lambda peer: Peer(peer.base, {t: read(d) for t, d in peer.deltas.items()}, read(peer.shared))
    files, wanted = work(made(name, base, tasks))
    if ambient == "grad":
        base, *others = ({n: x.clone().requires_grad_() for n, x in state.items()} for state in (base, *tasks.values()))
        tasks = dict(zip(tasks, others, strict=True))
    try:
        if ambient in ("float64", "bfloat16"):
            torch.set_default_dtype(getattr(torch, ambient))
        elif ambient == "meta":
            torch.set_default_device("meta")
        with torch.autocast("cpu", torch.bfloat16, enabled=ambient == "autocast"):
            found, rebuilt = work(again(made(name, base, tasks)))
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert found == files
    assert all(torch.equal(rebuilt[key], x) and rebuilt[key].dtype == x.dtype for key, x in wanted.items())


@pytest.mark.parametrize("name", PEERS)
def test_files_come_back_as_they_were_and_rebuild_the_same(base, tasks, name):
    peer = made(name, base, tasks)
    read = lambda delta: TaskDelta.from_bytes(delta.to_bytes())
    again = Peer(peer.base, {t: read(d) for t, d in peer.deltas.items()}, peer.shared and read(peer.shared))
    for task in tasks:
        assert again.deltas[task].to_bytes() == peer.deltas[task].to_bytes()
        first, second = peer.rebuild(task), again.rebuild(task)
        assert first.keys() == base.keys()
        for tensor in base:
            assert first[tensor].dtype == base[tensor].dtype
            assert first[tensor].shape == base[tensor].shape
            assert torch.equal(first[tensor], second[tensor]), tensor


@pytest.mark.parametrize("name", PEERS)
def test_files_do_not_depend_on_the_order_of_state_dicts(base, tasks, name):
    turned = {task: dict(reversed(expert.items())) for task, expert in tasks.items()}
    one, other = made(name, base, tasks), made(name, base, turned)
    assert all(one.deltas[task].to_bytes() == other.deltas[task].to_bytes() for task in tasks)


@pytest.mark.parametrize("name", PEERS)
def test_integers_scalars_unchanged_and_tied_tensors_are_treated_alike_by_all(name):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 8, generator=generator)
    base = {"a": weight, "b": weight, "n": torch.tensor([3]), "scale": torch.tensor(2.0), "same": torch.ones(5)}
    other = weight + 0.1 * torch.randn(12, 8, generator=generator)
    expert = base | {"a": other, "b": other, "n": torch.tensor([4]), "scale": torch.tensor(2.5)}
    peer = made(name, base, {"x": expert, "y": expert})
    rebuilt, parts = peer.rebuild("x"), peer.deltas["x"].parts
    assert isinstance(parts["b"], Tied)
    assert rebuilt["a"].data_ptr() == rebuilt["b"].data_ptr()
    assert torch.equal(rebuilt["n"], expert["n"])
    assert torch.equal(rebuilt["scale"], expert["scale"])
    assert isinstance(parts["scale"], Kept)
    if not name.startswith("expert itself"):
        assert isinstance(parts["same"], Unchanged)
        assert torch.equal(rebuilt["same"], base["same"])


@pytest.mark.parametrize("name", BUDGETED)
@pytest.mark.parametrize("budget", [1_380, 1_480, 1_730])
def test_a_budget_is_never_exceeded(base, tasks, name, budget):
    found = BUDGETED[name](base, tasks, budget).bytes_per_task()
    assert max(found.values()) <= budget
    assert min(found.values()) > 0


@pytest.mark.parametrize("name", BUDGETED)
def test_a_larger_budget_rebuilds_closer(base, tasks, name):
    less = 330 if name.startswith("T-Switch") else 0  # with more it keeps all that it ever keeps
    each = [BUDGETED[name](base, tasks, budget - less) for budget in (1_380, 1_730)]
    errors = [error(peer.rebuild("a"), tasks["a"], peer.base) for peer in each]
    assert errors[0] > errors[1]


@pytest.mark.parametrize("name", PEERS)
def test_a_budget_too_small_is_an_error_that_says_what_is_needed(base, tasks, name):
    with pytest.raises(DTSError, match=r"too small.* \d"):
        PEERS[name](base, tasks, 300)


@pytest.mark.parametrize("name", NATURAL)
def test_a_method_of_one_size_takes_it_whatever_the_budget(base, tasks, name):
    assert NATURAL[name](base, tasks, 50_000).bytes_per_task() == NATURAL[name](base, tasks).bytes_per_task()


@pytest.mark.parametrize("name", PEERS)
def test_bad_experts_are_refused(base, tasks, name):
    with pytest.raises(StateError, match="embedding"):
        made(name, base, tasks | {"b": {n: t for n, t in base.items() if n != "embedding"}})
    with pytest.raises(DTSError, match="no experts"):
        made(name, base, {})


def test_each_task_takes_its_own_file_and_its_part_of_the_shared_one(base, tasks):
    peer = emr(base, tasks)
    shared = len(peer.shared.to_bytes())
    for task, size in peer.bytes_per_task().items():
        assert size == len(peer.deltas[task].to_bytes()) + shared / 3
    assert bytes_per_task(peer.deltas) == {task: len(delta.to_bytes()) for task, delta in peer.deltas.items()}


@pytest.mark.parametrize("name", ["RTVQ B3O2", "EMR-Merging", "TALL masks", "shared subspace"])
def test_half_of_a_peer_is_never_taken_for_the_whole(base, tasks, name):
    with pytest.raises(DTSError, match="shared file"):
        made(name, base, tasks).deltas["a"].remainder("embedding")


def test_an_unknown_task_is_an_error_that_names_the_known_ones(base, tasks):
    with pytest.raises(DTSError, match="'z' is unknown: choose one of a, b, c"):
        bitdelta(base, tasks).rebuild("z")


def test_a_difference_beyond_half_precision_is_refused_by_name(base, tasks):
    far = tasks["a"] | {"embedding": tasks["a"]["embedding"] + 1e5}
    with pytest.raises(StateError, match=r"'a', tensor 'embedding'.*half precision"):
        bitdelta(base, {"a": far})


@pytest.mark.parametrize(
    ("method", "other"), [(emr, rtvq), (rtvq, tall), (partial(subspace, budget=4_000), partial(subspace, budget=9_000))]
)
def test_a_shared_file_that_is_not_the_tasks_own_is_refused_with_the_tensor(base, tasks, method, other):
    own, elsewhere = method(base, tasks), method({name: x + 1 for name, x in base.items()}, tasks)
    kinds = other(base, tasks).shared.parts
    mixed = replace(
        own.shared, parts=own.shared.parts | {n: part for n, part in kinds.items() if n in own.shared.parts}
    )
    for shared in (None, elsewhere.shared, mixed):
        with pytest.raises(StateError, match=r"^tensor '.*': the shared file"):
            replace(own, shared=shared).rebuild("a")


# --- bits ---


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_bits_come_back_as_they_were(values):
    bits, writer = torch.tensor(values), Writer()
    arguments = write_bits(bits, writer)
    assert torch.equal(read_bits(Reader(writer.tensors(), {}, 0), len(bits), *arguments), bits)


@pytest.mark.parametrize(("count", "length"), [(9, 0), (6, 4), (5, 4), (0, 4), (2, 3), (2, 0), (3, 4), (2, 8)])
def test_bits_of_other_counts_and_lengths_than_are_there_are_refused(count, length):
    writer = Writer()
    assert write_bits(torch.tensor([True, False, True, False, False]), writer) == [2, 4]
    with pytest.raises(FileError, match="the delta"):
        read_bits(
            Reader(writer.tensors() | {"bits": torch.cat([writer.tensors()["bits"]] * 2)}, {}, 0), 5, count, length
        )


@pytest.mark.parametrize("density", [0.001, 0.02, 0.3, 0.5])
def test_bits_take_no_more_than_their_entropy_and_two_words(density):
    bits = torch.rand(50_000, generator=torch.Generator().manual_seed(0)) < density
    _, length = write_bits(bits, Writer())
    assert entropy(bits) <= 8 * length + 1
    assert 8 * length <= 1.01 * entropy(bits) + 64


# --- low rank ---


@pytest.mark.parametrize("ranks", ["even", "water-filling"])
def test_at_full_rank_only_half_precision_is_lost(base, tasks, ranks):
    assert error(low_rank(base, tasks, share=1.0, ranks=ranks).rebuild("a"), tasks["a"], base) < 2 * HALF
    assert error(low_rank(base, tasks, ENOUGH, ranks=ranks).rebuild("a"), tasks["a"], base) < 2 * HALF


def test_a_truncated_matrix_is_off_by_the_singular_values_that_it_lacks(base, tasks):
    peer = low_rank(base, tasks)  # a third of the components: there are three tasks
    for name in ("embedding", "conv.weight"):
        wanted = (tasks["a"][name] - base[name]).flatten(1)
        s, kept = torch.linalg.svdvals(wanted), round(min(wanted.shape) / 3)
        assert peer.deltas["a"].parts[name].rank == kept
        off = (difference(peer, "a", name).flatten(1) - wanted).norm()
        assert off.item() == pytest.approx(s[kept:].norm().item(), rel=1e-3)


def test_water_filling_is_the_closer_of_the_two_at_the_same_bytes(base, tasks):
    uneven = {n: t + 9 * (t - base[n]) if n == "embedding" else t for n, t in tasks["a"].items()}
    even, filled = (low_rank(base, {"a": uneven}, 1_700, ranks=ranks) for ranks in ("even", "water-filling"))
    assert error(filled.rebuild("a"), uneven, base) < error(even.rebuild("a"), uneven, base)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_vectors_make_a_smaller_file_and_are_off_by_half_a_step(bits):
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.zeros(6, 8), "b": torch.zeros(3_000)}
    tasks = {"a": {name: torch.randn(x.shape, generator=generator) for name, x in base.items()}}
    half, fewer = low_rank(base, tasks), low_rank(base, tasks, vector_bits=bits)
    assert fewer.bytes_per_task()["a"] < half.bytes_per_task()["a"] - 3_000 * (16 - bits) / 8 + 100
    step = (tasks["a"]["b"].max() - tasks["a"]["b"].min()) / (2**bits - 1)
    assert (difference(fewer, "a", "b") - tasks["a"]["b"]).abs().max() <= 0.51 * step
    with pytest.raises(DTSError, match="vector_bits is 9"):
        low_rank(base, tasks, vector_bits=9)


@pytest.mark.parametrize("name", ["TSV-C", "low-rank INT3", "Delta-CoMe", "DeltaMix", "UltraDelta", "shared subspace"])
def test_vectors_take_a_fiftieth_of_a_budget_at_most(name):
    """So at small sizes they stay the base's, and methods about matrices are not handicapped by them."""
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.zeros(60, 80), "b": torch.zeros(100)}
    tasks = {t: {n: torch.randn(x.shape, generator=generator) for n, x in base.items()} for t in ("a", "b")}
    bits = lambda budget: getattr(PEERS[name](base, tasks, budget).deltas["a"].parts["b"], "width", 0)
    assert [bits(budget) for budget in (1_249, 1_250, 1_900, 2_500)] == [0, 2, 3, 4]


# --- quantised ---


def test_a_weight_looks_after_the_matrix_that_changed_little():
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.zeros(40, 30) for name in ("little", "much")}
    expert = {"little": torch.randn(40, 30, generator=generator), "much": 9 * torch.randn(40, 30, generator=generator)}
    settings = {"ranks": "water-filling", "vector_bits": 4}
    for weight, wanted in ((0.0, "much"), (1.0, "little")):
        parts = low_rank(base, {"a": expert}, 1_500, weight=weight, **settings).deltas["a"].parts
        ranks = {name: parts[name].rank for name in base}
        assert ranks["little"] == 0 if wanted == "much" else ranks["little"] >= ranks["much"] - 1


def test_a_zero_counts_as_positive_in_bitdelta():
    expert = {"w": torch.tensor([[0.0, -1.0], [2.0, 1.0]])}
    found = bitdelta({"w": torch.zeros(2, 2)}, {"a": expert}).rebuild("a")["w"]
    assert torch.equal(found, torch.tensor([[1.0, -1.0], [1.0, 1.0]]))


@given(st.integers(1, 8), st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40))
def test_a_quantised_element_is_off_by_half_a_step_and_zero_is_kept(bits, values):
    x = torch.tensor(values)
    found = Quantised.of(x, bits)
    limit = (max(max(values), 0) - min(min(values), 0)) / (2**bits - 1) / 2
    assert ((found.restore() - x).abs() <= limit * (1 + 1e-4) + 1e-30).all()
    assert (found.restore()[x == 0] == 0).all()
    assert found.codes.max().item() < 2**bits


def test_each_more_bit_halves_the_error_about(base, tasks):
    errors = [error(tvq(base, tasks, bits=bits).rebuild("a"), tasks["a"], base) for bits in (2, 3, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def test_the_offset_mends_the_rounding_of_the_shared_vector(base, tasks):
    for base_bits in (1, 3):  # however coarse the base, 8 bits for the offset leave 1 / 255 of its range
        assert error(rtvq(base, tasks, base_bits=base_bits, bits=8).rebuild("a"), tasks["a"], base) < 0.03


def test_tasks_that_are_alike_need_but_the_shared_vector(base, tasks):
    same = {"a": tasks["a"], "b": tasks["a"]}
    found = error(rtvq(base, same, base_bits=8, bits=1).rebuild("a"), tasks["a"], base)
    assert found < error(tvq(base, same, bits=2).rebuild("a"), tasks["a"], base) / 10


# --- binary ---


def test_bitdelta_keeps_signs_and_the_mean_magnitude_of_matrices_and_vectors_as_they_are(base, tasks):
    peer = bitdelta(base, tasks)
    for name in ("embedding", "conv.weight"):
        wanted = tasks["a"][name] - base[name]
        exact = torch.where(wanted > 0, 1.0, -1.0) * wanted.abs().mean()
        assert torch.allclose(difference(peer, "a", name), exact, atol=1e-6)
    assert torch.allclose(
        difference(peer, "a", "norm.weight"), tasks["a"]["norm.weight"] - base["norm.weight"], atol=1e-3
    )


def test_the_mean_magnitude_is_the_best_scale_of_the_signs(base, tasks):
    wanted = tasks["a"]["embedding"] - base["embedding"]
    found = bitdelta(base, tasks).deltas["a"].remainder("embedding")
    for factor in (0.9, 1.1):
        assert (found - wanted).norm() < (factor * found - wanted).norm()


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_t_switch_keeps_the_largest_of_all_tensors_and_their_norm_under_one_scale(base, tasks, density):
    delta = t_switch(base, tasks, density=density).deltas["a"]
    names = [name for name in base if base[name].dim()]
    wanted = torch.cat([(tasks["a"][name] - base[name]).reshape(-1) for name in names])
    found = [delta.remainder(name) for name in names]
    found = torch.cat(
        [torch.zeros(base[n].numel()) if x is None else x.reshape(-1) for n, x in zip(names, found, strict=True)]
    )
    kept = found != 0
    assert kept.sum() == int(density * len(wanted))
    assert density == 1 or wanted[kept].abs().min() >= wanted[~kept].abs().max()
    assert torch.equal(found[kept].sign(), wanted[kept].sign())
    assert len(found[kept].abs().unique()) == 1
    assert found.norm().item() == pytest.approx(wanted[kept].norm().item(), rel=1e-4)


def test_t_switch_is_of_one_of_two_kinds(base, tasks):
    with pytest.raises(DTSError, match="per is 'row'"):
        t_switch(base, tasks, density=0.1, per="row")


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_t_switch_per_tensor_keeps_the_largest_of_each_sign_and_their_norm(base, tasks, density):
    peer = t_switch(base, tasks, density=density, per="tensor")
    wanted = (tasks["a"]["embedding"] - base["embedding"]).reshape(-1)
    found = peer.deltas["a"].remainder("embedding").reshape(-1)
    for sign in (1, -1):
        own, active = sign * wanted[sign * wanted > 0], sign * found > 0
        assert active.sum() == int(density * len(own))
        assert (sign * wanted[active]).min() >= own.sort(descending=True).values[int(active.sum()) - 1]
    assert len(found[found != 0].abs().unique()) == 1
    assert found.norm().item() == pytest.approx(wanted[found != 0].norm().item(), rel=1e-4)


@pytest.mark.parametrize("per", ["vector", "tensor"])
def test_t_switch_keeps_half_at_most_where_a_budget_chooses_and_never_comes_less_near_with_more(base, tasks, per):
    """More than half of the elements under one scale lead away; all of them have no places, so that they take less."""
    found = [t_switch(base, tasks, budget, per=per) for budget in range(1_150, 2_100, 50)]
    densities = [peer.deltas["a"].settings["density"] for peer in found]
    errors = [error(peer.rebuild("a"), tasks["a"], peer.base) for peer in found]
    assert densities[-1] == 0.5
    assert densities == sorted(densities)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < error(t_switch(base, tasks, density=1.0, per=per).rebuild("a"), tasks["a"], base)


def test_t_switch_per_tensor_keeps_all_signs_where_they_fit_and_its_authors_density_does_not(base):
    """As on a tensor so large that its places weigh."""
    g = torch.Generator().manual_seed(0)
    before, after = {"w": torch.zeros(400, 300)}, {"w": torch.randn(400, 300, generator=g)}
    size = lambda density: t_switch(before, {"a": after}, density=density, per="tensor").bytes_per_task()["a"]
    chosen = lambda budget: t_switch(before, {"a": after}, int(budget), per="tensor").deltas["a"].settings["density"]
    assert size(1.0) < size(0.4) < size(0.5)
    assert chosen(size(1.0)) == 1.0
    assert chosen(size(1.0) - 1) < 0.4 <= chosen(size(0.4)) < 0.5 == chosen(size(0.5))


# --- pruned ---


def test_nothing_pruned_only_half_precision_is_lost(base, tasks):
    assert error(pruned(base, tasks, density=1.0).rebuild("a"), tasks["a"], base) < HALF
    assert error(pruned(base, tasks, ENOUGH).rebuild("a"), tasks["a"], base) < HALF


def test_what_stays_is_the_largest_over_all_tensors(base, tasks):
    delta = pruned(base, tasks, density=0.1).deltas["a"]
    names = [name for name in base if base[name].dim()]
    wanted = torch.cat([(tasks["a"][name] - base[name]).reshape(-1) for name in names])
    found = [delta.remainder(name) for name in names]
    found = torch.cat(
        [torch.zeros(base[n].numel()) if x is None else x.reshape(-1) for n, x in zip(names, found, strict=True)]
    )
    assert (found != 0).sum() == int(0.1 * len(wanted))
    assert wanted[found != 0].abs().min() >= wanted[found == 0].abs().max()


# --- masks ---


def test_the_unified_vector_takes_the_summed_sign_and_the_largest_of_that_sign():
    vectors = [torch.tensor(values) for values in ([1.0, -4.0, 0.5, 0.0], [3.0, 1.0, -2.0, 0.0], [-2.0, 1.0, 1.0, 0.0])]
    assert elect(vectors).tolist() == [3.0, -4.0, -2.0, 0.0]


@pytest.mark.parametrize("peer", [emr, tall])
def test_a_masked_element_is_the_shared_one_or_nothing(base, tasks, peer):
    made = peer(base, tasks)
    for task in tasks:
        factor = made.deltas[task].settings["rescaler"]
        for name in ("embedding", "norm.weight"):
            shared = factor * made.shared.parts[name].restore().view(base[name].shape)
            found = made.deltas[task].parts[name].join(made.shared.parts[name]).value.view(base[name].shape)
            assert torch.equal(found, torch.where(found != 0, shared, 0))
            assert 0 < (found != 0).float().mean() < 1


def test_emr_keeps_signs_and_the_mean_magnitude_of_a_task(base, tasks):
    peer = emr(base, tasks)
    names = [name for name in base if base[name].dim()]
    wanted = torch.cat([(tasks["b"][name] - base[name]).reshape(-1) for name in names])
    found = torch.cat([difference(peer, "b", name).reshape(-1) for name in names])
    assert (found * wanted >= -1e-6).all()
    assert found.abs().sum().item() == pytest.approx(wanted.abs().sum().item(), rel=1e-3)


def test_a_single_task_needs_no_rescaling_and_loses_half_precision_alone(base, tasks):
    for peer in (emr, tall):
        assert error(peer(base, {"a": tasks["a"]}).rebuild("a"), tasks["a"], base) < 2 * HALF


def test_a_strictness_of_one_masks_what_is_nearer_to_nothing(base, tasks):
    peer = tall(base, tasks, strictness=dict.fromkeys(tasks, 1.0))
    wanted = tasks["a"]["embedding"] - base["embedding"]
    total = sum(expert["embedding"] - base["embedding"] for expert in tasks.values())
    off = (difference(peer, "a", "embedding") - wanted).abs()
    assert (off <= torch.minimum(wanted.abs(), (total - wanted).abs()) + 1e-3).all()
    with pytest.raises(DTSError, match="strictness"):
        tall(base, tasks, strictness={"a": 0.4})


# --- shared subspace ---


def test_a_subspace_of_full_size_loses_half_precision_alone(base, tasks):
    peer = subspace(base, tasks, 10 * ENOUGH)
    for task in tasks:
        assert error(peer.rebuild(task), tasks[task], base) < 4 * HALF


def test_tasks_in_one_subspace_need_no_larger_one():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    u, vt, base = draw(40, 3), draw(3, 30), {"w": draw(40, 30)}
    tasks = {str(n): {"w": base["w"] + u @ draw(3, 3) @ vt} for n in range(4)}
    own = 2 * 3 * 3 + 2 * 3 * (40 + 30) / 4
    peer = subspace(base, tasks, 2_000)
    assert peer.shared.parts["w"].left.shape[0] >= 3
    assert max(error(peer.rebuild(task), tasks[task], base) for task in tasks) < 4 * HALF
    small = subspace(base, tasks, round(max(subspace(base, tasks, 2_000).bytes_per_task().values())))
    assert small.deltas["0"].parts["w"].bits / 8 + small.shared.parts["w"].bits / 8 / 4 >= own


# --- the expert itself ---


def test_the_expert_itself_needs_no_pretrained_model(base, tasks):
    peer = direct_low_rank(base, tasks, ENOUGH)
    assert all(not tensor.any() for tensor in peer.base.values())
    zeros = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    assert error(peer.rebuild("a"), tasks["a"], zeros) < 2 * HALF


@pytest.mark.parametrize("method", ["dts", "drc"])
def test_the_expert_itself_goes_through_the_core(base, tasks, method):
    peer = direct(base, tasks, 1_430, method=method)
    assert {delta.method for delta in peer.deltas.values()} == {method}
    assert error(peer.rebuild("a"), tasks["a"], peer.base) < 0.8


# --- low rank in few bits ---


@pytest.fixture(scope="module")
def wide(layered) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    base, expert = layered
    return base, {"a": expert}


@pytest.mark.parametrize("width, limit", [(1, 0.4), (2, 0.15), (3, 0.05), (4, 0.016), (8, 1e-4)])
def test_a_rounded_vector_errs_about_as_a_gaussian_does(width, limit):
    generator = torch.Generator().manual_seed(0)
    u, vt = torch.randn(400, 1, generator=generator), torch.randn(1, 300, generator=generator)
    peer = low_rank_int({"w": torch.zeros(400, 300)}, {"a": {"w": u @ vt}}, 3_000, widths=(width,), norm=0.0)
    found = peer.rebuild("a")["w"]
    assert isinstance(peer.deltas["a"].parts["w"], FewBits)
    assert ((found - u @ vt).norm() / (u @ vt).norm()).item() ** 2 < 2 * limit


def test_a_width_costs_its_bits_and_no_more():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(64, 48, generator=generator)
    for width in (2, 3, 4):
        part = low_rank_int({"w": torch.zeros(64, 48)}, {"a": {"w": w}}, 3_000, widths=(width,)).deltas["a"].parts["w"]
        assert part.bits == part.rank * (width * (64 + 48) + 16) + 32


def test_the_stronger_component_never_has_fewer_bits(wide):
    widths = [part.widths for part in delta_mix(*wide, "4%").deltas["a"].parts.values() if isinstance(part, FewBits)]
    assert all(list(found) == sorted(found, reverse=True) for found in widths)
    assert len({width for found in widths for width in found}) > 2


def test_a_choice_of_widths_beats_one_width_for_all(wide):
    base, tasks = wide
    errors = {
        widths: error(
            low_rank_int(base, tasks, "4%", widths=widths, weight=0.0, norm=0.0).rebuild("a"), tasks["a"], base
        )
        for widths in ((2,), (3,), (4,), (2, 3, 4, 8))
    }
    assert min(errors, key=errors.get) == (2, 3, 4, 8)


def test_a_second_factor_that_knows_the_first_is_closer(wide):
    base, tasks = wide
    errors = [
        error(delta_come(base, tasks, "4%", fitted=fitted, norm=0.0).rebuild("a"), tasks["a"], base)
        for fitted in (True, False)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("settings", [{"widths": (5,)}, {"widths": ()}, {"weight": 2.0}, {"norm": -1.0}])
def test_settings_of_few_bits_out_of_range_are_refused(base, tasks, settings):
    with pytest.raises(DTSError, match=r"widths are|must lie in"):
        low_rank_int(base, tasks, 2_000, **settings)


# --- the task vector rounded ---


@given(st.lists(st.integers(-300, 300), min_size=1, max_size=60))
def test_sparse_integers_come_back_as_they_were(values):
    part, writer = SparseIntegers(torch.tensor(values, dtype=torch.int16), torch.tensor(0.5)), Writer()
    arguments = part.write(writer)
    reader = Reader(writer.tensors(), {}, writer.rows)
    again = SparseIntegers.read(reader, (len(values),), *arguments)
    reader.close()
    assert again == part and again.bits == part.bits >= 32


def test_without_a_dead_zone_an_element_is_off_by_half_a_step(base, tasks):
    delta = rounding(base, tasks, 2_200, norm=0.0).deltas["a"]
    steps = {name: part.unit for name, part in delta.parts.items() if isinstance(part, SparseIntegers)}
    assert max(steps.values()) == min(steps.values())  # one for all tensors
    for name, step in steps.items():
        off = delta.remainder(name) - (tasks["a"][name] - base[name])
        assert off.abs().max() <= 0.501 * step


# --- UltraDelta ---


def test_of_each_level_the_same_share_is_kept_and_more_where_the_variance_is_larger():
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.zeros(60, 50) for name in ("quiet", "middle", "loud")}
    sizes = {"quiet": 0.1, "middle": 1.0, "loud": 3.0}
    expert = {name: size * torch.randn(60, 50, generator=generator) for name, size in sizes.items()}
    parts = ultra_delta(base, {"a": expert}, density=0.3, bits=2).deltas["a"].parts
    kept = {name: parts[name].kept.float().mean().item() for name in sizes}
    assert kept == pytest.approx({"quiet": 0.2, "middle": 0.3, "loud": 0.4}, abs=2e-3)
    for name, x in expert.items():
        step = (x.max() - x.min()) / 3
        levels = ((x - x.min()) / step).round().flatten()
        for level in range(4):
            here = levels == level
            assert parts[name].kept[here].sum().item() == pytest.approx(kept[name] * here.sum().item(), abs=2)


def test_what_is_kept_of_ultra_delta_is_its_level_over_the_share_kept():
    w = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    part = ultra_delta({"w": torch.zeros(40, 30)}, {"a": {"w": w}}, density=0.25, shrink=0.0).deltas["a"].parts["w"]
    found, flat = part.restore()[part.kept] * 0.25, w.flatten()[part.kept]
    assert (found - flat).abs().max() <= 0.501 * (w.max() - w.min()) / 15


def test_the_task_with_the_longest_vector_is_shortened_most(base, tasks):
    far = {"near": tasks["a"], "far": {n: base[n] + 3 * (x - base[n]) for n, x in tasks["a"].items()}}
    peer = ultra_delta(base, far, density=0.5)
    alone = ultra_delta(base, {"far": far["far"]}, density=0.5)
    name = "embedding"
    ratio = peer.deltas["far"].remainder(name) / alone.deltas["far"].remainder(name)
    assert ratio[ratio.isfinite()].mean().item() == pytest.approx(1 / 3, rel=1e-3)


def test_ultra_delta_draws_alike_from_one_seed(base, tasks):
    one, same, other = (ultra_delta(base, tasks, seed=seed).deltas["a"].to_bytes() for seed in (0, 0, 1))
    assert one == same != other
    assert any(isinstance(part, Sampled) for part in ultra_delta(base, tasks).deltas["a"].parts.values())


# --- Twin-Merging ---


def test_twin_merging_stores_what_a_task_has_beyond_the_merged_model(base, tasks):
    peer = twin_merging(base, tasks, share=1.0, vector_bits=16)
    for name, x in peer.base.items():
        if x.is_floating_point():
            wanted = base[name] + 0.3 * sum(expert[name] - base[name] for expert in tasks.values())
            assert torch.allclose(x, wanted, atol=1e-5)
    assert error(peer.rebuild("a"), tasks["a"], peer.base) < 4 * HALF
